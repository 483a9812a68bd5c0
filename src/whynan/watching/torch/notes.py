"""What is noted of each step: numbers at first, records of them several steps at a time, which is cheaper."""

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import torch

from whynan.watching.record import Moment
from whynan.watching.torch import health
from whynan.watching.torch.intercept import Clip

if TYPE_CHECKING:
    from whynan.watching.torch.run import Run

TOGETHER = 8  # steps

# a step's number, loss, norms, sizes of groups, rates, scale, clippings, optimizer
Seen = tuple[int, float, list[float], list[int], list[Any], Any, Sequence[Clip], int]


def note(run: "Run", optimizer: torch.optim.Optimizer | None = None) -> None:
    """Give the overseer the moments of the healthy steps since the last time."""
    for made in moments(run, optimizer):
        run.overseer.noted(made)


def moments(run: "Run", optimizer: torch.optim.Optimizer | None = None) -> list[Moment]:
    """What was seen of the last steps, as records. If the last one's update by the optimizer is due, it gets the norm of the parameters."""
    seen, run.unnoted = run.unnoted, []
    found = [moment(*numbers) for numbers in seen]
    if found and optimizer is not None:
        parameters = [p.detach() for group in optimizer.param_groups for p in group["params"] if p.is_floating_point()]
        found[-1] = replace(found[-1], parameter_norm=math.hypot(*health.norms(parameters)))
    return found


def moment(
    step: int,
    loss: float,
    norms: Sequence[float],
    sizes: Sequence[int],
    rates: Sequence[Any],
    scale: Any,
    clips: Sequence[Clip],
    optimizer: int,
) -> Moment:
    """The record of a step."""
    clipped = math.hypot(*(float(c.norm) for c in clips)) if clips else math.nan
    scale = math.nan if scale is None else float(scale)
    lr = tuple(map(float, rates))
    return Moment(step, loss, _by_group(norms, sizes), learning_rates=lr, scale=scale, clipped_from=clipped, optimizer=optimizer)


def _by_group(norms: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    """The norm of each parameter group's gradients from those of its parameters."""
    ends = list(itertools.accumulate(sizes))
    return tuple(math.hypot(*norms[end - size : end]) for end, size in zip(ends, sizes, strict=True))
