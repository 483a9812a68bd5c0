"""Judging a step without waiting for the device: the flag stays there and holds the update back, and is read a step or two later.

Fused optimizers pass over an update whose `found_inf` is not 0, as they do for a gradient scaler. A step's flag also holds back the updates
after it until the host has read it, so that the parameters are still those of the bad step when it is run again.
"""

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch

from whynan.watching.torch.window import Window

MOST_WAITING = 2  # steps whose flag is not read yet


@dataclass(slots=True, eq=False)
class Waiting:
    """A step whose flag is under way to the host: `numbers` are flag, loss and norms, there when `event` has come by (None: at once)."""

    window: Window
    step: int
    numbers: torch.Tensor
    event: Any
    found: torch.Tensor
    ends: list[int]
    rates: list[float]
    clips: list[Any]

    def here(self) -> bool:
        """Whether the numbers can be read without waiting."""
        return self.event is None or bool(self.event.query())

    def read(self) -> list[float]:
        """Flag, loss and norms; waits for them if need be."""
        if self.event is not None:
            self.event.synchronize()
        found: list[float] = self.numbers.tolist()
        return found


class Later:
    """The steps that wait, oldest first."""

    def __init__(self) -> None:
        self._queue: deque[Waiting] = deque()

    def due(self, all_of_them: bool = False) -> Waiting | None:
        """The oldest step, taken out, if its flag is here or there are as many as may wait."""
        queue = self._queue
        if queue and (all_of_them or len(queue) >= MOST_WAITING or queue[0].here()):
            return queue.popleft()
        return None

    def rest(self) -> list[Waiting]:
        """All that wait, taken out, latest first."""
        found = list(self._queue)[::-1]
        self._queue.clear()
        return found

    def hold(self, optimizer: Any, gradients: Sequence[torch.Tensor], losses: Sequence[torch.Tensor], **kept: Any) -> None:
        """Give the optimizer the flag of the step under way, and send it to the host."""
        device = gradients[0].device
        values = [t.detach().float().mean() for t in losses]
        loss = torch.stack(values).sum() if values else torch.zeros((), device=device)
        largest = torch.stack([n.float() for n in torch._foreach_norm(list(gradients), float("inf"))])  # it does not overflow
        own = 1.0 - (torch.isfinite(largest).all() & torch.isfinite(loss)).float()
        found = torch.maximum(own, self._queue[-1].found) if self._queue else own
        norms = torch.stack([n.float() for n in torch._foreach_norm(list(gradients))])
        numbers = torch.cat([torch.stack([own, loss]), norms])
        event = None
        if device.type == "cuda":
            numbers = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it without types
            event.record()
        self._queue.append(Waiting(numbers=numbers, event=event, found=found, **kept))
        optimizer.grad_scale, optimizer.found_inf = None, found


def let_go(optimizer: Any) -> None:
    """Take the flag away again after the step."""
    for name in ("grad_scale", "found_inf"):
        vars(optimizer).pop(name, None)


def can_hold(optimizer: torch.optim.Optimizer, anywhere: bool) -> bool:
    """Whether the optimizer can hold an update back by itself, all of it on one CUDA device (`anywhere`: on any)."""
    devices = {p.device for group in optimizer.param_groups for p in group["params"]}
    fused = all(group.get("fused") for group in optimizer.param_groups) and bool(getattr(optimizer, "_step_supports_amp_scaling", False))
    return fused and len(devices) == 1 and (anywhere or next(iter(devices)).type == "cuda")
