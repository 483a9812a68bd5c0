"""What every watch tells of its run, whatever the framework."""

from types import TracebackType
from typing import Self

from whynan.watching.overseer import Overseer
from whynan.watching.record import Incident, Moment


class Watched:
    """A watched run: what its `overseer` knows of it, and a context manager that ends with `close`.
    """

    overseer: Overseer

    @property
    def incidents(self) -> list[Incident]:
        """The bad steps so far that were explained, oldest first."""
        return self.overseer.incidents

    @property
    def step(self) -> int:
        """How many steps were taken or dropped so far."""
        self.note()
        return self.overseer.step

    @property
    def bad_steps(self) -> int:
        """How many of them were not applied."""
        return self.overseer.bad_steps

    @property
    def flight(self) -> tuple[Moment, ...]:
        """The last steps, oldest first."""
        self.note()
        return self.overseer.flight.moments

    def note(self) -> None:
        """Bring the flight record up to date."""
        self.overseer.catch_up()

    def close(self) -> None:
        """Stop watching."""
        raise NotImplementedError

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()
