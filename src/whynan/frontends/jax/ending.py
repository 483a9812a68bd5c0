"""Both ends of a recording, the same for both modes: inputs in the dtypes that JAX computes in, and the finished graph with its values."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whynan.errors import TargetError
from whynan.frontends.hlo.parse import Type, Types
from whynan.frontends.jax.arrays import format_of
from whynan.frontends.trace import Recording, finished, loss_node, one_number
from whynan.ir.dtype import FLOAT32, Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import Builder, Node, Output


@dataclass(frozen=True, slots=True, eq=False)
class Recorded:
    """A recorded step: the nodes of its inputs, of the loss's floating results and of the gradients by name."""

    recording: Recording
    inputs: Mapping[str, int]
    losses: Sequence[int]
    gradients: Mapping[str, int]


def add_inputs(builder: Builder, given: Mapping[str, Array], arrays: Mapping[str, Array]) -> tuple[dict[str, int], dict[str, int]]:
    """A node for each input, and the node of the array that JAX made of it: an int64 is computed as int32."""
    inputs, arguments = {}, {}
    for name, value in given.items():
        outer, inner = format_of(value.dtype), format_of(arrays[name].dtype)
        if outer is None or inner is None:
            raise TargetError(f"whynan has no number format for {name}, an array of {value.dtype}.", "Give it another dtype.")
        inputs[name] = arguments[name] = builder.add("input", (), value.shape, outer, name=name)
        if inner != outer:
            arguments[name] = builder.add("cast", (inputs[name],), value.shape, inner)
    return inputs, arguments


def anything(builder: Builder, type_: Types) -> int:
    """A value of that type of which nothing is known."""
    shape = type_.dims if isinstance(type_, Type) else ()
    return builder.add("unknown:jax.constant", (), shape, FLOAT32)


def ended(done: Recorded, given: Mapping[str, Array], results: tuple[Sequence[Array], Sequence[Array]], notes: Iterable[str] = ()) -> Trace:
    """The graph of a recorded step with the values of one run of it. Raises TargetError if the loss depends on no input."""
    recording = done.recording
    _place(recording.builder)
    if not _reached(recording.builder.nodes, done.losses) & set(done.inputs.values()) and _finite(results[0]):
        raise TargetError("the loss does not depend on any of its inputs.", "Check that it uses its arguments.")
    start = len(recording.builder.nodes)
    loss = loss_node(recording, done.losses)
    losses, gradients = results
    values = {done.inputs[n]: a for n, a in given.items()} | dict(zip(done.losses, losses, strict=True))
    values |= {loss: one_number(losses)} | dict(zip(done.gradients.values(), gradients, strict=True))
    filled = replace(recording, values=recording.values | values, notes=recording.notes | dict.fromkeys(notes))
    outputs = [Output("loss", "loss", loss)] + [Output("gradient", n, i) for n, i in done.gradients.items()]
    trace = finished(filled, done.inputs, outputs)
    del recording.builder.nodes[start:]  # the loss as one number is added anew for each run
    return trace


def _place(builder: Builder) -> None:
    """Give a node without a site that of the first node that reads it: the compiler made several ops one and forgot where they stood."""
    nodes = builder.nodes
    for node in reversed(nodes):
        for i in node.inputs if node.site else ():
            if nodes[i].site is None and nodes[i].op != "input":
                nodes[i] = replace(nodes[i], site=node.site)


def _finite(arrays: Iterable[Array]) -> bool:
    """Whether all numbers are finite: a loss that is NaN whatever goes in fails."""
    return all(bool(np.isfinite(a.astype(np.float64)).all()) for a in arrays)


def _reached(nodes: Sequence[Node], ends: Iterable[int]) -> set[int]:
    """The nodes that the given ones are computed from, themselves included."""
    found = set(ends)
    for node in reversed(nodes):
        if node.id in found:
            found.update(node.inputs)
    return found
