"""The wrapper around a step function: it calls the step, looks at what came out, and hands on the old state where that is bad."""

import functools
import math
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import jax
import numpy as np

from whynan.frontends.jax.inside import as_given, donates, undonated
from whynan.watching.jax import health
from whynan.watching.jax.rerun import Bad, explained, reduced
from whynan.watching.jax.wiring import Traced, Wiring, arrays_of, traced, wired
from whynan.watching.overseer import Overseer
from whynan.watching.policy import RETRY, ROLLBACK, STOP, Options
from whynan.watching.record import Incident, Moment

RATIO_EVERY = 10  # steps; the update's norm reads the old state and the new


class JaxWatch:
    """A watched training step: called as the step is, with its arguments and its result. Made by `whynan.watch`.

    `loss` names the loss among the results where that is not plain: a position, or a key or path in the result.
    """

    def __init__(self, step: Callable[..., Any], options: Options, loss: int | str | None = None) -> None:
        functools.update_wrapper(self, step, updated=())
        self.overseer = Overseer(options)
        self.stopped = False  # policy "stop": the loop is asked to end
        self._given = step
        self._function = as_given(step)
        self._loss = loss
        self._run: Callable[..., Any] | None = None
        self._wiring: Wiring | None = None
        self._traced: tuple[Any, Traced | None] = (None, None)
        self._odd: frozenset[int] = frozenset()
        self._snapshot: Sequence[Any] = ()
        self._units: dict[Any, Any] = {}

    # ------------------------------------------------------------ the user's side

    @property
    def incidents(self) -> list[Incident]:
        """The incidents so far, oldest first."""
        return self.overseer.incidents

    @property
    def step(self) -> int:
        """How many steps were taken or dropped so far."""
        return self.overseer.step

    @property
    def bad_steps(self) -> int:
        """How many of them were not applied."""
        return self.overseer.bad_steps

    @property
    def flight(self) -> tuple[Moment, ...]:
        """The last steps, oldest first."""
        return self.overseer.flight.moments

    def close(self) -> None:
        """Let go of all that is kept of past steps."""
        self._snapshot = ()
        self._units.clear()
        self._traced = (None, None)

    def __enter__(self) -> "JaxWatch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    # ------------------------------------------------------------ a step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take one step. Raises NonFiniteError where that is the policy; the arguments are then as they were."""
        if self._run is None:
            self._run = undonated(self._given) if donates(self._given) else self._given
        out = self._run(*args, **kwargs)
        wiring = self._wiring or self._wire(args, kwargs, out)
        loss = health.number(wiring.loss_of(out))
        leaves = self._counted(wiring.changed(out))
        if wiring.dropped and self._dropped(wiring, args, kwargs, out):
            return self._bad(args, kwargs, out, loss, wiring.changed(out))
        total = health.squares(leaves)
        if math.isfinite(total) and (math.isfinite(loss) or wiring.loss is None):
            return self._healthy(args, kwargs, out, loss, total)
        old = wiring.state(args, kwargs)
        if (math.isfinite(loss) or wiring.loss is None) and health.all_sound(leaves, self._counted(old)):
            return self._healthy(args, kwargs, out, loss, math.nan)
        return self._bad(args, kwargs, out, loss, old)

    def _dropped(self, wiring: Wiring, args: Any, kwargs: Any, out: Any) -> bool:
        """Whether an optimizer in the step has left this update out itself, so that what the step returned is the old state."""
        new, old = jax.tree.leaves(wiring.changed(out)), jax.tree.leaves(wiring.state(args, kwargs))
        grown = any(int(np.max(np.asarray(new[i]))) > int(np.max(np.asarray(old[i]))) for i in wiring.dropped)
        return grown and health.all_sound([new[i] for i in wiring.counted], [old[i] for i in wiring.counted])

    def _counted(self, state: Sequence[Any]) -> list[Any]:
        assert self._wiring is not None
        leaves = jax.tree.leaves(state)
        return [leaves[i] for i in self._wiring.counted]

    def _wire(self, args: Any, kwargs: Any, out: Any) -> Wiring:
        try:
            step = traced(self._function, args, kwargs)
        except Exception:  # Python code that looks at values, say: then only shapes tell
            step = None
        self._traced = (_kinds(args, kwargs), step)
        self._wiring = wired(args, kwargs, out, step, self._loss)
        self._snapshot = self._wiring.state(args, kwargs)
        return self._wiring

    def _healthy(self, args: Any, kwargs: Any, out: Any, loss: float, total: float) -> Any:
        overseer, wiring = self.overseer, self._wiring
        assert wiring is not None
        norm = math.sqrt(total) if math.isfinite(total) else math.nan
        ratio = math.nan
        if overseer.step % RATIO_EVERY == 0 and norm:
            ratio = health.distance(self._counted(wiring.changed(out)), self._counted(wiring.state(args, kwargs))) / norm
        overseer.healthy(Moment(overseer.step, loss, (), norm, ratio))
        if overseer.options.policy == ROLLBACK and overseer.step % overseer.options.every == 0:
            self._snapshot = wiring.changed(out)
        return out

    def _fails(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the step fails on these arguments, by the rules of a real step."""
        assert self._wiring is not None and self._run is not None
        out = self._run(*args, **kwargs)
        if self._wiring.dropped and self._dropped(self._wiring, args, kwargs, out):
            return True
        if self._wiring.loss is not None and not math.isfinite(health.number(self._wiring.loss_of(out))):
            return True
        return not health.all_sound(self._counted(self._wiring.changed(out)), self._counted(self._wiring.state(args, kwargs)))

    def _bad(self, args: Any, kwargs: Any, out: Any, loss: float, before: Sequence[Any]) -> Any:
        """A step that is not applied; `before` is the state that is handed on in the place of its result."""
        wiring, overseer = self._wiring, self.overseer
        assert wiring is not None
        bad = Bad(overseer.step, self._function, args, kwargs, out, wiring, loss, self._fails, overseer.options.replay_seconds)

        def explain() -> Incident:
            same = self._traced[0] == _kinds(args, kwargs)
            return explained(bad, self._traced[1] if same else None, self._units)

        action = overseer.bad(Moment(overseer.step, loss), explain)
        state = before
        if action == STOP:
            self.stopped = True
        elif action == ROLLBACK:
            state = self._snapshot
        elif action == RETRY:
            again = self._retried(bad)
            if again is not None:
                return again
        return wiring.replaced(out, state)

    def _retried(self, bad: Bad) -> Any:
        """The step on the batch without the samples that fail; None if these are not known or the rest fails, too."""
        given = reduced(bad, self.overseer.incidents[-1])
        if given is None or self._run is None or self._wiring is None:
            return None
        out = self._run(*given[0], **given[1])
        sound = math.isfinite(health.number(self._wiring.loss_of(out))) or self._wiring.loss is None
        old = self._counted(self._wiring.state(*given))
        return out if sound and health.all_sound(self._counted(self._wiring.changed(out)), old) else None


def _kinds(args: Any, kwargs: Any) -> Any:
    """What a trace of the step depends on, as far as it is arrays."""
    return tuple((np.shape(a), a.dtype) for a in arrays_of(args, kwargs))
