"""Small real trainings, recorded as a watcher records them: each step's numbers are taken before its update."""

import math
from collections.abc import Callable
from dataclasses import dataclass
from itertools import pairwise

import torch

from whynan.watching.flight import FlightRecord, warning
from whynan.watching.record import Moment

WEIGHTS = torch.linspace(-2, 2, 10)[:, None]


@dataclass(frozen=True)
class Run:
    """What became of a training: its flight record, the step that failed (None if none did), and the warnings on the way."""

    flight: FlightRecord
    failed: Moment | None
    warnings: list[str]


def regression(step: int) -> tuple[torch.Tensor, torch.Tensor]:
    """A batch of a noisy linear problem with ten features."""
    x = torch.randn(32, 10)
    return x, x @ WEIGHTS + 0.1 * torch.randn(32, 1)


def mlp(*sizes: int) -> torch.nn.Sequential:
    """Linear layers with ReLU between them."""
    layers = [layer for a, b in pairwise(sizes) for layer in (torch.nn.Linear(a, b), torch.nn.ReLU())]
    return torch.nn.Sequential(*layers[:-1])


def train(
    model: torch.nn.Module,
    optimizer: torch.optim.Optimizer,
    steps: int,
    data: Callable[[int], tuple[torch.Tensor, torch.Tensor]] = regression,
    loss: Callable[[torch.Tensor, torch.Tensor], torch.Tensor] = torch.nn.functional.mse_loss,
    before: Callable[[int], None] = lambda step: None,
    clip: float | None = None,
    parameters_every: int = 1,
    memory: int = 200,
) -> Run:
    """Train until a step fails, or to the end. The norm of the parameters is noted every so many steps (0: never) and when a step fails."""
    flight, warnings, parameters = FlightRecord(memory), [], list(model.parameters())
    for step in range(steps):
        before(step)
        x, y = data(step)
        optimizer.zero_grad()
        value = loss(model(x), y)
        value.backward()
        clipped = float(torch.nn.utils.clip_grad_norm_(parameters, clip)) if clip is not None else math.nan
        grads = [p.grad for p in parameters if p.grad is not None]
        failed = not (value.isfinite() and all(g.isfinite().all() for g in grads))
        known = parameters_every and (step % parameters_every == 0 or failed)
        moment = Moment(
            step,
            value.item(),
            (_norm(grads),),
            parameter_norm=_norm([p.detach() for p in parameters]) if known else math.nan,
            learning_rates=(optimizer.param_groups[0]["lr"],),
            clipped_from=clipped,
        )
        if failed:
            return Run(flight, moment, warnings)
        optimizer.step()
        flight.add(moment)
        warnings += [w for w in [warning(flight)] if w]
    return Run(flight, None, warnings)


def _norm(tensors: list[torch.Tensor]) -> float:
    return math.sqrt(sum(float((t.double() ** 2).sum()) for t in tensors))
