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
    """A step whose flag is under way to the host: `numbers` are flag, loss, norms, there when `event` has come by (None: at once).

    After the norms come those before clippings, learning rates that are tensors, and those of how far the update before has moved the
    parameters. `upfront` are the buffers before the step where no call of the model was seen, `stateful` is how many parameters the
    optimizer had a state for.
    """

    window: Window
    step: int
    numbers: torch.Tensor
    event: Any
    found: torch.Tensor
    ends: list[int]
    rates: list[Any]
    clips: int
    upfront: Any
    stateful: int

    def here(self) -> bool:
        """Whether the numbers can be read without waiting."""
        return self.event is None or bool(self.event.query())

    def read(self) -> list[float]:
        """The numbers; waits for them if need be."""
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

    def hold(
        self, optimizer: Any, gradients: list[torch.Tensor], losses: list[torch.Tensor], others: Sequence[torch.Tensor], **kept: Any
    ) -> None:
        """Give the optimizer the flag of the step under way, and send it to the host with the loss, the gradients' norms and others."""
        device = gradients[0].device
        # a loss may lie on the host, or on another device; in double precision none overflows
        loss = sum((t.detach().to(device, torch.float64, non_blocking=True).mean() for t in losses), torch.zeros((), device=device))
        largest = _row(torch._foreach_norm([g for g in gradients if g.numel()], float("inf")))  # it does not overflow
        own = 1.0 - (torch.isfinite(largest).all() & torch.isfinite(loss)).float()
        found = torch.maximum(own, self._queue[-1].found) if self._queue else own
        norms = _row(torch._foreach_norm(gradients))
        rest = [_row([t.detach().to(device, non_blocking=True)]) for t in others]
        numbers = torch.cat([_row([own]), _row([loss]), norms, *rest])
        event = None
        if device.type == "cuda":
            numbers = torch.empty_like(numbers, device="cpu", pin_memory=True).copy_(numbers, non_blocking=True)
            event = torch.cuda.Event()  # type: ignore[no-untyped-call]  # torch leaves it without types
            event.record(torch.cuda.current_stream(device))  # that of the copy, also where another device is the current one
        self._queue.append(Waiting(numbers=numbers, event=event, found=found, stateful=len(optimizer.state), **kept))
        optimizer.grad_scale, optimizer.found_inf = None, found


def _row(scalars: Sequence[torch.Tensor]) -> torch.Tensor:
    """Tensors of one element, of one or several types, as one tensor."""
    return torch.cat([t.reshape(1) for t in scalars])


def let_go(optimizer: Any) -> None:
    """Take the flag away again after the step."""
    for name in ("grad_scale", "found_inf"):
        vars(optimizer).pop(name, None)


def forget_state(optimizer: torch.optim.Optimizer, stateful: int) -> None:
    """Forget the states beyond so many: held back updates have begun them, SGD's momentum with whatever was in memory."""
    for p in list(optimizer.state)[stateful:]:
        del optimizer.state[p]


def can_hold(optimizer: torch.optim.Optimizer, anywhere: bool) -> bool:
    """Whether the optimizer can hold an update back by itself, all of it on one CUDA device (`anywhere`: on any)."""
    devices = {p.device for group in optimizer.param_groups for p in group["params"]}
    fused = all(group.get("fused") for group in optimizer.param_groups) and bool(getattr(optimizer, "_step_supports_amp_scaling", False))
    return fused and len(devices) == 1 and (anywhere or next(iter(devices)).type == "cuda")
