"""What follows from a step's health, the same in all frameworks whose steps are functions: count, explain, decide, roll back."""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from whynan.ir.dtype import Array
from whynan.watching.overseer import Overseer
from whynan.watching.policy import ROLLBACK, STOP
from whynan.watching.record import Incident, Moment

NORM_EVERY = 64  # steps


@dataclass(slots=True, eq=False)
class Judge:
    """Judges the steps of one run. `take` makes a snapshot of everything that training changes, `put` brings it back.

    `norm` measures the parameters. That costs, so of healthy steps it is done of the first, the second, the fourth, ... and each
    64th; `begin` is to be called before a step's update.
    """

    overseer: Overseer
    take: Callable[[], Any]
    put: Callable[[Any], None]
    norm: Callable[[], float] = lambda: np.nan
    stopped: bool = False  # policy "stop": the loop is asked to end
    _snapshot: Any = None
    _norm: float = np.nan  # of the parameters before the step under way

    def begin(self) -> None:
        """A step is about to be made."""
        step = self.overseer.step
        self._norm = self.norm() if step & (step - 1) == 0 or step % NORM_EVERY == 0 else np.nan

    def healthy(self, moment: Moment) -> None:
        """A step that was applied."""
        self.overseer.healthy(moment._replace(parameter_norm=self._norm))
        options = self.overseer.options
        if options.policy == ROLLBACK and (self.overseer.step - 1) % options.every == 0:
            self._snapshot = self.take()

    def bad(self, moment: Moment, explain: Callable[[], Incident]) -> str:
        """A step that was not applied; returns the policy that was followed. Raises NonFiniteError if that is the policy."""
        action = self.overseer.bad(moment._replace(parameter_norm=self.norm()), explain)
        self.stopped = self.stopped or action == STOP
        if action == ROLLBACK and self._snapshot is not None:
            self.put(self._snapshot)
        return action

    def rest(self) -> list[int]:
        """The samples of the last bad step that are not to blame; empty if none can be told from the others."""
        suspects = self.overseer.suspects
        rest = sorted({*range(suspects.batch)} - {*suspects.samples} - {*suspects.alone})
        return rest if len(rest) < suspects.batch else []


def euclidean(arrays: Iterable[Array]) -> float:
    """The norm of all arrays together, also where the squares overflow their format."""
    total = 0.0
    for a in arrays:
        flat = a.ravel()
        with np.errstate(over="ignore"):
            squares = float(np.dot(flat, flat)) if flat.dtype == np.float32 else np.inf
            if not np.isfinite(squares):
                flat = flat.astype(np.float64)
                squares = float(np.dot(flat, flat))
        total += squares
    return float(np.sqrt(total))
