"""Looks that Python code took at values, as recordings show them: what was looked at, how it went, what else it could have been."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.domain.interval import Bounds
from whynan.ir.dtype import next_down, next_up
from whynan.ir.graph import Graph, Node

MOST_OUTCOMES = 64  # of one look


@dataclass(frozen=True, slots=True)
class Look:
    """One look in a recording: what is looked at, the same in every recording that comes there, and how it went."""

    key: object
    outcome: tuple[float, float]
    of: object = None  # the array that was read, where it is not one number


def looks_of(graph: Graph, interned: dict[object, int]) -> Iterator[Look]:
    """The looks of a graph in order. Values are known by how they are computed, which has a number of its own in `interned`."""
    numbers: list[int] = []
    for node in graph.nodes:
        name = node.attrs.get("name") if node.op == "input" else None
        attrs = tuple((k, _frozen(v)) for k, v in sorted(node.attrs.items()))
        key = (node.op, name, tuple(numbers[i] for i in node.inputs), node.shape, node.format.name, attrs)
        numbers.append(interned.setdefault(key, len(interned)))
    for a in graph.assumptions:
        node = graph.nodes[a.node]
        if node.op == "eq" and int(np.prod(node.shape)) > 1:  # a whole array was read
            yield Look((a.what, a.site, numbers[node.inputs[0]]), (a.low, a.high), numbers[node.inputs[1]])
        else:
            yield Look((a.what, a.site, numbers[a.node]), (a.low, a.high))


def _frozen(value: object) -> object:
    if isinstance(value, np.ndarray):
        return value.shape, str(value.dtype), value.tobytes()
    if isinstance(value, list | tuple):
        return tuple(_frozen(v) for v in value)
    return repr(value)


def inside(b: Bounds, seen: Sequence[tuple[float, float]]) -> bool:
    """Whether one of the seen outcomes covers all that is possible."""
    return not b.may_nan and any(low <= b.lo and b.hi <= high for low, high in seen)


def countable(node: Node, b: Bounds, seen: Sequence[tuple[float, float]]) -> bool:
    """Whether a look has a few outcomes that can be told apart: one of a number of whole numbers, or ranges."""
    if int(np.prod(node.shape)) != 1 or b.may_nan or not np.isfinite([float(b.lo), float(b.hi)]).all():
        return False
    if b.integral:
        return bool(b.hi - b.lo < MOST_OUTCOMES)
    return all(low < high for low, high in seen)


def between(node: Node, lo: float, hi: float, seen: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """The ranges of [lo, hi] between those that were seen."""
    out, start = [], lo
    for low, high in sorted(seen):
        if low > start:
            out.append((start, float(next_down(node.format, low))))
        start = max(start, float(next_up(node.format, high)))
    return [*out, (start, hi)] if start <= hi else out
