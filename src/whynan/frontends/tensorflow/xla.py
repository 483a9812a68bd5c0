"""Recording what XLA makes of a step: its optimised HLO, whose instructions name the TensorFlow ops that they stem from."""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from whynan.errors import TargetError
from whynan.frontends.hlo.parse import Metadata, Module
from whynan.frontends.hlo.record import Spot, record
from whynan.frontends.tensorflow.compiled import Compiled
from whynan.frontends.tensorflow.recorder import Recorder
from whynan.frontends.tensorflow.tensors import to_array
from whynan.ir.graph import BACKWARD


def hlo(recorder: Recorder, compiled: Compiled, tensors: Sequence[Any]) -> list[Any]:
    """Record the compiled step on these arguments; returns the step's results, with the values of a real run.

    Raises TargetError if XLA's program does not take the step's arguments one by one.
    """
    if compiled.cache is None:
        compiled.cache = compiled.compiler_ir(tensors)
    module: Module = compiled.cache
    arguments = [*(recorder.node(t) for t in tensors), *(_captured(recorder, t) for t in compiled.traced.captured_inputs)]
    if len(module.entry.parameters) != len(arguments):
        raise TargetError(
            f"XLA's program takes {len(module.entry.parameters)} arguments, the loss has {len(arguments)}.",
            "A loss that XLA specialises to the value of an argument is checked in mode eager or function.",
        )
    if compiled.draws:
        recorder.recording.notes["the loss draws random numbers, and XLA draws new ones in every run"] = None
    results = list(compiled.traced(*tensors))
    nodes = record(recorder.recording, module, arguments, _place(compiled), compiled.losses)
    for t, node in zip(results, nodes[: len(results)], strict=True):  # after them come the new values of variables
        value = to_array(t)
        if value is None:
            continue
        if value.shape == recorder.builder.shape(node):
            recorder.hold(t, node, value)
        else:  # its size depends on data: the program computes a part of an array of the largest size
            recorder.put(t, node)
    return results


def _captured(recorder: Recorder, tensor: Any) -> int:
    """The node of something that the step uses without its being an argument: a variable's value, or a constant."""
    return recorder.variable(tensor) if tensor.dtype == tf.resource else recorder.node(tensor)


def _place(compiled: Compiled) -> Callable[[Metadata], Spot]:
    known: dict[str, Spot] = {}

    def place(metadata: Metadata) -> Spot:
        if metadata.op_name not in known:
            known[metadata.op_name] = _spot(compiled, metadata.op_name)
        return known[metadata.op_name]

    return place


def _spot(compiled: Compiled, name: str) -> Spot:
    spot, key = compiled.spot(name) if name else (None, None)
    if spot is None:
        return Spot()
    backward = spot.phase == BACKWARD
    forward = spot.forward if backward else key
    return Spot(spot.site, "" if forward is None else str(forward), backward)
