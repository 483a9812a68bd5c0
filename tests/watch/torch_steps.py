"""A small training loop that goes bad at a chosen step, and what must be as it was before."""

import copy
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

import whynan

BATCH = 6
BAD_SAMPLE = 4


class Net(nn.Module):
    """Linear, batch norm, relu, linear: a model with statistics that its steps change."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(3, 5)
        self.norm = nn.BatchNorm1d(5)
        self.last = nn.Linear(5, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(torch.relu(self.norm(self.first(x))))


def net(seed: int = 0) -> Net:
    torch.manual_seed(seed)
    return Net()


def log_loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """The logarithm is taken of a target, which is 0 for the bad sample: -inf * 0 is NaN."""
    return ((p.squeeze(-1) - t) ** 2 + 0.0 * t.log()).mean()


def batch(step: int, bad: bool = False) -> tuple[torch.Tensor, torch.Tensor]:
    g = torch.Generator().manual_seed(100 + step)
    x, t = torch.randn(BATCH, 3, generator=g), torch.rand(BATCH, generator=g) + 0.5
    if bad:
        t[BAD_SAMPLE] = 0.0
    return x, t


def state(model: nn.Module, optimizer: torch.optim.Optimizer | None = None) -> list[Any]:
    """All that a dropped step must leave as it was."""
    found: list[Any] = [t.detach().clone() for t in (*model.parameters(), *model.buffers())]
    if optimizer is not None:
        found.append(copy.deepcopy(optimizer.state_dict()))
    return found


def same(a: Any, b: Any) -> bool:
    """Equal to the last bit, with the same structure; of what is spread over ranks, this rank's part."""
    a, b = (t.to_local() if hasattr(t, "to_local") else t for t in (a, b))
    if isinstance(a, torch.Tensor):
        return isinstance(b, torch.Tensor) and a.dtype == b.dtype and a.equal(b)
    if isinstance(a, dict):
        return isinstance(b, dict) and a.keys() == b.keys() and all(same(a[k], b[k]) for k in a)
    if isinstance(a, (list, tuple)):
        return len(a) == len(b) and all(map(same, a, b))
    return bool(a == b)


def watched(model: nn.Module, optimizer: Any, loss: Any = log_loss, **options: Any) -> Any:
    return whynan.watch(model, loss=loss, optimizer=optimizer, **{"folder": None, **options})


def train_step(
    model: nn.Module, optimizer: torch.optim.Optimizer, step: int, bad: bool = False, loss: Callable[..., torch.Tensor] = log_loss
) -> torch.Tensor:
    x, t = batch(step, bad)
    optimizer.zero_grad()
    value = loss(model(x), t)
    value.backward()
    optimizer.step()
    return value
