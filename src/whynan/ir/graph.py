"""The graph: what a loss computes, forward and backward, as a flat list of operations.

A graph is in order of execution: a node's inputs stand before it. Each node has one result. Reductions keep their reduced
dimensions (size 1) and axes are negative (-1 is the last), so that an operation means the same with batch dimensions in front.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from whynan.ir.dtype import Array, Format
from whynan.ir.where import Site

FORWARD = "forward"
BACKWARD = "backward"

Shape = tuple[int, ...]


@dataclass(frozen=True, slots=True, eq=False)
class Node:
    """One operation applied once.

    `op` is the canonical name (`ops` knows it, or it is an unknown op and means "anything"). `inputs` are ids of earlier nodes.
    `source` groups the nodes that one framework call was lowered to; `spelling` is that call's own name (`aten.log.default`).
    For a backward node `derives` is the `source` of the forward call whose derivative it computes (-1 if unknown).
    """

    id: int
    op: str
    inputs: tuple[int, ...]
    attrs: Mapping[str, Any]
    shape: Shape
    format: Format
    phase: str = FORWARD
    site: Site | None = None
    source: int = -1
    spelling: str = ""
    derives: int = -1


@dataclass(frozen=True, slots=True)
class Output:
    """What must stay finite: the loss (`name` is "loss") or the gradient by one input (`name` is the input's)."""

    kind: str  # "loss" or "gradient"
    name: str
    node: int


@dataclass(frozen=True, slots=True)
class Assumption:
    """A value that Python code looked at: the graph holds only while `node`'s value stays within [low, high].

    `what` names the look (".item()", "bool(tensor)", "boolean index") and `site` where it stands.
    """

    node: int
    low: float
    high: float
    what: str
    site: Site | None = None


@dataclass(frozen=True, slots=True)
class Addend:
    """A small constant that the source adds to something, as written there, where, and the format in which it is added."""

    value: float
    site: Site | None
    format: Format | None = None


SMALL = 1e-3  # up to here a constant counts as an epsilon


@dataclass(frozen=True, slots=True, eq=False, weakref_slot=True)
class Graph:
    """A whole program: nodes in order, inputs by name, outputs, and what was assumed on the way.

    `handwritten` are the expressions whose derivative is code of the user's (PyTorch's `autograd.Function`, JAX's `custom_vjp`).
    `added` are, for a compiled program, the small constants that its source adds; the program itself may have lost them.
    """

    nodes: tuple[Node, ...]
    inputs: Mapping[str, int]
    outputs: tuple[Output, ...]
    assumptions: tuple[Assumption, ...] = ()
    notes: tuple[str, ...] = ()  # facts a report must mention: "random under seed 0", "the output is the sum of 3 tensors"
    handwritten: tuple[Site, ...] = ()
    added: tuple[Addend, ...] = ()

    def users(self) -> list[list[int]]:
        """For each node the ids of the nodes that read it."""
        out: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for i in node.inputs:
                out[i].append(node.id)
        return out


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """What an op's functions see of a node: attributes and the shapes and formats of inputs and result. No neighbours."""

    op: str
    attrs: Mapping[str, Any]
    shapes: tuple[Shape, ...]
    formats: tuple[Format, ...]
    shape: Shape
    format: Format


def call_of(graph: Graph, node: Node) -> Call:
    """The node as its op sees it."""
    inputs = [graph.nodes[i] for i in node.inputs]
    return Call(node.op, node.attrs, tuple(n.shape for n in inputs), tuple(n.format for n in inputs), node.shape, node.format)


_CALLS: WeakKeyDictionary[Graph, tuple[Call, ...]] = WeakKeyDictionary()


def calls_of(graph: Graph) -> tuple[Call, ...]:
    """All nodes as their ops see them; made once for a graph."""
    found = _CALLS.get(graph)
    if found is None:
        found = _CALLS[graph] = tuple(call_of(graph, node) for node in graph.nodes)
    return found


@dataclass(frozen=True, slots=True)
class Place:
    """The phase, source expression and framework call that new nodes belong to."""

    phase: str = FORWARD
    site: Site | None = None
    source: int = -1
    spelling: str = ""
    derives: int = -1


class Builder:
    """Collects nodes in order; `place` is stamped on every node added while it is set."""

    def __init__(self) -> None:
        self.nodes: list[Node] = []
        self.place = Place()

    def shape(self, i: int) -> Shape:
        """The shape of node i."""
        return self.nodes[i].shape

    def format(self, i: int) -> Format:
        """The format of node i."""
        return self.nodes[i].format

    def add(self, op: str, inputs: tuple[int, ...], shape: Shape, fmt: Format, **attrs: Any) -> int:
        """Append a node and return its id."""
        p = self.place
        self.nodes.append(Node(len(self.nodes), op, inputs, attrs, tuple(shape), fmt, p.phase, p.site, p.source, p.spelling, p.derives))
        return len(self.nodes) - 1

    def const(self, value: Array, fmt: Format, **attrs: Any) -> int:
        """A constant. An array of one repeated value is kept as one element: bounds then cost the same for any size.

        `written`, if given, is the number in the source where rounding to the format has changed it.
        """
        return self.add("const", (), value.shape, fmt, value=_uniform(value), **attrs)


def _uniform(value: Array) -> Array:
    if value.size <= 1:
        return value
    first = value.flat[:1]
    same = (value == first).all() and (np.signbit(np.asarray(value, np.float64)) == np.signbit(np.asarray(first, np.float64))).all()
    return first.reshape((1,) * value.ndim) if same else value
