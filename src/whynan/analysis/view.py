"""The graph seen element by element: which elements of which values meet in one element of a result.

A *vertex* is a node together with the way its dimensions lie along those of some root value. Two vertices with equal parts are
the same number in each element of the root; `x[:, None]` and `x[None, :]` are two vertices of one node. Reshapes that only add or
drop dimensions of size 1, transpositions and broadcasts disappear in this view, and nodes that compute the same are one.
"""

from collections.abc import Iterator, Mapping
from functools import cached_property
from math import prod

import numpy as np

from whynan.domain.interval import Bounds
from whynan.ir.dtype import Format
from whynan.ir.graph import Call, Graph, Node, calls_of
from whynan.ops._opdef import OPS

TRANSPARENT = frozenset({"reshape", "permute", "expand", "cast"})

Axes = tuple[int, ...]
Vertex = tuple[int, Axes]


class View:
    """A graph with what all analyses ask of it, computed once."""

    def __init__(self, graph: Graph) -> None:
        self.graph = graph
        self.nodes = graph.nodes
        self.representative = _representatives(graph)
        self._chosen: dict[int, int] = {}  # `where` nodes of which one branch is never taken: the operand that they are
        self._inputs: dict[Vertex, tuple[Vertex, ...]] = {}

    @cached_property
    def calls(self) -> tuple[Call, ...]:
        """Each node as its op sees it."""
        return calls_of(self.graph)

    @cached_property
    def live(self) -> list[bool]:
        """Whether a node can reach an output or something that Python looked at (or computes the same as one that can)."""
        alive = [False] * len(self.nodes)
        for i in (*(o.node for o in self.graph.outputs), *(a.node for a in self.graph.assumptions)):
            alive[i] = True
        for node in reversed(self.nodes):
            if alive[node.id]:
                alive[self.representative[node.id]] = True
                for i in node.inputs:
                    alive[i] = alive[self.representative[i]] = True
        return alive

    @cached_property
    def readers(self) -> list[list[int]]:
        """The nodes that read each node, or another one that computes the same."""
        out: list[list[int]] = [[] for _ in self.nodes]
        for node in self.nodes:
            for i in {self.representative[j] for j in node.inputs}:
                out[i].append(node.id)
        return out

    def root(self, node: int) -> Vertex:
        """The node itself, not what it may show, seen along its own dimensions."""
        return node, tuple(d if n > 1 else -1 for d, n in enumerate(self.nodes[node].shape))

    def assuming(self, chosen: Mapping[int, int], labels: Mapping[int, Axes]) -> "View":
        """The same graph where these `where` nodes are the operands chosen for them, in the values that have labels only.

        Values with labels that become the same are one, if their labels are; the others are what they were.
        """
        other = View(self.graph)
        other._chosen = {**self._chosen, **chosen}
        seen: dict[object, int] = {}
        same: list[int] = []
        for node in self.nodes:
            operand = same[chosen[node.id]] if node.id in chosen else node.id
            mine = labels.get(node.id)
            if operand != node.id and self.nodes[operand].shape == node.shape and labels.get(operand, mine) == mine:
                same.append(operand)
                continue
            first = seen.setdefault(_key(node, tuple(same[i] for i in node.inputs)), node.id)
            same.append(first if mine is not None and labels.get(first, mine) == mine else self.representative[node.id])
        other.representative = same
        return other

    def choose(self, node: int, operand: int) -> None:
        """From here on a `where` whose condition is the same on the whole domain stands for the operand that it selects."""
        self._chosen[node] = operand

    def resolve(self, node: int, axes: Axes) -> Vertex:
        """Go through operations that only rearrange dimensions, widen the format or have no choice, to the value they show."""
        while True:
            node = self.representative[node]
            n = self.nodes[node]
            if node in self._chosen:
                node = self._chosen[node]
                axes = _operand_axes(self.nodes[node].shape, axes)
                continue
            step = _source_axes(n, self.nodes[n.inputs[0]], axes) if n.inputs and n.op in TRANSPARENT else None
            if step is None:
                return node, axes
            node, axes = n.inputs[0], step

    def inputs(self, vertex: Vertex) -> tuple[Vertex, ...]:
        """The vertices that an elementwise operation reads, in order."""
        if vertex not in self._inputs:
            node, axes = vertex
            self._inputs[vertex] = tuple(self.resolve(i, _operand_axes(self.nodes[i].shape, axes)) for i in self.nodes[node].inputs)
        return self._inputs[vertex]

    def elementwise(self, vertex: Vertex) -> bool:
        """Whether the vertex is computed element by element from other vertices."""
        op = OPS.get(self.nodes[vertex[0]].op)
        return op is not None and op.elementwise and bool(self.nodes[vertex[0]].inputs)

    def op(self, vertex: Vertex) -> str:
        """The op that computes the vertex."""
        return self.nodes[vertex[0]].op

    def unsigned(self, vertex: Vertex) -> tuple[Vertex, int]:
        """A value without the negations that it went through last, and the sign that they come to."""
        sign = 1
        while self.op(vertex) == "neg":
            vertex, sign = self.inputs(vertex)[0], -sign
        return vertex, sign

    def node(self, vertex: Vertex) -> Node:
        """The node of the vertex."""
        return self.nodes[vertex[0]]

    def reduced(self, vertex: Vertex, base: int) -> tuple[Vertex, tuple[int, ...]] | None:
        """For a reduction: the value it reduces, seen along the same root, and the names of its reduced axes.

        Axis d of the value, if it is reduced, gets the name base - d: a name below -1 stands for a running index of its own.
        None also for a reduction of nothing: what holds of each of no elements says nothing of their sum.
        """
        node, axes = self.nodes[vertex[0]], vertex[1]
        if "dims" not in node.attrs or not node.inputs or 0 in self.nodes[node.inputs[0]].shape:
            return None
        shape = self.nodes[node.inputs[0]].shape
        dims = {d % len(shape) for d in node.attrs["dims"]}
        named = tuple(base - d if d in dims and shape[d] > 1 else axes[d] for d in range(len(shape)))
        return self.resolve(node.inputs[0], named), tuple(base - d for d in sorted(dims) if shape[d] > 1)

    def spans(self, vertex: Vertex) -> tuple[int, ...]:
        """How many elements a reduction brings together along each axis that `reduced` names: also where they are one number, repeated."""
        node = self.nodes[vertex[0]]
        shape = self.nodes[node.inputs[0]].shape
        return tuple(shape[d] for d in sorted({d % len(shape) for d in node.attrs["dims"]}) if shape[d] > 1)

    def terms(self, vertex: Vertex) -> int:
        """How many elements a reduction brings together in one of its own."""
        return prod(self.spans(vertex))

    def length(self, vertex: Vertex, axis: int) -> int:
        """How many elements the vertex has along an axis name (1 if none)."""
        shape = self.nodes[vertex[0]].shape
        return next((n for n, a in zip(shape, vertex[1], strict=True) if a == axis), 1)


def fresh(*vertices: Vertex) -> int:
    """A name for running indices that none of the vertices uses."""
    return min([-1, *(x for v in vertices for x in v[1])]) - 1


def _operand_axes(shape: tuple[int, ...], axes: Axes) -> Axes:
    """Axes of an operand that broadcasts (right-aligned) to a result with the given axes."""
    tail = axes[len(axes) - len(shape) :]
    return tuple(a if n > 1 else -1 for a, n in zip(tail, shape, strict=True))


def _source_axes(node: Node, source: Node, axes: Axes) -> Axes | None:
    """Axes of the operand of a transparent op, or None if elements of different places meet or values change."""
    shape = source.shape
    if node.op == "cast":
        return axes if _widens(source.format, node.format) else None
    if node.op == "permute":
        out = [-1] * len(shape)
        rank = len(shape)
        for place, axis in enumerate(node.attrs["axes"]):
            out[axis % rank] = axes[place]
        return tuple(out)
    if node.op == "expand":
        return _operand_axes(shape, axes)
    kept = [a for a, n in zip(axes, node.shape, strict=True) if n != 1]
    if [n for n in shape if n != 1] != [n for n in node.shape if n != 1]:
        return None
    walk: Iterator[int] = iter(kept)
    return tuple(next(walk) if n != 1 else -1 for n in shape)


def _widens(narrow: Format, wide: Format) -> bool:
    """Whether each value of one float format is a value of the other."""
    return narrow.is_float and wide.is_float and narrow.max <= wide.max and narrow.eps >= wide.eps and narrow.smallest >= wide.smallest


def align(b: Bounds, axes: Axes, rank: int) -> Bounds:
    """Bounds of a vertex laid along the root's dimensions (size 1 where it has none)."""
    kept = [d for d, a in enumerate(axes) if a >= 0]
    order = sorted(range(len(kept)), key=lambda k: axes[kept[k]])
    target = [1] * rank
    for d in kept:
        target[axes[d]] = b.shape[d]

    def move(a: np.ndarray) -> np.ndarray:
        squeezed = a.reshape([a.shape[d] for d in kept])
        return squeezed.transpose(order).reshape(target)

    return Bounds(move(b.lo), move(b.hi), move(b.flags))


def _representatives(graph: Graph) -> list[int]:
    """For each node the first one that computes the same value (value numbering)."""
    seen: dict[object, int] = {}
    out: list[int] = []
    for node in graph.nodes:
        key = _key(node, tuple(out[i] for i in node.inputs))
        out.append(seen.setdefault(key, node.id))
    return out


def _key(node: Node, inputs: tuple[int, ...]) -> object:
    if node.op in ("random", "input") or node.op.startswith("unknown"):
        return node.id
    return node.op, inputs, node.shape, node.format.name, tuple(sorted((k, _frozen(v)) for k, v in node.attrs.items()))


def _frozen(value: object) -> object:
    if isinstance(value, np.ndarray):
        return (value.shape, value.tobytes()) if value.size <= 4096 else id(value)
    if isinstance(value, list | tuple):
        return tuple(_frozen(v) for v in value)
    return repr(value)
