"""What all front ends do alike at both ends of a recording: what a loss returned, its one number, and the finished graph."""

import functools
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, fields, is_dataclass
from typing import Any

import numpy as np

from whynan.errors import TargetError
from whynan.frontends.written import numbers_behind
from whynan.ir.dtype import BOOL, FLOAT64, Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import Addend, Assumption, Builder, Graph, Node, Output, Place, Shape
from whynan.ir.where import Site


@dataclass(slots=True, eq=False)
class Recording:
    """What a recording collects: nodes, the value that the framework computed for a node, and what the graph must mention."""

    builder: Builder = field(default_factory=Builder)
    values: dict[int, Array] = field(default_factory=dict)
    assumptions: list[Assumption] = field(default_factory=list)
    notes: dict[str, None] = field(default_factory=dict)
    handwritten: dict[Site, None] = field(default_factory=dict)
    added: dict[Addend, None] = field(default_factory=dict)
    kept: set[int] = field(default_factory=set)  # nodes that are part of the graph although no output may need them


def first_line(error: BaseException) -> str:
    """The kind of an error and the first line of its message."""
    lines = str(error).strip().splitlines()
    return f"{type(error).__name__}: {lines[0]}" if lines else type(error).__name__


def flattened(result: Any) -> Iterator[Any]:
    """The leaves of nested tuples, lists, mappings and dataclasses, in order."""
    if isinstance(result, Mapping):
        for value in result.values():
            yield from flattened(value)
    elif isinstance(result, (tuple, list)):
        for value in result:
            yield from flattened(value)
    elif is_dataclass(result) and not isinstance(result, type):
        for f in fields(result):
            yield from flattened(getattr(result, f.name))
    else:
        yield result


def refuse_to_lead(told: Sequence[float]) -> None:
    """Raises TargetError if a recording is to tell the code what its looks see, from a front end or mode that cannot."""
    if told:
        raise TargetError("its looks at values cannot be told what to see.", "Record the loss on an input that takes the path.")


# ---------------------------------------------------------------- the loss as one number


def one_number(parts: Sequence[Array]) -> Array:
    """The loss from the arrays that it is the sum of. Several elements are added in float64, where they fit."""
    if len(parts) == 1 and parts[0].size == 1:
        return parts[0].reshape(())
    return np.asarray(sum(float(p.astype(np.float64).sum()) for p in parts))


def unchanged(builder: Builder, node: int, value: Array) -> tuple[int, float, float]:
    """A node with its least and largest value that together say: each element of the given node keeps the (non-empty) value seen.

    It is the node itself where all elements are equal, else a comparison with them.
    """
    first = float(value.flat[0])
    if (value == value.flat[0]).all():
        return node, first, first
    seen = builder.const(value, builder.format(node))
    return builder.add("eq", (node, seen), value.shape, BOOL), 1.0, 1.0


def loss_node(recording: Recording, nodes: Sequence[int]) -> int:
    """The node of the loss: the one result itself, or the float64 sum of the elements of all results (noted)."""
    builder = recording.builder
    builder.place = Place()
    if len(nodes) == 1 and np.prod(builder.shape(nodes[0])) == 1:
        shape = builder.shape(nodes[0])
        return nodes[0] if shape == () else builder.add("reshape", (nodes[0],), (), builder.format(nodes[0]))
    recording.notes[_summed([builder.shape(n) for n in nodes])] = None
    return functools.reduce(lambda a, b: builder.add("add", (a, b), (), FLOAT64), [_sum(builder, n) for n in nodes])


def _sum(builder: Builder, node: int) -> int:
    shape = builder.shape(node)
    if builder.format(node).name != FLOAT64.name:
        node = builder.add("cast", (node,), shape, FLOAT64)
    if shape == ():
        return node
    total = builder.add("sum", (node,), (1,) * len(shape), FLOAT64, dims=tuple(range(-len(shape), 0)))
    return builder.add("reshape", (total,), (), FLOAT64)


def _summed(shapes: Sequence[Shape]) -> str:
    if len(shapes) > 1:
        return f"the output has {len(shapes)} floating tensors: the sum of all their elements is checked"
    size = " x ".join(map(str, shapes[0]))
    if len(shapes[0]) == 1:
        return f"the output is a vector of {size} elements: its sum is checked"
    return f"the output is a tensor of {size} elements: its sum is checked"


# ---------------------------------------------------------------- the finished graph


def finished(recording: Recording, inputs: Mapping[str, int], outputs: Sequence[Output]) -> Trace:
    """The graph, without nodes that nothing needs that is to be known, and the values of the rest.

    Constants are told the numbers that the source has for them only here: no lowering may compute with those.
    """
    nodes = recording.builder.nodes
    needed = {*inputs.values(), *(o.node for o in outputs), *(a.node for a in recording.assumptions), *recording.kept}
    for n in reversed(nodes):
        if n.id in needed:
            needed.update(n.inputs)
    place = {old: new for new, old in enumerate(sorted(needed))}
    graph = Graph(
        tuple(_moved(nodes[old], place) for old in place),
        {name: place[n] for name, n in inputs.items()},
        tuple(Output(o.kind, o.name, place[o.node]) for o in outputs),
        tuple(Assumption(place[a.node], a.low, a.high, a.what, a.site) for a in recording.assumptions),
        tuple(recording.notes),
        tuple(recording.handwritten),
        tuple(recording.added),
    )
    return Trace(graph, tuple(_value(recording, nodes[old]) for old in place))


def _moved(n: Node, place: Mapping[int, int]) -> Node:
    inputs, attrs = tuple(place[i] for i in n.inputs), {**n.attrs, **numbers_behind(n)}
    return Node(place[n.id], n.op, inputs, attrs, n.shape, n.format, n.phase, n.site, n.source, n.spelling, n.derives)


def _value(recording: Recording, n: Node) -> Array | None:
    if n.op == "const":
        return np.broadcast_to(n.attrs["value"], n.shape)
    return recording.values.get(n.id)
