"""The wrapper around a step function: it calls the step, looks at what came out, and hands on the old state where that is bad."""

import functools
import math
from collections import deque
from collections.abc import Callable, Sequence
from types import TracebackType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from whynan.errors import WhynanError
from whynan.frontends.jax.inside import as_given, donates, is_jitted, unbound, undonated
from whynan.watching.flight import TOGETHER
from whynan.watching.handle import Watched
from whynan.watching.jax import health
from whynan.watching.jax.guarded import Pending, guarded, looked
from whynan.watching.jax.objects import Functional, objects
from whynan.watching.jax.rerun import Bad, explained, reduced
from whynan.watching.jax.snapshots import Snapshot
from whynan.watching.jax.wiring import Traced, Wiring, arrays_of, traced, wired
from whynan.watching.overseer import Overseer
from whynan.watching.policy import RAISE, RETRY, ROLLBACK, SKIP, STOP, Options
from whynan.watching.record import Incident, Moment

Seen = Sequence[float]  # of a step: 0 if it is fine, the loss, the squares of the state after it, the gradient norm


class JaxWatch(Watched):
    """A watched training step: called as the step is, with its arguments and its result. Made by `whynan.watch`.

    `loss` names the loss among the results where that is not plain: a position, or a key or path in the result. The look is part of a
    compiled step. On the CPU it is read at once (`looked`), on other devices (`guarded`) up to `late` steps later; with another policy
    than "raise" at once. A step that is not compiled, or changes objects, is looked at by the host.
    """

    def __init__(
        self, step: Callable[..., Any], options: Options, loss: int | str | None = None, on_device: bool | None = None, late: int = 4
    ) -> None:
        step = unbound(step)
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
        self._snapshot: Snapshot | None = None
        self._last: Sequence[Any] = ()
        self._on_device = on_device
        self._late = late if options.policy == RAISE else 0
        self._looked: Callable[..., Any] | None = None
        self._guarded: Callable[..., Any] | None = None
        self._latch: Any = False
        self._norm = math.nan  # of the state before the step under way
        self._near = True  # NumPy can look at the arrays where they are
        self._functional: Functional | None = None
        self._pending: deque[Pending] = deque()
        self._unnoted: list[Seen] = []
        self._room = 1  # steps until they are noted
        self._ordinary = 0.0  # a gradient norm above is noted at once

    # ------------------------------------------------------------ the user's side

    def flush(self) -> None:
        """Wait for the verdicts that have not been read. Raises NonFiniteError if one is bad and that is the policy."""
        while self._pending:
            self._read(self._pending.popleft(), self._last, None)

    def close(self) -> None:
        """Read what is left to be read, and let go of all that is kept of past steps."""
        self.flush()
        self.note()
        self._snapshot = None
        self._last = ()
        self._traced = (None, None)

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._pending.clear()  # that error is the one to see
        super().__exit__(kind, error, trace)

    # ------------------------------------------------------------ a step

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Take one step. Raises NonFiniteError where that is the policy; the arguments are then as they were."""
        if self._looked is not None:
            return self._look(args, kwargs)
        if self._run is None:
            self._start(args, kwargs)
        if self._functional is not None:
            return self._in_place(self._functional, args, kwargs)
        if self._guarded is not None:
            return self._take(self._guarded, args, kwargs)
        return self._look(args, kwargs)

    def _look(self, args: Any, kwargs: Any) -> Any:
        """Take one step and look at what came out of it, at once."""
        if self._looked is None:
            return self._judged(args, kwargs, self._called(*args, **kwargs))
        out, numbers = self._looked(*args, **kwargs)
        numbers.block_until_ready()  # NumPy would wait, too, but takes longer over it
        seen = np.asarray(numbers).tolist()
        return self._judged(args, kwargs, out) if seen[0] else self._healthy(args, kwargs, out, seen)

    def _judged(self, args: Any, kwargs: Any, out: Any) -> Any:
        """What is returned for a step with this result, after a look by the host."""
        wiring = self._wiring or self._wire(args, kwargs, out)
        loss = health.number(wiring.loss_of(out))
        leaves = self._counted(wiring.changed(out))
        if wiring.dropped and self._dropped(wiring, args, kwargs, out):
            return self._bad(args, kwargs, out, loss, wiring.changed(out))
        total = health.squares(leaves) if self._near else health.squares_on_device(leaves)
        if math.isfinite(total) and (math.isfinite(loss) or wiring.loss is None):
            return self._healthy(args, kwargs, out, (0, loss, total, health.number(wiring.norm_of(out))))
        old = wiring.state(args, kwargs)
        if (math.isfinite(loss) or wiring.loss is None) and health.all_sound(leaves, self._counted(old)):
            return self._healthy(args, kwargs, out, (0, loss, health.wide_squares(leaves), health.number(wiring.norm_of(out))))
        return self._bad(args, kwargs, out, loss, old)

    def _start(self, args: Any, kwargs: Any) -> None:
        """Decide where the look takes place. Raises WhynanError inside of a function that JAX traces: no values are seen there."""
        if any(isinstance(leaf, jax.core.Tracer) for leaf in jax.tree.leaves((args, kwargs))):
            raise WhynanError(
                "a watched step was called while JAX traces a function around it.",
                "Watch that function: whynan.watch(jax.jit(f)). Inside of it, whynan.optax.guard holds bad updates back.",
            )
        self._near = on_cpu(args, kwargs)
        places = objects(args, kwargs)
        if places:
            self._functional = Functional(self._given, self._function, args, kwargs, places)
            self._run, self._function = self._functional.run, self._functional.pure
            return
        self._run = undonated(self._given) if donates(self._given) else self._given
        if self._on_device is None:
            self._on_device = is_jitted(self._given) and not self._near
        if self._near and not self._on_device and is_jitted(self._given):
            self._looked = self._with_look(args, kwargs)
        if self._on_device:
            self._latch = jnp.asarray(False)
            self._guarded = guarded(self._given, self._wire(args, kwargs, None), sticky=self._late > 0)

    def _with_look(self, args: Any, kwargs: Any) -> Callable[..., Any] | None:
        """The step with a look inside; None if it cannot be traced. Raises WhynanError if `loss` names no result."""
        try:
            return looked(self._given, self._wire(args, kwargs, None))
        except WhynanError:
            raise
        except Exception:  # what the step itself raises comes when it is called
            return None

    def _in_place(self, step: Functional, args: Any, kwargs: Any) -> Any:
        """A step that changes NNX objects in place: where it is bad, these get their old arrays back."""
        rest, named = step.taken(args, kwargs)
        before, bad = step.state(), self.overseer.bad_steps
        try:
            after, out = self._look((before, *rest), named)
        except BaseException:
            step.update(before)
            raise
        if self.overseer.bad_steps != bad:  # a look for the culprits has run the step on other data
            step.update(after)
        return out

    @property
    def _wired(self) -> Wiring:
        assert self._wiring is not None, "the first step has been taken"
        return self._wiring

    def _called(self, *args: Any, **kwargs: Any) -> Any:
        """The step itself, neither guarded nor looked at; its arguments stay."""
        if self._looked is not None:
            return self._looked(*args, **kwargs)[0]  # compiled already
        assert self._run is not None, "the first step has been taken"
        return self._run(*args, **kwargs)

    def _dropped(self, wiring: Wiring, args: Any, kwargs: Any, out: Any) -> bool:
        """Whether an optimizer in the step has left this update out itself, so that what the step returned is the old state."""
        new, old = jax.tree.leaves(wiring.changed(out)), jax.tree.leaves(wiring.state(args, kwargs))
        grown = any(int(np.max(np.asarray(new[i]))) > int(np.max(np.asarray(old[i]))) for i in wiring.dropped)
        return grown and health.all_sound([new[i] for i in wiring.counted], [old[i] for i in wiring.counted])

    def _counted(self, state: Sequence[Any]) -> list[Any]:
        leaves = jax.tree.leaves(state)
        return [leaves[i] for i in self._wired.counted]

    def _wire(self, args: Any, kwargs: Any, out: Any) -> Wiring:
        """How the step is wired, by one result of it or by its shapes alone."""
        try:
            step = traced(self._function, args, kwargs)
        except Exception:  # Python code that looks at values, say: then only shapes tell
            if out is None:
                raise
            step = None
        out = step.shape if out is None and step is not None else out
        self._traced = (_kinds(args, kwargs), step)
        self._wiring = wired(args, kwargs, out, step, self._loss)
        if self.overseer.options.policy == ROLLBACK or self.overseer.options.on_incident is not None:
            self._snapshot = Snapshot(self.overseer.options.snapshots, copied=bool(self._on_device))
            self._snapshot.take(self._wiring.state(args, kwargs))
        return self._wiring

    # ------------------------------------------------------------ on the device

    def _take(self, step: Callable[..., Any], args: Any, kwargs: Any) -> Any:
        """Take one guarded step; verdicts of earlier ones are read if they are there, or if they have been waited for long enough."""
        while self._pending and (len(self._pending) >= self._late or self._pending[0].ready()):
            self._read(self._pending.popleft(), self._wired.state(args, kwargs), None)
        out, latch, numbers = step(self._latch, *args, **kwargs)
        own = self._wired.given(args, kwargs, [None] * len(self._wired.carried))
        pending = Pending(*own, numbers)
        if not self._late:
            return self._read(pending, self._wired.changed(out), out)
        self._pending.append(pending)
        self._latch, self._last = latch, self._wired.changed(out)
        return out

    def _read(self, pending: Pending, state: Sequence[Any], out: Any) -> Any:
        """Read a verdict. `state` is what the last step returned: after a bad step nothing was changed, so it is the state before it."""
        seen = np.asarray(pending.numbers).tolist()
        if not seen[0]:
            if self._is_due(seen):
                self._catch_up(state, math.nan)
            return out
        self._pending.clear()
        self._latch = jnp.asarray(False)
        return self._bad(*self._wired.given(pending.args, pending.kwargs, state), out, seen[1], state)

    # ------------------------------------------------------------ healthy and bad

    def _healthy(self, args: Any, kwargs: Any, out: Any, seen: Seen) -> Any:
        if self._is_due(seen):
            new, old = self._wired.changed(out), self._wired.state(args, kwargs)
            moved = health.distance(self._counted(new), self._counted(old)) if 0 < seen[2] < math.inf else math.nan
            self._catch_up(new, moved / math.sqrt(seen[2]) if moved == moved else math.nan)
        return out

    def _is_due(self, seen: Seen) -> bool:
        """Take in a healthy step; whether it is time to note it and those before it."""
        self._unnoted.append(seen)
        return len(self._unnoted) >= self._room or seen[3] > self._ordinary

    def _catch_up(self, state: Sequence[Any], ratio: float) -> None:
        """Note the steps up to this one, which had this update ratio, and keep its state where it is time for that."""
        self._noted(ratio)
        if self._snapshot is not None and self.overseer.step % self.overseer.options.every == 0:
            self._snapshot.take(state)

    def note(self) -> None:
        """Bring the flight record up to date."""
        self._noted(math.nan)

    def _noted(self, ratio: float) -> None:
        overseer = self.overseer
        for i, (_, loss, squares, norm) in enumerate(self._unnoted, 1 - len(self._unnoted)):
            known = (norm,) if self._wired.norm is not None else ()
            overseer.healthy(Moment(overseer.step, loss, known, self._norm, math.nan if i else ratio))
            self._norm = math.sqrt(squares) if squares >= 0 else math.nan
        self._unnoted.clear()
        self._ordinary = overseer.flight.ordinary
        self._room = min(max(overseer.step, 1), TOGETHER)
        if self._snapshot is not None:
            self._room = min(self._room, overseer.options.every - overseer.step % overseer.options.every)

    def _fails(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
        """Whether the step fails on these arguments, by the rules of a real step."""
        wiring = self._wired
        out = self._called(*args, **kwargs)
        if wiring.dropped and self._dropped(wiring, args, kwargs, out):
            return True
        return not self._sound(wiring, out, wiring.state(args, kwargs))

    def _sound(self, wiring: Wiring, out: Any, old: Sequence[Any]) -> bool:
        """Whether loss and new state are finite, looked at element by element."""
        loss = health.number(wiring.loss_of(out))
        known = wiring.loss is None or math.isfinite(loss)
        return known and health.all_sound(self._counted(wiring.changed(out)), self._counted(old))

    def _bad(self, args: Any, kwargs: Any, out: Any, loss: float, before: Sequence[Any]) -> Any:
        """A step that is not applied; `before` is the state that is handed on in the place of its result."""
        self.note()
        wiring, overseer, number = self._wired, self.overseer, self.overseer.step

        def explain() -> Incident:
            same = self._traced[0] == _kinds(args, kwargs)
            return explained(bad(), self._traced[1] if same else None)

        @functools.cache
        def bad() -> Bad:
            full = self._called(*args, **kwargs) if self._guarded is not None else out  # a guarded result holds the old state
            return Bad(number, self._function, args, kwargs, full, wiring, loss, self._fails, overseer.options.replay_seconds)

        action = overseer.bad(Moment(number, loss, (), self._norm), explain)
        self._norm = self._norm if action in (SKIP, STOP) else math.nan
        if action == STOP:
            self.stopped = True
        if out is None:  # read late: there is no result of this step any more that could be changed
            return None
        if action == ROLLBACK and self._snapshot is not None:
            return wiring.replaced(out, self._snapshot.restore(before))
        again = self._retried(bad()) if action == RETRY else None
        return wiring.replaced(out, before) if again is None else again

    def _retried(self, bad: Bad) -> Any:
        """The step on the batch without the samples that fail; None if these are not known or the rest fails, too."""
        incident = self.overseer.last
        given = reduced(bad, incident) if incident is not None else None
        if given is None:
            return None
        try:
            out = self._called(*given[0], **given[1])
        except Exception:  # a step that takes no smaller batch
            return None
        return out if self._sound(self._wired, out, self._wired.state(*given)) else None


def on_cpu(args: Any, kwargs: Any) -> bool:
    """Whether a step with these arguments runs where NumPy can look at its results."""
    placed = (leaf for leaf in jax.tree.leaves((args, kwargs)) if isinstance(leaf, jax.Array))
    first = next(placed, None)
    return (jax.default_backend() if first is None else next(iter(first.devices())).platform) == "cpu"


def _kinds(args: Any, kwargs: Any) -> Any:
    """What a trace of the step depends on, as far as it is arrays, and how these are given."""
    return jax.tree.structure((args, kwargs)), tuple((np.shape(a), a.dtype) for a in arrays_of(args, kwargs))
