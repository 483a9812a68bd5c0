"""Recording in eager mode: every op that runs, forward and backward, is seen by one callback."""

import re
from collections.abc import Callable, Mapping, Sequence
from sys import _getframe
from types import CodeType
from typing import Any, TypeVar

import tensorflow as tf
from tensorflow.python.framework import op_callbacks

from whynan.frontends.tensorflow.derivatives import Derivatives, Found
from whynan.frontends.tensorflow.looks import Looks
from whynan.frontends.tensorflow.places import Places
from whynan.frontends.tensorflow.recorder import Op, Recorder
from whynan.frontends.tensorflow.step import Step, call, differentiate, step
from whynan.ir.where import Site

T = TypeVar("T")

_NUMPY = re.compile(r"\b(np|numpy)\.")


class Eager:
    """One recording of a step that runs op by op. `tape` is the code of the function that calls the tape."""

    def __init__(self, recorder: Recorder, tape: CodeType = differentiate.__code__) -> None:
        self.recorder = recorder
        self._places = Places(call.__code__, tape)
        self._derivatives = Derivatives(self._places, self._find)
        self._start = 0  # the number of the last tensor before the run
        self._calls: dict[int, tuple[int, Site | None]] = {}  # by the number of a tensor: the call that made it

    def run(self, target: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], leaves: Mapping[str, Any]) -> Step:
        """Run one step and record it. Raises what the target raises; nothing stays patched."""
        return self.follow(lambda: step(target, args, kwargs, leaves))

    def follow(self, run: Callable[[], T]) -> T:
        """Record what `run` does: what it calls by `step.call`, and what that differentiates through the function with the tape's code."""
        self._start = tf.constant(0)._id
        op_callbacks.add_op_callback(self._op)
        try:
            with self._derivatives, Looks(self._look):
                return run()
        finally:
            op_callbacks.remove_op_callback(self._op)
            self.recorder.recording.handwritten |= self._derivatives.handwritten

    def _op(self, op_type: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
        if graph is not None:  # a function that is being traced; its call is seen when it runs
            return
        type_ = op_type.decode() if isinstance(op_type, bytes) else str(op_type)
        source, site = self._place(type_)
        if site is not None and _NUMPY.search(site.text) and any(self._is_foreign(t) for t in inputs):
            self.recorder.recording.notes[f"NumPy computes a part of the loss at {site}: no gradient flows through it"] = None
        self._derivatives.note(attrs, outputs)
        named = dict(zip(attrs[::2], attrs[1::2], strict=True)) if attrs else {}
        self.recorder.op(Op(type_, inputs, named, outputs))
        for t in outputs:
            self._calls[t._id] = (self.recorder.source_of(t, source), site)

    def _place(self, spelling: str) -> tuple[int, Site | None]:
        spot = self._places.here(_getframe(2))
        derives = spot.forward if isinstance(spot.forward, int) else -1
        return self.recorder.start(spelling, spot, derives), spot.site

    def _find(self, tensor: Any) -> Found | None:
        return self._calls.get(tensor._id)

    def _is_foreign(self, tensor: Any) -> bool:
        """Whether a tensor came into being during the run, of several numbers that no op computed."""
        return tensor._id > self._start and self.recorder.known(tensor) is None and tensor.dtype.is_floating and tensor.shape.rank > 0

    def _look(self, tensor: Any, what: str, how: str) -> None:
        node = self.recorder.known(tensor)
        if node is None or not self.recorder.varies(node):
            return
        self._place(what)
        if how == "elements" or tf.size(tensor) != 1:
            self.recorder.assume_elements(node, what)
        else:
            self.recorder.assume_number(node, float(tensor._numpy().reshape(())[()]), what, kind=how)
