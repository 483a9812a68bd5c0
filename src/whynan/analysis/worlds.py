"""Case split on a condition below a reduction: all that depends on one element of it, where it is true and where it is false.

A cone ends at a reduction, so branch and prune cannot follow `safe = where(norm(x) < eps, 1, x); norm(safe)`, where a condition selects
whole rows. A *world* assumes one outcome of the condition in the row at hand. What holds in both worlds holds.

A value is in *scope* if each of its elements depends on one element of the condition only: its dimensions carry the names of the
condition's dimensions (labels), each name at most once. Values narrowed because the condition holds are read at the same row alone.
What mixes rows is out of scope, and so is all that is computed from it.
"""

from collections.abc import Collection, Mapping, Sequence

import numpy as np

from whynan.analysis.cones import cones_of
from whynan.analysis.revise import Revision
from whynan.analysis.view import TRANSPARENT, Axes, View, align
from whynan.domain.interval import Bounds, join_axes, make, meet
from whynan.ir.graph import Node
from whynan.ops._opdef import OPS

MAX_CONDITIONS = 6
ALONG_ONE = frozenset({"softmax", "log_softmax", "cumsum", "cumprod", "cummax", "cummin", "logcumsumexp"})  # other dimensions stay apart

Labels = Mapping[int, Axes]


def conditions(view: View, bounds: Sequence[Bounds | None]) -> list[int]:
    """The undecided conditions of `where` nodes that select what a reduction reads, the first few."""
    out: dict[int, None] = {}
    for node in view.nodes:
        if node.op != "where" or not view.live[node.id]:
            continue
        c = view.resolve(node.inputs[0], _own(view.nodes[node.inputs[0]]))[0]
        b = bounds[c]
        if b is not None and view.op((c, ())) != "const" and bool((b.lo < b.hi).any()) and c not in out and view.representative[c] == c:
            labels = scope(view, {c: _own(view.nodes[c])})
            if any("dims" in view.nodes[n].attrs for n in labels):
                out[c] = None
    return list(out)[:MAX_CONDITIONS]


def chosen(view: View, condition: int, outcome: bool, labels: Labels) -> dict[int, int]:
    """The `where` nodes in scope that this condition decides, each with the operand that it then is."""
    out = {}
    for i in labels:
        node = view.nodes[i]
        if node.op == "where" and view.resolve(node.inputs[0], _own(view.nodes[node.inputs[0]]))[0] == condition:
            operand = view.representative[node.inputs[1 if outcome else 2]]
            if view.nodes[operand].format.name == node.format.name:
                out[i] = operand
    return out


def assumed(view: View, bounds: list[Bounds | None], condition: int, outcome: bool) -> dict[int, tuple[Axes, Bounds]] | None:
    """What the outcome says of the values that the condition is computed from, each with its labels; None if it cannot be.

    A value that is compared at several places (x_i with x_j) is left as it is.
    """
    root = view.root(condition)
    end = 1.0 if outcome else 0.0
    one = (1,) * len(view.nodes[condition].shape)
    fixed = make(np.full(one, end), np.full(one, end), neg_zero=False, fraction=False)
    out: dict[int, tuple[Axes, Bounds]] = {condition: (root[1], fixed)}
    if not view.elementwise(root):
        return out
    cone = cones_of(view, root)[-1]
    rank = len(one)
    revision = Revision(view, cone, bounds)
    box = {v: _in_front(align(b, v[1], rank)) for v in cone.leaves if (b := bounds[v[0]]) is not None}
    found = revision.evaluate({**box, root: _in_front(fixed)})
    if bool(found.dead.all()):
        return None
    places = [v[0] for v in (*cone.leaves, *cone.inner)]
    for (node, axes), b in found.values.items():
        before = bounds[node]
        if node == condition or view.nodes[node].op == "const" or places.count(node) > 1 or before is None:
            continue
        laid = _laid_back(b, axes, len(view.nodes[node].shape))
        after = None if laid is None else meet(before, laid, view.nodes[node].format)
        if after is not None and bool((after.lo > before.lo).any() or (after.hi < before.hi).any() or (after.flags != before.flags).any()):
            out[node] = (axes, after)
    return out


def scope(view: View, seeds: Labels) -> dict[int, Axes]:
    """The labels of all values of which each element depends on one element of the seeds' rows; the seeds are among them."""
    labels: dict[int, Axes] = dict(seeds)
    mixed: set[int] = set()
    for node in view.nodes:
        first = view.representative[node.id]
        inputs = [view.representative[i] for i in node.inputs]
        if node.id in labels:
            continue
        if first in mixed or any(i in mixed for i in inputs):
            mixed.add(node.id)
        elif first in labels:
            labels[node.id] = labels[first]
        elif any(i in labels for i in inputs):
            found = _labels(view, node, inputs, labels)
            if found is None:
                mixed.add(node.id)
            else:
                labels[node.id] = found
    return labels


def dependents(view: View, nodes: Collection[int]) -> set[int]:
    """The nodes themselves and all that is computed from them."""
    out = set(nodes)
    for node in view.nodes:
        if view.representative[node.id] in out or any(view.representative[i] in out for i in node.inputs):
            out.add(node.id)
    return out


def _labels(view: View, node: Node, inputs: list[int], labels: Labels) -> Axes | None:
    """The labels of a node some of whose inputs have labels; None if it mixes rows."""
    rank = len(node.shape)
    if all(max(labels.get(i, ()), default=-1) < 0 for i in inputs):
        return (-1,) * rank
    first = inputs[0]
    source, shape = labels.get(first, ()), view.nodes[first].shape
    op = OPS.get(node.op)
    if node.op in TRANSPARENT:
        return _moved(node, shape, source)
    if "dims" in node.attrs and len(node.inputs) == 1 and rank == len(shape):
        dims = {d % rank for d in node.attrs["dims"]}
        return None if any(source[d] >= 0 for d in dims) else source
    if node.op in ALONG_ONE and len(node.inputs) == 1:
        return None if source[node.attrs["dim"]] >= 0 else source
    if op is None or not op.elementwise:
        return None
    out = [-1] * rank
    for i in inputs:
        for d, label in enumerate(labels.get(i, ())):
            place = rank - len(labels[i]) + d
            if label >= 0:
                if out[place] not in (-1, label):
                    return None
                out[place] = label
    named = [x for x in out if x >= 0]
    return tuple(out) if len(named) == len(set(named)) else None


def _moved(node: Node, shape: tuple[int, ...], source: Axes) -> Axes | None:
    """The labels after a reshape that only adds or drops dimensions of size 1, a permutation, a broadcast, or a cast."""
    if node.op == "cast":
        return source
    if node.op == "permute":
        return tuple(source[a] for a in node.attrs["axes"])
    if node.op == "expand":
        return (-1,) * (len(node.shape) - len(source)) + source
    if [n for n in shape if n != 1] != [n for n in node.shape if n != 1]:
        return None
    kept = iter([label for label, n in zip(source, shape, strict=True) if n != 1])
    return tuple(next(kept) if n != 1 else -1 for n in node.shape)


def _own(node: Node) -> Axes:
    return tuple(d if n > 1 else -1 for d, n in enumerate(node.shape))


def _in_front(b: Bounds) -> Bounds:
    return Bounds(b.lo[None], b.hi[None], b.flags[None])


def _laid_back(b: Bounds, axes: Axes, rank: int) -> Bounds | None:
    """Bounds along the condition's dimensions (one box in front) laid along a value's own: the inverse of `align`."""
    one = Bounds(b.lo[0], b.hi[0], b.flags[0])
    own = [a for a in axes if a >= 0]
    if len(set(own)) != len(own):
        return None
    one = join_axes(one, [a for a in range(one.lo.ndim) if a not in own])

    def move(x: np.ndarray) -> np.ndarray:
        kept = x.reshape([x.shape[a] for a in sorted(own)]).transpose([sorted(own).index(a) for a in own])
        shape = iter(kept.shape)
        return kept.reshape([next(shape) if a >= 0 else 1 for a in axes])

    return Bounds(move(one.lo), move(one.hi), move(one.flags))
