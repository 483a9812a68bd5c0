"""The calls that a step consists of, kept in bounds however many micro-batches it has."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from types import FrameType
from typing import Any

import torch

from whynan.watching.torch.buffers import Buffers
from whynan.watching.torch.calls import LOSS, MODEL, Call
from whynan.watching.torch.rounds import Round

MICRO_BATCHES = 8  # calls of backward whose data are kept
MOST_CALLS = 512
CALLS = 16  # calls that are kept although nothing was differentiated by them


@dataclass(slots=True, eq=False)
class Differentiated:
    """One call of `backward`: the frames that it came from, innermost first, with where each of them was; the detached roots; whether it
    started from ones; autocast as it was then; the step's calls until then, without those before another `backward` from the same place;
    its number in the step; the round of the loop that it was made in, if the frame has gone on to another.
    """

    frames: tuple[tuple[FrameType, int], ...]
    roots: tuple[torch.Tensor, ...]
    plain: bool
    autocast: Sequence[tuple[str, bool, Any]]
    calls: tuple[Call, ...]
    number: int = 0
    round: Round | None = None


@dataclass(slots=True, eq=False)
class Window:
    """The calls that a step consists of, and the roots that were differentiated.

    A step may have many micro-batches: when `MICRO_BATCHES` of them were found healthy they are forgotten (`forget`), their buffers are
    not: `earlier` holds those from before the step. `backwards` counts calls of backward since, `done` the calls before the last of
    them, `forgotten` those before. With `full` no more calls are kept: one of those kept has gone bad; `room` is how many are
    kept. `dropped` is what was done about the step, by the look before the update of the optimizer `judge`; `stepped` are the optimizers
    that have made their updates, `undo` takes some of these back. `round` is that of the last call of `backward`, in a loop that
    accumulates.
    """

    calls: list[Call] = field(default_factory=list)
    roots: list[tuple[torch.Tensor, Any, Any]] = field(default_factory=list)  # detached, a weak reference to the tensor, its node
    differentiated: list[Differentiated] = field(default_factory=list)
    root: torch.Tensor | None = None  # where the step has one call of `backward`, for a watched loss: that
    round: Round | None = None
    closing: bool = False  # an optimizer has stepped: the next call begins a new window
    full: bool = False
    room: int = CALLS
    backwards: int = 0
    done: int = 0
    forgotten: int = 0
    earlier: dict[int, Buffers] = field(default_factory=dict)
    dropped: str = ""
    judge: int = 0
    stepped: set[int] = field(default_factory=set)
    undo: list[Any] = field(default_factory=list)

    def losses(self) -> Iterator[Call]:
        """The calls of the loss that were differentiated."""
        return (c for c in self.calls if c.role == LOSS and c.seed is not None)

    def models(self) -> Iterator[Call]:
        """The calls of the model."""
        return (c for c in self.calls if c.role == MODEL)

    def differentiate(self, step: Differentiated) -> bool:
        """Note a call of `backward`; whether the one before came from the same place: then the frame's names have other values by now.

        The place is the innermost frame that still runs: a library's `backward` in between has a frame of its own each time. Of the
        call before, frames inside of that are kept, and its round of the loop.
        """
        again = bool(self.differentiated) and self._follow(step)
        step.number = self.forgotten + self.backwards
        if not self.full:
            self.differentiated.append(step)
        self.backwards, self.done = self.backwards + 1, len(self.calls)
        return again

    def _follow(self, step: Differentiated) -> bool:
        running = dict(step.frames)
        last = self.differentiated[-1].frames
        inner = next((i for i, (frame, _) in enumerate(last) if frame in running), None)
        again = inner is not None and running[last[inner][0]] == last[inner][1]
        if again:
            before = self.differentiated[-1]
            before.frames, before.round = last[:inner], self.round
            step.calls = tuple(self.calls[self.done :])
            if not inner and before.round is None:
                self.differentiated.pop()
        if not self.full:
            del self.differentiated[: 1 - MICRO_BATCHES]
        return again

    def clear(self, carry: bool = False) -> None:
        """Forget everything; with `carry` not the calls of models whose results are still there, for another optimizer's step."""
        self.roots.clear()
        self.differentiated.clear()
        if carry:
            self.calls[:] = [c for c in self.calls if c.role == MODEL]  # first the losses: they hold the models' results
            self.calls[:] = [c for c in self.calls if c.alive()][-MICRO_BATCHES:]
            for c in self.calls:
                c.carried, c.buffers = True, None
        else:
            self.calls.clear()
        self.closing = self.full = False
        self.round = None
        self.backwards = self.forgotten = self.judge = self.done = 0
        self.room = CALLS
        self.dropped, self.root = "", None
        if self.earlier or self.stepped or self.undo:
            self.earlier.clear()
            self.stepped.clear()
            self.undo.clear()

    def forget(self) -> None:
        """Forget the calls that were differentiated: they were found healthy, and the step goes on."""
        early, late = self.calls[: self.done], self.calls[self.done :]
        self.forgotten += self.backwards
        self._leave(early)
        self.roots.clear()
        self.differentiated.clear()
        self.calls.clear()
        early[:] = [c for c in early if c.seed is None]  # first the losses: they hold the models' results
        self.calls += [c for c in early if c.alive()] + late
        self.backwards = self.done = 0
        self.root = None

    def let_go(self) -> None:
        """Hold no graph of a loss that nothing was done with: one is held until the next, and what was thrown away is forgotten."""
        for c in [c for c in self.calls if c.role == LOSS and c.seed is None and c.value is not None]:
            if c.waiting is None:
                c.await_seed()
            elif c.waiting() is None:
                self._leave([c])
                self.calls.remove(c)

    def make_room(self) -> bool:
        """Whether one more call can be kept; calls that nothing has come of are forgotten for it."""
        if self.full:
            return False
        waiting = [c for c in self.calls[self.done :] if c.seed is None and not c.alive()][: -CALLS // 2]
        gone = set(map(id, waiting)) if waiting else set(map(id, self.calls[: len(self.calls) - MOST_CALLS]))
        self._leave(c for c in self.calls if id(c) in gone)
        self.done -= sum(id(c) in gone for c in self.calls[: self.done])
        self.calls[:] = [c for c in self.calls if id(c) not in gone]
        self.room = max(CALLS, 2 * len(self.calls))
        return True

    def restore_buffers(self) -> None:
        """Buffers as before the step: what the bad batch has left in a batch norm's statistics is taken back."""
        for call in reversed(self.calls):
            if call.buffers is not None:
                call.buffers.restore()
        for buffers in self.earlier.values():
            buffers.restore()

    def _leave(self, calls: Iterable[Call]) -> None:
        for c in calls:
            if c.buffers is not None:
                self.earlier.setdefault(id(c.target), c.buffers)
