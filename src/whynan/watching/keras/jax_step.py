"""The train step of a model in `fit` on JAX, watched."""

import math
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import Any
from unittest.mock import patch

import jax
import jax.numpy as jnp
import numpy as np
from keras import StatelessScope
from keras.src.distribution import distribution_lib
from keras.src.optimizers.base_optimizer import BaseOptimizer
from keras.src.optimizers.loss_scale_optimizer import LossScaleOptimizer

from whynan.errors import NonFiniteError, TargetError
from whynan.frontends.jax.program import load
from whynan.ir.dtype import Array
from whynan.watching.jax.sums import summed_squares
from whynan.watching.judge import Judge, euclidean
from whynan.watching.keras.data import by_name, collected
from whynan.watching.keras.layers import Layers
from whynan.watching.keras.recipe import bundled
from whynan.watching.keras.tap import BAD, FINE, LEFT_OUT, Apply, Update
from whynan.watching.overseer import Overseer
from whynan.watching.policy import RETRY
from whynan.watching.record import Incident, Moment
from whynan.watching.replay import Again, Recorded, batch_of, explained, renamed

State = tuple[Any, Any, Any, Any]  # trainable, non-trainable, optimizer's and metrics' variables, as Keras hands them to a step


def copied(state: State) -> State:
    """The same values in arrays of their own."""
    made: State = _copied(state)
    return made


_copied = jax.jit(partial(jax.tree.map, jnp.copy))


class _Differentiated(Exception):
    """The step has come to the point where it differentiates this."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss


@dataclass(slots=True, eq=False)
class Step:
    """The train step of a model, watched.

    With `gives_away`, `run` gives the state away that it is given, as Keras' own step does, and a call of the step copies it first. That is
    for the CPU and compiled steps: where there is something else, it becomes false.
    """

    model: Any
    overseer: Overseer
    gives_away: bool = False
    judge: Judge = field(init=False)
    _state: Any = None  # after the last step
    _run: Any = None
    _choosing: bool = False  # a bad step hands on the old state by itself

    def __post_init__(self) -> None:
        compiled = not self.model.run_eagerly and self.model.jit_compile
        self._choosing = compiled and jax.default_backend() != "cpu"
        self.gives_away &= compiled and not self._choosing and distribution_lib.distribution() is None
        self.judge = Judge(self.overseer, lambda: copied(self._state), self._put, self._norm)

    def __call__(self, state: State, data: Any) -> tuple[Any, State]:
        """Run one step; see `policy` for what happens when it is bad."""
        before = self._state = copied(state) if self.gives_away else tuple(state)
        self.judge.begin()
        logs, new, report = self.run(state, data)
        report.block_until_ready()  # NumPy would wait, too, but takes longer over it
        numbers = np.asarray(report).tolist()
        if numbers[0] != BAD:
            self._state = new
            self._applied(numbers)
            return logs, new
        self._state = new if self._choosing else before
        if self._bad(self.judge.moment(*_measured(numbers)), data) == RETRY and (rest := self.judge.rest()):
            batch = self.overseer.suspects.batch
            return self(self._state, jax.tree.map(lambda a: part_of(a, rest, batch), data))
        return logs, self._state

    def applied(self, before: State, report: Sequence[float]) -> None:
        """Take in the report of a step that was made by `run` and was not bad; `before` is a state from before it that is still there."""
        self._state = before
        self.judge.begin()
        self._applied(report)

    def _applied(self, report: Sequence[float]) -> None:
        if report[0] == FINE:
            self.judge.healthy(*_measured(report))
        else:
            self.judge.left_out(self.judge.moment(*_measured(report)))

    def hand_over(self, state: State) -> None:
        """Let `fit` find this state with the model."""
        names = ("trainable_variables", "non_trainable_variables", "optimizer_variables", "metrics_variables")
        self.model._jax_state = dict(zip(names, state, strict=True))

    def _bad(self, moment: Moment, data: Any) -> str:
        """Judge a bad step. `fit` takes the model's state from here if this raises: the buffers that it knows of are given away."""
        self.hand_over(self._state)
        try:
            return self.judge.bad(moment, lambda: self._explained(moment, data))
        except NonFiniteError:
            _left_as_it_is(self.model.optimizer)
            raise

    def _norm(self) -> float:
        return euclidean(np.asarray(a) for a in self._state[0])

    def _values(self) -> Iterator[tuple[Any, Any]]:
        """The model's variables with their values as of the last step."""
        yield from zip(self.model.trainable_variables, self._state[0], strict=True)
        yield from zip(self.model.non_trainable_variables, self._state[1], strict=True)

    def metrics(self) -> Any:
        """The metrics' results as of the last step."""
        with StatelessScope(state_mapping=list(zip(self.model.metrics_variables, self._state[3], strict=True))):
            return self.model.get_metrics_result()

    def _put(self, snapshot: State) -> None:
        self._state = copied(snapshot)

    def run(self, state: State, data: Any) -> tuple[Any, State, Any]:
        """The step's logs, the state after it and its report, compiled as Keras would compile it.

        On the CPU the old state is kept beside the new one and chosen outside: a choice inside melts into the step's own loops, which XLA
        then rounds otherwise. Elsewhere memory is scarcer, and the state is given away as Keras does.
        """
        if self._run is None:
            self._run = self._guarded
            if not self.model.run_eagerly and self.model.jit_compile:
                shardings = None
                if distribution_lib.distribution() is not None:
                    shardings = (None, self.model._get_state_sharding_spec(), None)
                given_away = 0 if self.gives_away or self._choosing else ()
                self._run = jax.jit(self._guarded, donate_argnums=given_away, out_shardings=shardings)
        return self._run(state, data)  # type: ignore[no-any-return]

    def _guarded(self, state: State, data: Any) -> tuple[Any, State, Any]:
        """The step with the state that it leaves: the one before it, where it is bad and that is not there any more."""
        losses: list[Any] = []
        updates: list[Update] = []
        with _watching(losses, updates):
            logs, new = self.model.train_step(state, data)
        report = _report(losses, updates, self.model.optimizer, state[2])
        if not self._choosing:
            return logs, tuple(new), report
        return logs, jax.tree.map(lambda n, o: jnp.where(report[0] == BAD, o, n), tuple(new), tuple(state)), report

    # ------------------------------------------------------------ when it is bad

    def _explained(self, moment: Moment, data: Any) -> Incident:
        given = {n: np.asarray(a) for n, a in _arrays(data).items()}
        batch = batch_of(given)
        failed = "loss" if not math.isfinite(moment.loss) else "gradient" if math.isnan(moment.scale) else "scale"
        again = Again(
            "jax",
            str(jax.__version__),
            ("eager", "jit"),
            given,
            batch,
            lambda how, rows: self._recorded(how, rows, data, batch),
            bundled=lambda: bundled(self.model, data, lambda v: hasattr(v, "dtype"), self._values()),
        )
        return explained(again, moment, failed, self.overseer.options.replay_seconds)

    def _recorded(self, how: str, rows: Sequence[int] | None, data: Any, batch: int) -> Recorded:
        """Run the step up to where it differentiates, differentiate, and record every operation."""
        part = data if rows is None else jax.tree.map(lambda a: part_of(a, rows, batch), data)
        names = {id(a): name for name, a in _arrays(part).items()}
        leaves, shape = jax.tree.flatten(part)
        paths = [str(v.path) for v in self.model.trainable_variables]
        # JAX wants names that Python could have
        real = {f"v{i}": path for i, path in enumerate(paths)} | {f"a{i}": names[id(a)] for i, a in enumerate(leaves) if id(a) in names}
        others = [np.asarray(a) if not _is_array(a) else a for a in leaves]

        def loss(**arrays: Any) -> Any:
            trainable = [arrays[f"v{i}"] for i in range(len(paths))]
            batch_ = jax.tree.unflatten(shape, [arrays.get(f"a{i}", a) for i, a in enumerate(others)])
            return self._loss((trainable, *self._state[1:]), batch_)

        inputs = {f"v{i}": np.asarray(a) for i, a in enumerate(self._state[0])}
        inputs |= {f"a{i}": np.asarray(a) for i, a in enumerate(leaves) if f"a{i}" in real}
        layers = Layers(_next_source, [self.model])
        with layers.open():
            trace = load(loss, "step").capture(inputs, tuple(n for n in inputs if n[0] == "v"), how)
        return Recorded(renamed(trace, real), layers.of)

    def _loss(self, state: State, data: Any) -> Any:
        def stopping(original: Apply) -> Apply:
            def value_and_grad(fun: Any, argnums: Any = 0, has_aux: bool = False, **_: Any) -> Any:
                def run(*args: Any, **kwargs: Any) -> Any:
                    found = fun(*args, **kwargs)
                    raise _Differentiated(found[0] if has_aux else found)

                return run

            return value_and_grad

        with ExitStack() as stack:
            for name in ("value_and_grad", "grad"):
                stack.enter_context(patch.object(jax, name, stopping(getattr(jax, name))))
            try:
                self.model.train_step(state, data)
            except _Differentiated as found:
                return found.loss
        raise TargetError("the step has differentiated nothing by jax.value_and_grad.")


# ---------------------------------------------------------------- inside the step


@contextmanager
def _watching(losses: list[Any], updates: list[Update]) -> Iterator[None]:
    """Note what is differentiated, and the gradients that optimizers are given."""
    inside = False

    def valued(original: Apply) -> Apply:
        def value_and_grad(fun: Any, argnums: Any = 0, has_aux: bool = False, **named: Any) -> Any:
            run = original(fun, argnums, has_aux, **named)

            def noted(*args: Any, **kwargs: Any) -> Any:
                value, gradients = run(*args, **kwargs)
                losses.append(value[0] if has_aux else value)
                return value, gradients

            return noted

        return value_and_grad

    def applied(original: Apply) -> Apply:
        def stateless_apply(optimizer: Any, optimizer_variables: Any, grads: Any, trainable_variables: Any) -> Any:
            nonlocal inside
            if inside:
                return original(optimizer, optimizer_variables, grads, trainable_variables)
            updates.append(Update(optimizer, (), list(grads), list(trainable_variables)))
            inside = True
            try:
                return original(optimizer, optimizer_variables, grads, trainable_variables)
            finally:
                inside = False

        return stateless_apply

    with ExitStack() as stack:
        stack.enter_context(patch.object(jax, "value_and_grad", valued(jax.value_and_grad)))
        for owner in (BaseOptimizer, LossScaleOptimizer):
            stack.enter_context(patch.object(owner, "stateless_apply", applied(owner.stateless_apply)))
        yield


def _left_as_it_is(optimizer: Any) -> None:
    """Let what ends `fit` by an error leave the weights alone: on JAX, Keras puts the moving averages of `use_ema` into them even then."""

    def finalize_variable_values(trainable_variables: Any) -> None:
        del vars(optimizer)["finalize_variable_values"]

    vars(optimizer)["finalize_variable_values"] = finalize_variable_values


def _report(losses: Sequence[Any], updates: Sequence[Update], optimizer: Any, optimizer_variables: Sequence[Any]) -> Any:
    """Five numbers: FINE, BAD or LEFT_OUT, the loss, the gradients' squared norm, the learning rate, the loss scale."""
    gradients = [g for u in updates for g in u.gradients if g is not None]
    loss = sum((jnp.sum(t).astype(jnp.float32) for t in losses), jnp.float32(0))
    squared = summed_squares(gradients)
    sound = jax.lax.cond(jnp.isfinite(loss + squared), lambda: jnp.array(True), lambda: _finite(gradients) & _finite(losses))
    rate, scale, state = jnp.float32(math.nan), jnp.float32(math.nan), jnp.where(sound, FINE, BAD)
    if optimizer is not None:
        with StatelessScope(state_mapping=list(zip(optimizer.variables, optimizer_variables, strict=True))):
            rate = jnp.asarray(optimizer.learning_rate, jnp.float32)
            if isinstance(optimizer, LossScaleOptimizer):
                scale = jnp.asarray(optimizer.dynamic_scale, jnp.float32)
                state = jnp.where(sound, FINE, jnp.where(_finite(losses) & (scale > 1), LEFT_OUT, BAD))
                loss = loss / scale
    return jnp.stack([state, loss, squared, rate, scale])


def _measured(report: Sequence[float]) -> tuple[float, float, float, float]:
    """Loss, norm of the gradients, learning rate and loss scale."""
    _, loss, squared, rate, scale = report
    return loss, math.sqrt(squared) if squared >= 0 else squared, rate, scale


def _finite(tensors: Sequence[Any]) -> Any:
    found = jnp.array(True)
    for t in tensors:
        found = found & jnp.all(jnp.isfinite(t))
    return found


# ---------------------------------------------------------------- data and names


def part_of(value: Any, rows: Sequence[int], batch: int) -> Any:
    """The rows of an array that holds one for each sample; anything else as it is."""
    return value[np.asarray(rows)] if _is_array(value) and value.ndim and len(value) == batch else value


def _is_array(value: Any) -> bool:
    return isinstance(value, (jax.Array, np.ndarray))


def _arrays(data: Any) -> dict[str, Array]:
    found = collected(by_name(data), (jax.Array, np.ndarray))
    return {n: a for n, a in found.items() if a.dtype.kind in "fiub" or jnp.issubdtype(a.dtype, jnp.floating)}


def _next_source() -> int:
    """The number that the next recorded instruction has; 0 where none is being recorded."""
    trace = jax._src.core.trace_ctx.trace
    while trace is not None and not hasattr(trace, "recording"):
        trace = getattr(trace, "parent_trace", None)
    return 1 + max((n.source for n in trace.recording.builder.nodes), default=-1) if trace is not None else 0
