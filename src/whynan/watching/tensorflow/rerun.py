"""A bad step run again eagerly, with its own code, from the state before it, under a recorder."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import tensorflow as tf

from whynan.errors import TargetError, WhynanError
from whynan.frontends.tensorflow.eager import Eager
from whynan.frontends.tensorflow.owned import Owned
from whynan.frontends.tensorflow.recorder import Recorder
from whynan.frontends.tensorflow.session import said, session
from whynan.frontends.tensorflow.step import call
from whynan.frontends.tensorflow.tensors import FORMATS, dense, to_array
from whynan.frontends.trace import finished, loss_node
from whynan.ir.dtype import Array
from whynan.ir.graph import Output
from whynan.watching.keras.data import collected
from whynan.watching.keras.layers import Layers
from whynan.watching.keras.tap import Tap, Update
from whynan.watching.replay import Recorded
from whynan.watching.tensorflow.tap import differentiating, losses_of

SEED = 0


@dataclass(frozen=True, slots=True, eq=False)
class Rerun:
    """A step with the arguments of the failed call. `owned` has the variables by name and all that the step may change,
    `names` tells a step's tensors by argument name."""

    step: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    owned: Owned
    batch: int
    names: Callable[..., dict[str, Any]]
    models: Sequence[Any]

    def record(self, how: str, rows: Sequence[int] | None) -> Recorded:
        """Run the step up to its update, on some of the samples if rows are given. Raises TargetError with the framework's own line."""
        args, kwargs = self._arguments(rows)
        recorder = Recorder()
        layers = Layers(lambda: recorder.calls, self.models)
        with session(SEED, python=True, seeded=False), self.owned.lent({}):
            nodes = {name: recorder.input(name, t) for name, t in self.names(self.step, args, kwargs).items() if t.dtype in FORMATS}
            nodes |= {name: recorder.input(name, v) for name, v in self.owned.parameters.items() if v.dtype in FORMATS}
            try:
                with layers.open():
                    updates = Eager(recorder, _taped.__code__).follow(lambda: _updates(self.step, args, kwargs))
            except WhynanError:
                raise
            except Exception as error:
                raise TargetError(f"the step raised {said(error).rstrip('.')} when it was run again.") from error
            outputs = list(self._outputs(recorder, updates))
        return Recorded(finished(recorder.recording, nodes, outputs), layers.of)

    def _arguments(self, rows: Sequence[int] | None) -> tuple[tuple[Any, ...], Mapping[str, Any]]:
        if rows is None:
            return self.args, self.kwargs
        return tf.nest.map_structure(lambda t: part_of(t, rows, self.batch), (self.args, dict(self.kwargs)))  # type: ignore[no-any-return]

    def _outputs(self, recorder: Recorder, updates: Sequence[Update]) -> Iterator[Output]:
        losses = [recorder.node(t) for u in updates for t in losses_of(u)]
        if not losses:
            raise TargetError("no call of an optimizer was seen in the step.")
        names = {id(v): name for name, v in self.owned.parameters.items()}
        yield Output("loss", "loss", loss_node(recorder.recording, losses))
        for u in updates:
            for g, v in zip(u.gradients, u.variables, strict=False):
                if g is not None:
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
    return found


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
