"""Class numbers: what is looked up by them."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from whynan.analysis.meaning.walk import SAME, depends, limits, origin, scalar
from whynan.analysis.view import View
from whynan.ir.graph import FORWARD, Node


@dataclass(frozen=True, slots=True)
class Lookup:
    """A place where the elements of the input `name` are taken for class numbers 0 ... count - 1."""

    node: int
    name: str
    count: int


def lookups(view: View) -> Iterator[Lookup]:
    """Where an input's elements, as they are or clamped, choose among the elements of an axis or become one-hot rows."""
    names = {node: name for name, node in view.graph.inputs.items()}
    for node in view.nodes:
        if node.phase != FORWARD or not view.live[node.id]:
            continue
        for index, count in _indices(view, node):
            name = names.get(_label(view, index))
            if name is not None and count > 1:
                yield Lookup(node.id, name, count)


def _indices(view: View, node: Node) -> list[tuple[int, int]]:
    """The indices that a node reads, each with the number of elements to choose from."""
    if node.op == "gather":
        return [(node.inputs[1], view.nodes[node.inputs[0]].shape[node.attrs["dim"]])]
    if node.op == "index":
        shape = view.nodes[node.inputs[0]].shape
        return [(i, shape[axis]) for i, axis in zip(node.inputs[1:], node.attrs["axes"], strict=False)]
    if node.op == "one_hot":
        return [(node.inputs[0], int(node.attrs["classes"]))]
    if node.op == "where" and np.isnan(scalar(view, node.inputs[2]) or 0.0):
        return _checked_range(view, node.inputs[0])
    if node.op == "eq":
        pairs = (node.inputs, node.inputs[::-1])
        return [(a, len(v)) for a, b in pairs if (v := _numbered(view, b)) is not None]
    return []


def _checked_range(view: View, condition: int) -> list[tuple[int, int]]:
    """The one whole-numbered input that a condition says lies in 0 ... n-1, with n: how JAX's indexing gives NaN for others."""
    names, found, stack = depends(view, condition), [], [condition]
    for i in stack:
        node = view.nodes[i]
        if node.op == "le" and (last := scalar(view, node.inputs[1])) is not None:
            found.append(int(last) + 1)
        elif node.op in ("logical_and", "reshape", "expand", "all"):
            stack += node.inputs
    if len(names) != 1 or not found:
        return []
    index = view.graph.inputs[next(iter(names))]
    return [] if view.nodes[index].format.is_float else [(index, max(found))]


def _numbered(view: View, i: int) -> np.ndarray | None:
    """0 ... n-1 if the constant counts so, in any layout."""
    node = view.nodes[origin(view, i)]
    if node.op != "const" or node.attrs["value"].size < 2:
        return None
    values = np.unique(node.attrs["value"].astype(np.float64))
    return values if np.array_equal(values, np.arange(len(values))) else None


def _label(view: View, i: int) -> int:
    while True:
        i = origin(view, i, SAME | {"slice"})
        held = limits(view, view.nodes[i])
        if held is None:
            return i
        i = held[0]


def sentinels(view: View, name: str) -> frozenset[float] | None:
    """The values of an input that the program treats apart (an ignore_index), or None if it compares the input by size."""
    label = view.graph.inputs[name]
    found: set[float] = set()
    for node in view.nodes:
        if node.op not in ("eq", "ne", "lt", "le", "gt", "ge") or not view.live[node.id]:
            continue
        for a, b in (node.inputs, node.inputs[::-1]):
            number = scalar(view, b)
            if number is None or _label(view, a) != label:
                continue
            if node.op not in ("eq", "ne"):
                return None
            found.add(number)
    return frozenset(found)
