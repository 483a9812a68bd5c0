"""The small constants that a traced loss adds to something, as its source has them: a compiler may leave them out."""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np
from tensorflow.python.framework import tensor_util

from whynan.frontends.tensorflow.places import Spot
from whynan.frontends.tensorflow.tensors import format_of, to_array
from whynan.frontends.written import written_number
from whynan.ir.graph import FORWARD, SMALL, Addend

_ADDING = frozenset({"Add", "AddV2", "Sub", "Maximum", "BiasAdd"})
_PASSING = frozenset({"Identity", "Cast", "Reshape", "BroadcastTo", "ExpandDims", "StopGradient", "EnsureShape"})
_LOOPS = frozenset({"While", "StatelessWhile"})  # what enters one is not what each of its rounds sees

_Calls = Callable[[Any], Mapping[str, Mapping[str, Any]]]  # the graphs that each op of a graph calls
_Spots = Callable[[tuple[int, str]], Spot | None]
_Numbers = Mapping[str, float]  # the arguments of a graph that are one number, by name


def addends(function: Any, calls: _Calls, spots: _Spots) -> Iterator[Addend]:
    """The small constants that the loss adds, in a traced function and in those that it calls.

    One that rounding has made 0 counts with the number that is written.
    """
    captured = function.captured_inputs
    arguments = function.inputs[len(function.inputs) - len(captured) :]
    known = {t.op.name: number for t, c in zip(arguments, captured, strict=True) if (number := _held(c)) is not None}
    yield from _inside(function.graph, known, calls, spots)


def _inside(graph: Any, known: _Numbers, calls: _Calls, spots: _Spots) -> Iterator[Addend]:
    for op in graph.get_operations():
        spot = spots((id(graph), op.name))
        if spot is not None and spot.phase == FORWARD and op.type in _ADDING:
            yield from _added(op, spot, known)
        for called in calls(graph).get(op.name, {}).values():
            yield from _inside(called, _passed(op, called, known), calls, spots)


def _added(op: Any, spot: Spot, known: _Numbers) -> Iterator[Addend]:
    fmt = format_of(op.outputs[0])
    for value in (_number(t, known) for t in op.inputs):
        if fmt is None or not fmt.is_float or value is None or abs(value) > SMALL:
            continue
        texts = [*([spot.site.text] if spot.site is not None else []), *spot.inner]
        written = (written_number(text, np.asarray(value), fmt) for text in texts)
        number = abs(next((w for w in written if w is not None), value))
        if number:
            yield Addend(number, spot.site, fmt)


def _passed(op: Any, called: Any, known: _Numbers) -> _Numbers:
    """The arguments of a called graph that are one number. A branch takes all inputs of its op but the first."""
    if op.type in _LOOPS:
        return {}
    given = op.inputs[len(op.inputs) - len(called.inputs) :]
    return {inner.op.name: n for inner, t in zip(called.inputs, given, strict=False) if (n := _number(t, known)) is not None}


def _number(tensor: Any, known: _Numbers) -> float | None:
    """The one number that a tensor of a graph always holds."""
    while tensor.op.type in _PASSING:
        tensor = tensor.op.inputs[0]
    if tensor.op.name in known:
        return known[tensor.op.name]
    if tensor.op.type != "Const" or not tensor.dtype.is_floating:
        return None
    value = np.asarray(tensor_util.constant_value(tensor))
    return float(value.reshape(-1)[0]) if value.size == 1 else None


def _held(tensor: Any) -> float | None:
    """The number in a tensor outside of every graph."""
    value = to_array(tensor) if hasattr(tensor, "_numpy") and tensor.dtype.is_floating else None
    return float(value.reshape(-1)[0]) if value is not None and value.size == 1 else None
