"""Where the elements of a recorded step's values come from: of which sample, of which element of the data each was computed.

Every element of an input gets a label (a sample's number, an element's), and the graph is gone through once with labels in place of
numbers: what is computed from one label keeps it, what is computed from several is mixed. Constants, parameters and what is computed from
them alone have none.
"""

import math
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from whynan.analysis.scene import Scene
from whynan.ir.dtype import Array
from whynan.ir.graph import Call, Node, Shape, call_of
from whynan.ops._opdef import OPS

NONE, MIXED = 0.0, 1e15  # a label is a number between them

Labels = npt.NDArray[np.float64]

_BY_VALUE = frozenset({"sort_values", "topk_values", "kth", "masked_select"})  # where elements go depends on the values
_SCATTERS = {"index_put": (0, 1), "scatter": (0, 2), "scatter_add": (0, 2)}  # which inputs hold values; the others say where they go
_MOVES_TOO = frozenset({"concat", "pad", "slice_scatter", "diagonal_scatter", "as_strided_scatter"})


def labelled(scene: Scene, inputs: Mapping[int, Labels], wanted: Iterable[int], own: bool = False) -> dict[int, Labels]:
    """The labels of the wanted nodes' elements and of all that they are computed from. `inputs` are the labels of input nodes.

    With `own` an element that meets a number that all share (the mean of a batch norm) keeps its label: it is the sample's own. And
    where each sample meets each (a matrix of pairs), an element is that of its row.
    """
    found: dict[int, Labels] = {}
    with np.errstate(all="ignore"):
        for i in _behind(scene, wanted):
            node = scene.graph.nodes[i]
            found[i] = inputs[i] if i in inputs else _labels(scene, node, [found[j] for j in node.inputs], own)
    return found


def _behind(scene: Scene, wanted: Iterable[int]) -> list[int]:
    seen: set[int] = set()
    stack = list(wanted)
    while stack:
        i = stack.pop()
        if i not in seen:
            seen.add(i)
            stack += scene.graph.nodes[i].inputs
    return sorted(seen)


def _labels(scene: Scene, node: Node, inputs: list[Labels], own: bool) -> Labels:
    if own and any(not _shared(a, node) and a.any() for a in inputs):
        inputs = [np.zeros(a.shape) if _shared(a, node) else a for a in inputs]
    if all(not a.any() for a in inputs):
        return np.zeros(node.shape)
    call = call_of(scene.graph, node)
    try:
        found = _exactly(scene, node, call, inputs, own)
    except (ValueError, TypeError, IndexError, KeyError, ArithmeticError):
        found = None
    if found is not None and found.shape == node.shape:
        return found
    return together(_roughly(a, node.shape) for a in inputs)


def _shared(labels: Labels, node: Node) -> bool:
    """Whether these are the labels of numbers computed from several samples that all elements of the node meet."""
    of_one = (labels != MIXED) & (labels != NONE)
    return labels.size < math.prod(node.shape) and bool((labels == MIXED).any()) and not bool(of_one.any())


def _exactly(scene: Scene, node: Node, call: Call, inputs: list[Labels], own: bool) -> Labels | None:
    """By what the operation does, where that is simple."""
    record = OPS.get(node.op)
    meet = _rows if own else together
    if node.op == "matmul":
        return meet(np.broadcast_arrays(joined(inputs[0], (-1,)), joined(inputs[1], (-2,))))
    if record is None:
        return None
    if record.elementwise:
        return meet(np.broadcast_to(a, node.shape) for a in inputs)
    if (record.moves and node.op not in _BY_VALUE) or node.op in _MOVES_TOO:
        return _moved(scene, node, call, inputs)
    if node.op in _SCATTERS:
        return _scattered(scene, node, call, inputs)
    axes = _axes(call)
    if axes and len(inputs) == 1 and inputs[0].ndim == len(node.shape):
        return np.array(np.broadcast_to(joined(inputs[0], axes), node.shape))
    return None


def _moved(scene: Scene, node: Node, call: Call, inputs: list[Labels]) -> Labels:
    """The operation itself puts labels where it puts values; what says where (an index) is a part of the origin, too."""
    evaluate = OPS[node.op].evaluate
    if node.op in _MOVES_TOO:
        found = np.asarray(evaluate(call, *inputs), np.float64)
        return np.where(np.isfinite(found) & (found > 0), found, NONE)
    indices: list[Any] = [scene.values[j] for j in node.inputs[1:]]
    found = np.asarray(evaluate(call, inputs[0], *indices), np.float64)
    return together([found, *(_roughly(a, node.shape) for a in inputs[1:])])


def _scattered(scene: Scene, node: Node, call: Call, inputs: list[Labels]) -> Labels:
    """What several values were added to has their label if all have the same: if their mean square is the square of their mean."""

    def of(numbers: list[Labels]) -> Labels:
        given = [numbers[k] if k in _SCATTERS[node.op] else scene.values[j] for k, j in enumerate(node.inputs)]
        return np.asarray(OPS[node.op].evaluate(call, *given), np.float64)

    count, total, squares = of([(a != NONE) * 1.0 for a in inputs]), of(inputs), of([a * a for a in inputs])
    return np.where(count == 0, NONE, np.where(total * total == count * squares, total / np.maximum(count, 1), MIXED))


def _axes(call: Call) -> tuple[int, ...]:
    axes = call.attrs.get("dims", call.attrs.get("dim"))
    return tuple(axes) if isinstance(axes, (tuple, list)) else (axes,) if isinstance(axes, int) else ()


def _roughly(a: Labels, shape: Shape) -> Labels:
    """For any operation: along an axis that it keeps if that keeps labels apart, else all together."""
    if not a.any():
        return np.zeros(shape)
    if a.shape == shape[: a.ndim]:
        wide = a.reshape(a.shape + (1,) * (len(shape) - a.ndim))
        if len(shape) > a.ndim:
            return np.array(np.broadcast_to(wide, shape))
    pairs = [(k, m) for k in range(a.ndim) for m in range(len(shape)) if a.shape[k] == shape[m] > 1]
    pairs = [(k, m) for k, m in pairs if k == m or a.shape.count(a.shape[k]) == shape.count(shape[m]) == 1]
    for axis, other in sorted(pairs, key=lambda p: p[0] != p[1]):
        rows = joined(a, tuple(k for k in range(a.ndim) if k != axis)).reshape(-1)
        if not (rows == MIXED).any():
            return np.array(np.broadcast_to(rows.reshape([-1 if k == other else 1 for k in range(len(shape))]), shape))
    return np.full(shape, joined(a, tuple(range(a.ndim))).reshape(-1)[0])


def joined(a: Labels, axes: tuple[int, ...]) -> Labels:
    """Labels joined along axes, which stay with length 1."""
    if not a.size:
        return np.zeros([1 if k in {x % a.ndim for x in axes} else n for k, n in enumerate(a.shape)])
    low, high = np.where(a == NONE, np.inf, a).min(axis=axes, keepdims=True), a.max(axis=axes, keepdims=True)
    return np.where(high == NONE, NONE, np.where(low == high, high, MIXED))


def together(parts: Iterable[Labels]) -> Labels:
    """The labels of what is computed from several values, element by element."""
    found, *rest = (np.array(a) for a in parts)
    for a in rest:
        found = np.where(found == NONE, a, np.where((a == NONE) | (a == found), found, MIXED))
    return found


def _rows(parts: Iterable[Labels]) -> Labels:
    """As `together`, but where labels that change along the first axis meet others that do not, the first stay."""
    given = list(parts)
    first = [a.ndim > 1 and len(a) > 1 and bool((a[1:] != a[:1]).any()) and bool((a[..., 1:] == a[..., :1]).all()) for a in given]
    rows = together(a for a, is_first in zip(given, first, strict=True) if is_first) if any(first) else np.zeros(given[0].shape)
    return np.where((rows != NONE) & (rows != MIXED), rows, together(given))


def sample_labels(values: Array, axis: int) -> Labels:
    """Each element's sample, counted from 1, if samples lie along that axis."""
    shape = [-1 if k == axis else 1 for k in range(values.ndim)]
    return np.array(np.broadcast_to(np.arange(1.0, values.shape[axis] + 1).reshape(shape), values.shape))


def element_labels(values: Array) -> Labels:
    """Each element's place in the flattened array, counted from 1."""
    return np.arange(1.0, values.size + 1).reshape(values.shape)
