"""What follows from a step's health, the same in all frameworks whose steps are functions: count, explain, decide, roll back."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from whynan.watching.overseer import Overseer
from whynan.watching.policy import ROLLBACK, STOP
from whynan.watching.record import Incident, Moment


@dataclass(slots=True, eq=False)
class Judge:
    """Judges the steps of one run. `take` makes a snapshot of everything that training changes, `put` brings it back."""

    overseer: Overseer
    take: Callable[[], Any]
    put: Callable[[Any], None]
    stopped: bool = False  # policy "stop": the loop is asked to end
    _snapshot: Any = None

    def healthy(self, moment: Moment) -> None:
        """A step that was applied."""
        self.overseer.healthy(moment)
        options = self.overseer.options
        if options.policy == ROLLBACK and (self.overseer.step - 1) % options.every == 0:
            self._snapshot = self.take()

    def bad(self, moment: Moment, explain: Callable[[], Incident]) -> str:
        """A step that was not applied; returns the policy that was followed. Raises NonFiniteError if that is the policy."""
        action = self.overseer.bad(moment, explain)
        self.stopped = self.stopped or action == STOP
        if action == ROLLBACK and self._snapshot is not None:
            self.put(self._snapshot)
        return action

    def rest(self) -> list[int]:
        """The samples of the last bad step that are not to blame; empty if none can be told from the others."""
        suspects = self.overseer.suspects
        rest = sorted({*range(suspects.batch)} - {*suspects.samples} - {*suspects.alone})
        return rest if len(rest) < suspects.batch else []
