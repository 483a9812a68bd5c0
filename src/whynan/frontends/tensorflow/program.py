"""A TensorFlow or Keras loss as a program: run for real on NumPy arrays, or recorded as a graph, in one of three modes."""

import inspect
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from itertools import takewhile
from typing import Any

import numpy as np
import tensorflow as tf

from whynan.errors import TargetError, WhynanError
from whynan.frontends.tensorflow.compiled import Compiled
from whynan.frontends.tensorflow.eager import Eager
from whynan.frontends.tensorflow.graph import optimised, play
from whynan.frontends.tensorflow.owned import Owned, argument_names, owned_by
from whynan.frontends.tensorflow.places import Spot
from whynan.frontends.tensorflow.recorder import Recorder
from whynan.frontends.tensorflow.session import said, session, watching_draws
from whynan.frontends.tensorflow.step import Step, no_loss, step
from whynan.frontends.tensorflow.tensors import FORMATS, to_array, to_tensor
from whynan.frontends.tensorflow.xla import hlo
from whynan.frontends.trace import finished, flattened, loss_node, one_number, refuse_to_lead
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import Output

MODES = ("eager", "function", "xla")

Target = Callable[..., Any]

_BODY = "the target is a tf.function: in eager mode its Python body is checked op by op"


class TensorflowProgram:
    """A loss function of TensorFlow or Keras, ready to be run and recorded. `load` makes one."""

    framework = "tensorflow"

    def __init__(self, target: Target, name: str, seed: int = 0, owned: Owned | None = None) -> None:
        self.name = name
        self.framework_version = str(tf.__version__)
        self._seed = seed
        self._target = target
        self._positional = _positional(target)
        self._owned: Owned = owned if owned is not None else owned_by(target)
        self._draws: bool | None = None  # whether an eager run draws random numbers; None until one has been watched
        self._compiled: dict[object, Compiled] = {}
        self._graphs: list[Any] = []
        self._spots: dict[int, dict[str, Spot]] = {}

    @property
    def parameters(self) -> Mapping[str, Array]:
        """Trainable variables that the target itself owns, by qualified name, with their present values."""
        return {name: v.numpy() for name, v in self._owned.parameters.items() if v.dtype in FORMATS}

    def run(self, inputs: Mapping[str, Array], wrt: tuple[str, ...], mode: str = "eager") -> Run:
        """Run the loss and its gradients by `wrt`; never raises for what the loss itself raises."""
        known = _known_mode(mode)
        compiled = None if known == "eager" else self._compile(inputs, wrt, known)
        with session(self._seed, python=known == "eager", seeded=self._may_draw(compiled)), self._owned.lent(inputs):
            try:
                taken = self._step(inputs, wrt) if compiled is None else compiled.run(inputs)
                loss = _loss(taken)
                gradients = {name: to_array(g) for name, g in taken.gradients.items()}
            except (Exception, SystemExit) as error:
                return Run(np.empty(0), {}, said(error))
            return Run(loss, {name: array for name, array in gradients.items() if array is not None})

    def capture(self, inputs: Mapping[str, Array], wrt: tuple[str, ...], mode: str = "eager", told: Sequence[float] = ()) -> Trace:
        """Run once and record every op, forward and backward.

        Raises TargetError if the loss raises, returns nothing that can be differentiated or looked at, or ignores its inputs.
        """
        refuse_to_lead(told)
        known = _known_mode(mode)
        compiled = None if known == "eager" else self._compile(inputs, wrt, known)
        with session(self._seed, python=known == "eager", seeded=self._may_draw(compiled)), self._owned.lent(inputs):
            try:
                return self._captured(Recorder(), inputs, wrt, compiled)
            except WhynanError:
                raise
            except (Exception, SystemExit) as error:
                what = said(error).rstrip(".")
                raise TargetError(f"the loss {self.name} raised {what}.", "Check the shapes, dtypes and values of its inputs.") from error

    # ------------------------------------------------------------ modes

    def _may_draw(self, compiled: Compiled | None) -> bool:
        """Whether a run may draw random numbers, as far as is known."""
        return self._draws is not False if compiled is None else compiled.draws

    def _captured(self, recorder: Recorder, inputs: Mapping[str, Array], wrt: tuple[str, ...], compiled: Compiled | None) -> Trace:
        tensors = self._tensors(inputs)
        every = {**{n: t for n, t in tensors.items() if isinstance(t, tf.Tensor)}, **self._owned.parameters}
        nodes = {name: recorder.input(name, t) for name, t in every.items()}
        if compiled is None:
            taken = self._eager(recorder, tensors, wrt)
        else:
            compiled.concrete(inputs)
            taken = compiled.step(self._followed(recorder, compiled, [tensors[name] for name in compiled.names]))
            recorder.recording.handwritten |= compiled.handwritten
            recorder.recording.added |= compiled.added
        loss = _loss_of(recorder, taken)
        outputs = [Output("loss", "loss", loss)]
        outputs += [Output("gradient", n, recorder.node(g)) for n, g in taken.gradients.items()]
        return finished(recorder.recording, nodes, outputs)

    def _followed(self, recorder: Recorder, compiled: Compiled, tensors: list[Any]) -> list[Any]:
        """The step's results, its graph recorded. What only the recording cannot do is not blamed on the loss."""
        try:
            if compiled.jit:
                return hlo(recorder, compiled, tensors)
            if compiled.cache is None:
                compiled.cache = optimised(compiled, tensors, lambda: self._fresh(compiled))
            return play(recorder, compiled.cache, [*tensors, *compiled.traced.captured_inputs])
        except (WhynanError, tf.errors.OpError):
            raise
        except Exception as error:
            raise TargetError(
                f"{self.name} runs when it is compiled, but its graph cannot be recorded ({said(error)}).", "Check it with --mode eager."
            ) from error

    @contextmanager
    def _fresh(self, compiled: Compiled) -> Iterator[None]:
        """Random generators as at the start of a run; afterwards variables are as before."""
        with session(self._seed, python=False, seeded=self._may_draw(compiled)), self._owned.lent({}):
            yield

    def _eager(self, recorder: Recorder, tensors: Mapping[str, Any], wrt: tuple[str, ...]) -> Step:
        if _is_function(self._target):
            recorder.recording.notes[_BODY] = None
        return Eager(recorder).run(self._target, *self._arguments(tensors), self._leaves(tensors, wrt))

    def _step(self, inputs: Mapping[str, Array], wrt: tuple[str, ...]) -> Step:
        if self._draws is None:
            with watching_draws() as seen:
                taken = self._steps(inputs, wrt)
            self._draws = bool(seen)
            return taken
        return self._steps(inputs, wrt)

    def _steps(self, inputs: Mapping[str, Array], wrt: tuple[str, ...]) -> Step:
        tensors = self._tensors(inputs)
        return step(self._target, *self._arguments(tensors), self._leaves(tensors, wrt))

    # ------------------------------------------------------------ arguments

    def _tensors(self, inputs: Mapping[str, Any]) -> dict[str, Any]:
        """The arguments: arrays as tensors, everything else as it is."""
        given = {name: value for name, value in inputs.items() if name not in self._owned.parameters}
        return {name: to_tensor(np.asarray(v)) if isinstance(v, (np.ndarray, np.generic)) else v for name, v in given.items()}

    def _arguments(self, tensors: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        return _arguments(self._positional, tensors)

    def _leaves(self, tensors: Mapping[str, Any], wrt: tuple[str, ...]) -> dict[str, Any]:
        found = {name: self._owned.parameters.get(name, tensors.get(name)) for name in wrt}
        return {n: t for n, t in found.items() if isinstance(t, (tf.Tensor, tf.Variable)) and t.dtype.is_floating}

    # ------------------------------------------------------------ compiled modes

    def _compile(self, inputs: Mapping[str, Any], wrt: tuple[str, ...], mode: str) -> Compiled:
        """The compiled step for these arguments, made once per mode, argument names, Python values, shapes and dtypes."""
        signature = tuple((name, _signature(value)) for name, value in inputs.items())
        key = (mode, wrt, signature)
        if key not in self._compiled:
            plain = {n: v for n, v in inputs.items() if n not in self._owned.parameters and not isinstance(v, (np.ndarray, np.generic))}
            names = tuple(n for n in inputs if n not in plain and n not in self._owned.parameters)

            def body(*tensors: tf.Tensor) -> Step:
                given = {**dict(zip(names, tensors, strict=True)), **plain}
                ordered = {n: given[n] for n in inputs if n in given}
                return step(self._target, *self._arguments(ordered), self._leaves(ordered, wrt), convert=True)

            self._compiled[key] = Compiled(body, names, self._graphs, self._spots, jit=mode == "xla")
        return self._compiled[key]


def load(target: Target, name: str, seed: int = 0, owned: Owned | None = None) -> TensorflowProgram:
    """A program from a function, a method, a closure, a `tf.function`, a layer or a Keras loss.

    Its random numbers are drawn under `seed`. `owned` are its variables, where they are known better than its code tells.
    Raises TargetError if it cannot be called.
    """
    if not callable(target):
        raise TargetError(f"{name} is a {type(target).__name__}, which cannot be called.", "Name a function or a Keras loss.")
    return TensorflowProgram(target, name, seed, owned)


# ---------------------------------------------------------------- running


def _known_mode(mode: str) -> str:
    if mode not in MODES:
        raise TargetError(f"TensorFlow has no mode {mode!r}.", f"Choose from {', '.join(MODES)}.")
    return mode


def _signature(value: Any) -> object:
    """What a compiled step depends on: an array's shape and dtype, the value of everything else."""
    if isinstance(value, (np.ndarray, np.generic)):
        return (np.shape(value), str(value.dtype))
    try:
        hash(value)
    except TypeError:
        return (type(value).__name__, repr(value))
    return (type(value).__name__, value)


def _positional(target: Target) -> tuple[str, ...]:
    """The names of arguments that are passed by position: all of a Keras object's, which renames them, and positional-only ones."""
    if not inspect.isroutine(target) and callable(getattr(target, "call", None)):
        return argument_names(target)
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_ONLY)


def _arguments(positional: tuple[str, ...], tensors: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """Positional and named arguments. A positional one after a gap goes by its name."""
    leading = list(takewhile(lambda name: name in tensors, positional))
    return tuple(tensors[name] for name in leading), {name: t for name, t in tensors.items() if name not in leading}


def _loss(taken: Step) -> Array:
    """The loss as one number."""
    parts = [array for t in taken.parts if (array := to_array(t)) is not None]
    if parts:
        return one_number(parts)
    numbers = [leaf for leaf in flattened(taken.result) if isinstance(leaf, (float, np.floating))]
    if not numbers:
        raise TypeError(no_loss(taken.result))
    return np.asarray(sum(map(float, numbers)))


def _loss_of(recorder: Recorder, taken: Step) -> int:
    """The node of the loss: the result itself, or the float64 sum of its elements."""
    if not taken.parts:
        raise TargetError(f"{no_loss(taken.result)}.", "Return a tensor; .numpy() and float() cut it off from its gradients.")
    nodes = [recorder.node(t) for t in taken.parts]
    if not any(recorder.varies(n) for n in nodes):
        raise TargetError("the loss does not depend on any of its inputs.", "Check that it uses its arguments.")
    return loss_node(recorder.recording, nodes)


def _is_function(target: Any) -> bool:
    return hasattr(target, "python_function")
