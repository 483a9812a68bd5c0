"""Which forward op a gradient op belongs to.

TensorFlow's tape calls one registered Python function for the gradient of each op, graph functions are differentiated by another, and
hand-written gradients (`tf.custom_gradient`) are closures that the tape keeps. While `Derivatives` is active all three tell `Places`
which forward op they work for. Everything is as before afterwards.
"""

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from sys import _getframe
from types import FrameType, TracebackType
from typing import Any
from unittest.mock import patch

from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop, execute, record
from tensorflow.python.ops import gradients_util

from whynan.frontends.source import USER, kind_of
from whynan.frontends.tensorflow.places import Places
from whynan.ir.where import Site

Found = tuple[object, Site | None]  # the key of a forward op and where it stands


class Derivatives:
    """A context in which gradient ops find their forward op. `find` knows the op that made a tensor.

    `meet` is told of the results of calls as they are made: no op callback sees a call of a function.

    `handwritten` collects the expressions whose gradient is Python code of the user's.
    """

    def __init__(self, places: Places, find: Callable[[Any], Found | None], meet: Callable[[Any], None] = lambda tensor: None) -> None:
        self.handwritten: dict[Site, None] = {}
        self._places = places
        self._find = find
        self._meet = meet
        self._made: dict[int, tuple[Any, Sequence[Any]]] = {}  # by the identity of an op's attributes, which the tape keeps: its results
        self._patches = ExitStack()

    def __enter__(self) -> "Derivatives":
        for owner, name, wrapped in (
            (execute, "record_gradient", self._record_gradient),
            (record, "record_operation", self._record_operation),
            (gradients_util, "_MaybeCompile", self._maybe_compile),
        ):
            self._patches.enter_context(patch.object(owner, name, wrapped(getattr(owner, name))))
        self._patches.callback(pywrap_tfe.TFE_Py_RegisterGradientFunction, backprop._gradient_function)
        pywrap_tfe.TFE_Py_RegisterGradientFunction(self._gradient(backprop._gradient_function))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._patches.close()

    def note(self, attrs: Any, outputs: Sequence[Any]) -> None:
        """An op with these attributes made these results."""
        if attrs:  # the empty tuple is one and the same everywhere
            self._made[id(attrs)] = (attrs, outputs)

    def _forward(self, tensors: Sequence[Any] | None) -> Found:
        found = (self._find(t) for t in tensors or () if t is not None)
        return next((f for f in found if f is not None), (None, None))

    def _inside(self, run: Callable[[], Any], forward: Found) -> Any:
        with self._places.differentiating(*forward):
            return run()

    def _gradient(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def gradient(name: str, attrs: Any, count: int, inputs: Any, outputs: Any, *rest: Any) -> Any:
            made = self._made.get(id(attrs), (None, outputs))[1]
            return self._inside(lambda: original(name, attrs, count, inputs, outputs, *rest), self._forward(made))

        self._places.floor(gradient.__code__)
        return gradient

    def _maybe_compile(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def maybe_compile(scope: str, op: Any, function: Any, gradient: Callable[[], Any]) -> Any:
            return self._inside(lambda: original(scope, op, function, gradient), self._forward(op.outputs))

        self._places.floor(maybe_compile.__code__)
        return maybe_compile

    def _record_gradient(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def record_gradient(name: str, inputs: Any, attrs: Any, outputs: Any) -> Any:
            self.note(attrs, outputs)
            return original(name, inputs, attrs, outputs)

        return record_gradient

    def _record_operation(self, original: Callable[..., Any]) -> Callable[..., Any]:
        def record_operation(
            op_type: str, output_tensors: Any, input_tensors: Any, backward_function: Any, forward_function: Any = None
        ) -> Any:
            for t in output_tensors:
                self._meet(t)
            forward = self._forward(output_tensors)
            if forward[1] is not None and _is_handwritten(_getframe(1)):
                self.handwritten[forward[1]] = None

            def derivative(*gradients: Any) -> Any:
                return self._inside(lambda: backward_function(*gradients), forward)

            self._places.floor(derivative.__code__)
            return original(op_type, output_tensors, input_tensors, derivative, forward_function)

        return record_operation


def _is_handwritten(frame: FrameType) -> bool:
    """Whether this is `tf.custom_gradient` at work on a gradient function that is the user's."""
    code = getattr(frame.f_locals.get("grad_fn"), "__code__", None)
    return code is not None and kind_of(code.co_filename) == USER
