"""What is noted of each step: numbers at first, records of them several steps at a time, which is cheaper."""

import math
from collections.abc import Sequence
from itertools import pairwise
from time import monotonic
from typing import TYPE_CHECKING

import torch

from whynan.watching.flight import TOGETHER
from whynan.watching.record import Moment
from whynan.watching.torch import health
from whynan.watching.torch.moved import Sample

if TYPE_CHECKING:
    from whynan.watching.torch.run import Run

AT_LEAST, AT_MOST = 8, TOGETHER  # steps that are noted together
SECONDS = 0.1  # that long, if there are at least so many

# a step's number, loss, norms by group, rates, scale, norms before clippings, optimizer, update ratio
Seen = tuple[int, float, Sequence[float], Sequence[float], float, Sequence[float], int, float]


class Notes:
    """The steps that have no record yet, and the parameters before the last update of which more is to be known.

    Until there are `room` steps that wait for a record, those whose gradient norm is at most `ordinary` need nothing but to be noted.
    """

    __slots__ = ("_noted", "_unsampled", "ordinary", "room", "sample", "seen")

    def __init__(self) -> None:
        self.seen: list[Seen] = []
        self.ordinary, self.room = 0.0, AT_LEAST
        self.sample: Sample | None = None
        self._unsampled = 0  # steps since the last sample
        self._noted = 0.0

    def due(self) -> bool:
        """Whether it is time to make records."""
        waiting = len(self.seen)
        return waiting >= AT_LEAST and (waiting >= AT_MOST or monotonic() >= self._noted + SECONDS)

    def moments(self, optimizer: torch.optim.Optimizer | None = None) -> list[Moment]:
        """What was seen of the last steps. If the last one's update by the optimizer is due, it gets the norm of the parameters."""
        seen, self.seen = self.seen, []
        found = [moment(*numbers) for numbers in seen]
        if found and optimizer is not None:
            parameters = [p.detach() for group in optimizer.param_groups for p in group["params"] if p.is_floating_point()]
            found[-1] = found[-1]._replace(parameter_norm=math.hypot(*health.norms(parameters)))
            self._unsampled += len(found)
            if len(found) < AT_LEAST or self._unsampled >= AT_MOST:  # sooner than was due: the step is out of the ordinary
                self.sample, self._unsampled = Sample(optimizer), 0
        before, self._noted = self._noted, monotonic()
        seconds = (self._noted - before) / max(len(found), 1)  # a step's
        self.room = AT_MOST if AT_MOST * seconds <= SECONDS else max(AT_LEAST, int(SECONDS / seconds))
        return found


def note(run: "Run", optimizer: torch.optim.Optimizer | None = None) -> None:
    """Give the overseer the moments of the healthy steps since the last time."""
    for made in run.notes.moments(optimizer):
        run.overseer.noted(made)
    run.notes.ordinary = run.overseer.flight.ordinary


def moment(
    step: int,
    loss: float,
    norms: Sequence[float],
    rates: Sequence[float],
    scale: float,
    clipped: Sequence[float],
    optimizer: int,
    ratio: float,
) -> Moment:
    """The record of a step."""
    clipped_from = math.hypot(*clipped) if clipped else math.nan
    return Moment(step, loss, tuple(norms), math.nan, ratio, tuple(rates), scale, clipped_from, optimizer=optimizer)


def by_group(norms: Sequence[float], ends: Sequence[int]) -> list[float]:
    """The norm of each parameter group's gradients from those of its parameters; `ends` says up to which of them each group goes."""
    return [math.hypot(*norms[start:end]) for start, end in pairwise((0, *ends))]
