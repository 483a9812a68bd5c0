"""`model.fit` on JAX: the model's train function is replaced by one whose steps are watched.

Where nobody looks on after each batch, verdicts are not read at once, so that nothing waits for a step: see `Later`.
"""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import jax
import numpy as np

from whynan.watching.keras.fit import Logs, followed, replaced
from whynan.watching.keras.jax_step import State, Step, copied
from whynan.watching.keras.tap import BAD
from whynan.watching.overseer import Overseer
from whynan.watching.policy import ROLLBACK

HELD = 2**24  # bytes of batches that are kept, at most
SECONDS = 0.25  # that steps take whose verdicts are read together, about


def begin(model: Any, overseer: Overseer) -> Callable[[], None]:
    """Watch the model's training from now on; returns what ends that."""
    step = Step(model, overseer, gives_away=overseer.options.policy != ROLLBACK and not followed())
    logs = Logs(model, step.judge, lambda: step.metrics())
    later = Later(step, logs)

    def at_once(state: State, data: Any) -> tuple[Any, State]:
        found, state = step(state, data)
        return logs.of(found), state

    def train_function(state: State, iterator: Iterator[Any]) -> tuple[Any, State]:
        """The batches of one execution, each in a step of its own; StopIteration if there is none."""
        make = later if step.gives_away else at_once
        told, state = make(state, next(iterator))
        for data in islice(iterator, model.steps_per_execution - 1):
            told, state = make(state, data)
        return told, state

    def jax_state_sync() -> None:
        """What Keras calls before anybody sees the model's state: at the end of an epoch and of `fit`, and from callbacks."""
        try:
            later.settle()
        except BaseException:
            end()
            raise
        finally:
            if model.train_function is not mine:
                vars(model).pop("jax_state_sync", None)
        type(model).jax_state_sync(model)

    end = replaced(model, train_function)
    mine = model.train_function
    vars(model)["jax_state_sync"] = jax_state_sync

    def ended() -> None:
        end()
        vars(model).pop("jax_state_sync", None)

    return ended


@dataclass(slots=True, eq=False)
class Later:
    """Makes steps and reads their verdicts together, later.

    Until then the steps just run on. Where one of them was bad, the state of before the first is taken up again, and all are made once
    more, each with its verdict at once: what the bad one has spoilt, and those after it, is gone.
    """

    step: Step
    logs: Logs
    _made: list[tuple[Any, Any]] = field(default_factory=list)  # batch and report of the steps whose verdicts have not been read
    _before: Any = None  # the state of before these
    _after: Any = None
    _told: Any = None  # the logs of the last one
    _length: int = 1  # steps that are read together; at most twice as many the next time, where all are fine
    _room: int = 1
    _began: float = 0.0

    def __call__(self, state: State, data: Any) -> tuple[Any, State]:
        """Make a step: its logs and the state after it. Raises NonFiniteError if one was bad and that is the policy."""
        if not self._made:
            size = sum(getattr(a, "nbytes", 0) for a in jax.tree.leaves(data))
            self._room = min(self._length, self.step.judge.ahead, max(1, HELD // max(size, 1)))
            self._began = time.monotonic()
            self._before = copied(state)
        # who yields the batches may fill the same array again
        held = data if self._room == 1 else jax.tree.map(lambda a: a.copy() if isinstance(a, np.ndarray) else a, data)
        self._told, self._after, report = self.step.run(state, data)
        self._made.append((held, report))
        if len(self._made) >= self._room or time.monotonic() > self._began + SECONDS:
            self.settle()
        return self._told, self._after

    def settle(self) -> None:
        """Read the verdicts that have not been read. Raises NonFiniteError as a step does."""
        made, self._made = self._made, []
        if not made:
            return
        made[-1][1].block_until_ready()  # NumPy would wait, too, but takes longer over it
        reports = [np.asarray(report).tolist() for _, report in made]
        if any(report[0] == BAD for report in reports):
            self._again(made)
            return
        seconds = (time.monotonic() - self._began) / len(made)  # of a step, which is longer than it takes to start it
        self._length = max(1, min(2 * self._length, int(SECONDS / seconds)))
        for report in reports:
            self.step.applied(self._before, report)
        self.logs.of(self._told)

    def _again(self, made: list[tuple[Any, Any]]) -> None:
        self._length, self._after = 1, self._before
        for data, _ in made:
            found, self._after = self.step(self._after, data)
            self._told.update(self.logs.of(found))  # `fit` has these logs
            if self.logs.judge.stopped:
                break
        self.step.hand_over(self._after)
