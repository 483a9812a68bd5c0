"""A bad step run again with its own code, from the state before it, under a recorder: eagerly, or its gradients as they were compiled."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from unittest.mock import patch

import tensorflow as tf

from whynan.errors import TargetError, WhynanError
from whynan.frontends.tensorflow.eager import Eager
from whynan.frontends.tensorflow.owned import Owned
from whynan.frontends.tensorflow.program import load
from whynan.frontends.tensorflow.recorder import Recorder
from whynan.frontends.tensorflow.session import said, session
from whynan.frontends.tensorflow.step import call, converted
from whynan.frontends.tensorflow.tensors import FORMATS, dense, to_array
from whynan.frontends.trace import finished, loss_node
from whynan.ir.dtype import Array
from whynan.ir.graph import Output
from whynan.watching.keras.data import collected
from whynan.watching.keras.layers import Layers
from whynan.watching.keras.tap import Tap, Update
from whynan.watching.replay import Recorded, renamed
from whynan.watching.tensorflow.drawn import giving, together
from whynan.watching.tensorflow.tap import by_hand, differentiating, losses_of

SEED = 0


class _Differentiated(BaseException):
    """The step has come to the point where it differentiates this. No Exception, which AutoGraph would put into another."""

    def __init__(self, loss: Any) -> None:
        self.loss = loss


@dataclass(frozen=True, slots=True, eq=False)
class Rerun:
    """A step with the arguments of the failed call. `owned` has the variables by name and all that the step may change,
    `names` tells a step's tensors by argument name, `convert` says whether AutoGraph rewrites the step,
    `drawn` is what the step drew from iterators."""

    step: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    owned: Owned
    batch: int
    names: Callable[..., dict[str, Any]]
    models: Sequence[Any]
    convert: bool = False
    drawn: Sequence[Any] = ()

    def record(self, how: str, rows: Sequence[int] | None) -> Recorded:
        """Run the step up to its update, on some of the samples if rows are given. Raises TargetError with the framework's own line."""
        args, kwargs, drawn = self._arguments(rows)
        if how != "eager":
            return self._compiled(how, args, kwargs, drawn)
        recorder = Recorder()
        layers = Layers(lambda: recorder.calls, self.models)
        with session(SEED, python=True, seeded=False), self.owned.lent({}):
            nodes = {name: recorder.input(name, t) for name, t in self._named(args, kwargs, drawn).items() if t.dtype in FORMATS}
            nodes |= {name: recorder.input(name, v) for name, v in self.owned.parameters.items() if v.dtype in FORMATS}
            try:
                with layers.open(), giving(drawn):
                    updates = Eager(recorder, _taped.__code__).follow(lambda: _updates(self.step, args, kwargs))
            except WhynanError:
                raise
            except Exception as error:
                raise TargetError(f"the step raised {said(error).rstrip('.')} when it was run again.") from error
            outputs = list(self._outputs(recorder, updates))
        return Recorded(finished(recorder.recording, nodes, outputs), layers.of)

    def _named(self, args: tuple[Any, ...], kwargs: Mapping[str, Any], drawn: Sequence[Any]) -> dict[str, Any]:
        return self.names(self.step, args, kwargs) | collected(together(drawn), tf.Tensor)

    def _compiled(self, how: str, args: tuple[Any, ...], kwargs: Mapping[str, Any], drawn: Sequence[Any]) -> Recorded:
        """The loss that the step differentiates first, with its gradients, recorded as a compiled loss is."""
        whole = (args, dict(kwargs), list(drawn))
        leaves = tf.nest.flatten(whole)
        names = {id(t): name for name, t in self._named(args, kwargs, drawn).items() if t.dtype in FORMATS}
        real = {f"a{i}": names[id(t)] for i, t in enumerate(leaves) if id(t) in names}  # names as Python's arguments have them
        step = converted(self.step) if self.convert else self.step

        def loss(**arrays: Any) -> Any:
            own, named, draws = tf.nest.pack_sequence_as(whole, [arrays.get(f"a{i}", t) for i, t in enumerate(leaves)])
            try:
                with patch.object(tf.GradientTape, "gradient", _stop), giving(draws):
                    step(*own, **named)
            except _Differentiated as found:
                return found.loss
            raise TargetError("the step has differentiated nothing.")

        data = {f"a{i}": t for i, t in enumerate(leaves) if f"a{i}" in real}
        wrt = {name: v for name, v in self.owned.parameters.items() if v.dtype.is_floating}
        inputs = arrays(data) | {name: v.numpy() for name, v in wrt.items()}
        program = load(tf.autograph.experimental.do_not_convert(loss), "step", SEED, self.owned)
        trace = program.capture(inputs, tuple(wrt), how)
        return Recorded(renamed(trace, real), lambda node: "")

    def _arguments(self, rows: Sequence[int] | None) -> tuple[tuple[Any, ...], Mapping[str, Any], Sequence[Any]]:
        whole = (self.args, dict(self.kwargs), list(self.drawn))
        return whole if rows is None else tf.nest.map_structure(lambda t: part_of(t, rows, self.batch), whole)

    def _outputs(self, recorder: Recorder, updates: Sequence[Update]) -> Iterator[Output]:
        losses = [recorder.node(t) for u in updates for t in losses_of(u)]
        if not losses:
            raise TargetError("the step has differentiated nothing by a tape.")
        names = {id(v): name for name, v in self.owned.parameters.items()}
        yield Output("loss", "loss", loss_node(recorder.recording, losses))
        for u in updates:
            for g, v in zip(u.gradients, u.variables, strict=False):
                if g is not None and not isinstance(g, tf.Variable):  # a sum over several steps, kept in a variable, is none of this step's
                    variable = getattr(v, "value", v)
                    yield Output("gradient", names.get(id(variable), str(getattr(v, "path", v.name))), recorder.node(dense(g)))


def _updates(step: Callable[..., Any], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[Update]:
    """The updates that the step would make. None is made."""
    found: list[Update] = []

    def noted(update: Update, make: Callable[[], Any]) -> None:
        found.append(update)

    tap = Tap(noted)
    with tap.open(differentiating(tap, _taped)):
        call(step, args, dict(kwargs))
    return found or by_hand(tap)


def _stop(tape: Any, target: Any, *args: Any, **kwargs: Any) -> Any:
    raise _Differentiated(target)


def _taped(original: Callable[..., Any], tape: Any, *args: Any, **kwargs: Any) -> Any:
    """The one place from which the tape is called: what it does itself is no part of the loss."""
    return original(tape, *args, **kwargs)


def named(step: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any]) -> dict[str, Any]:
    """The tensors among a step's arguments, by the argument's name, those in containers with their place: `data.0`."""
    try:
        bound = inspect.signature(step).bind(*args, **kwargs).arguments
    except (TypeError, ValueError):
        bound = {**{str(i): a for i, a in enumerate(args)}, **kwargs}
    return collected(bound, tf.Tensor)


def arrays(tensors: Mapping[str, Any]) -> dict[str, Array]:
    """The values of tensors; those without a number format are left out."""
    return {name: a for name, t in tensors.items() if (a := to_array(t)) is not None}


def part_of(value: Any, rows: Sequence[int], batch: int) -> Any:
    """The rows of a tensor that holds one for each sample; anything else as it is."""
    if isinstance(value, tf.Tensor) and value.shape.rank and value.shape[0] == batch:
        return tf.gather(value, list(rows))
    return value
