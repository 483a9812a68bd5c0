"""Facts about slices: along these axes some element of each slice lies between these ends.

`x - max(x)` attains 0, so `sum(exp(x - max(x)))` is at least 1, whatever x is. Where each row of a mask has a true element,
`where(mask, x, -inf)` attains a finite value, and so its log-sum-exp is finite. A fact has an *origin*: values with facts of one origin
lie between their ends at the same element. Elementwise operations carry facts on, with the other operands anywhere in their bounds.
"""

from math import prod
from typing import NamedTuple

import numpy as np

from whynan.analysis.contracted import contracted
from whynan.analysis.entropy import entropy
from whynan.analysis.masks import Dims, met
from whynan.analysis.shares import few_large
from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds, collapse, make, meet
from whynan.ir.graph import Node
from whynan.ops._opdef import OPS, bound

MOST_ORIGINS = 4  # facts that are kept of one value
MOST_CONSTANTS = 4096  # elements of a constant whose rows are looked at

_MEMBERS = frozenset({"amax", "amin", "kth"})  # one of the elements of each slice
_ORDERING = frozenset({"sort_values", "topk_values"})


class Origin(NamedTuple):
    """Where a fact arose: a node, the axes along which its slices run, which of its facts it is, and of how many elements at least."""

    node: int
    dims: Dims
    number: int
    elements: int = 1


class Attained:
    """Learns, node by node in order, what each slice attains."""

    def __init__(self, view: View, bounds: list[Bounds | None]) -> None:
        self.view, self.bounds = view, bounds
        self._facts: dict[int, dict[Origin, Bounds]] = {}  # node -> what some element is, as one interval

    def copied(self, view: View, bounds: list[Bounds | None]) -> "Attained":
        """The same facts over other bounds of the same graph."""
        other = Attained(view, bounds)
        other._facts = dict(self._facts)
        return other

    def learn(self, node: Node, result: Bounds) -> Bounds | None:
        """Record what a node's slices attain; return bounds for all its elements if the facts of its inputs give some."""
        tell = self._outermost if node.op in _ORDERING else self._reduced
        said = tell(node) if node.inputs and self._of(node.inputs[0]) else None
        if 0 not in node.shape:
            whole = collapse(result if said is None else meet(result, said), 0)
            begun = {Origin(node.id, dims, k, count): _scalar(b) for k, (dims, b, count) in enumerate(self._begun(node, whole))}
            facts = {o: b for o, b in {**begun, **self._carried(node)}.items() if not b.may_nan.any() and _says(b, whole)}
            if facts:
                self._facts[node.id] = dict(list(facts.items())[:MOST_ORIGINS])
        return said

    def _of(self, i: int) -> dict[Origin, Bounds]:
        """The facts of a node, or of the one that computes the same."""
        return self._facts.get(self.view.representative[i], {})

    def _begun(self, node: Node, whole: Bounds) -> list[tuple[Dims, Bounds, int]]:
        """Facts that this node gives by itself, each with how many elements it is about; `whole` are the bounds of all its elements."""
        return [*((*fact, 1) for fact in self._single(node, whole)), *few_large(self.view, self.bounds, node, float(whole.lo))]

    def _single(self, node: Node, whole: Bounds) -> list[tuple[Dims, Bounds]]:
        """Facts of one element."""
        if node.op == "softmax":
            n = node.shape[node.attrs["dim"]]
            sure = n and not whole.may_nan
            return [(frozenset({node.attrs["dim"]}), make((1.0 / n) * (1 - 64 * node.format.eps), 1.0))] if sure else []
        if node.op == "const":
            return _of_constant(node.attrs["value"])
        out = met(self.view, self.bounds, node)
        if node.op in ("sub", "eq") and (dims := self._meets_maximum(node)) is not None:
            out.append((dims, make(0.0, 0.0) if node.op == "sub" else make(1.0, 1.0, fraction=False)))
        return out

    def _carried(self, node: Node) -> dict[Origin, Bounds]:
        """Facts of the inputs that hold for the result, too."""
        if not any(self._of(i) for i in node.inputs):
            return {}
        first = self._of(node.inputs[0])
        if node.op in ("expand", "reshape") and self.view.nodes[node.inputs[0]].shape == node.shape:
            return dict(first)
        if node.op in ("expand", "reshape", "permute"):
            moved = ((k, o, b, self._moved(node, o.dims)) for k, (o, b) in enumerate(first.items()))
            return {Origin(node.id, dims, k, o.elements): b for k, o, b, dims in moved if dims}
        if (sums := contracted(self.view, self.bounds, node)) is not None:
            room = float(sums[1].max(initial=0.0))
            return {o: make(b.lo - room, b.hi + room) for o, b in self._of(sums[0]).items()}
        if node.op in _ORDERING:
            return self._ordered(node, first)
        op = OPS.get(node.op)
        if op is None or not op.elementwise:
            return {}
        origins = dict.fromkeys(o for i in node.inputs for o in self._of(i))
        return {o: self._result(node, o) for o in list(origins)[:MOST_ORIGINS]}

    def _ordered(self, node: Node, first: dict[Origin, Bounds]) -> dict[Origin, Bounds]:
        """Sorting rows keeps what is in them; the k largest of a row are at least any k others of it, the k smallest at most."""
        row, x = frozenset({node.attrs["dim"] % len(node.shape) - len(node.shape)}), self.bounds[node.inputs[0]]
        sure = x is not None and not x.may_nan.any()  # NaN counts as the largest
        facts = [(k, o, b) for k, (o, b) in enumerate(first.items()) if o.dims == row and sure]
        largest = node.attrs.get("largest")
        out = {}
        for k, o, b in facts:
            kept = b if largest is None else make(b.lo, np.inf) if largest else make(-np.inf, b.hi)
            out[Origin(node.id, row, k, min(o.elements, node.shape[node.attrs["dim"]]))] = kept
        return out

    def _outermost(self, node: Node) -> Bounds | None:
        """The first and the last elements of sorted rows, from how many of a row lie between which ends."""
        facts = self._ordered(node, self._of(node.inputs[0]))
        if not facts or not node.attrs.get("sorted", True):
            return None
        n, d = node.shape[node.attrs["dim"]], node.attrs["dim"] % len(node.shape)
        lo, hi = np.full(n, -np.inf), np.full(n, np.inf)
        for origin, b in facts.items():
            lo[n - origin.elements :] = np.maximum(lo[n - origin.elements :], b.lo)
            hi[: origin.elements] = np.minimum(hi[: origin.elements], b.hi)
        if node.attrs.get("descending", node.attrs.get("largest", False)):
            lo, hi = lo[::-1], hi[::-1]
        shape = [n if k == d else 1 for k in range(len(node.shape))]
        return make(lo.reshape(shape), hi.reshape(shape))

    def _result(self, node: Node, origin: Origin) -> Bounds:
        """What an elementwise operation gives at the element that a fact speaks of."""
        result = _scalar(bound(self.view.calls[node.id], [self._at(i, origin) for i in node.inputs]))
        product = entropy(self.view, node, lambda x: _scalar(self._at(x[0], origin)))
        return result if product is None else meet(result, product, node.format)

    def _at(self, i: int, origin: Origin) -> Bounds:
        """What an input is at the element that a fact speaks of."""
        b, rank = self.bounds[i], len(self.view.nodes[i].shape)
        assert b is not None
        fact = self._of(i).get(origin)
        whole = collapse(b, rank)
        return whole if fact is None else meet(whole, make(fact.lo.reshape((1,) * rank), fact.hi.reshape((1,) * rank)))

    def _moved(self, node: Node, dims: Dims) -> Dims | None:
        """The axes of slices after dimensions were permuted, added or dropped (those of size 1), or broadcast."""
        shape, rank = self.view.nodes[node.inputs[0]].shape, len(node.shape)
        old = {d % len(shape) for d in dims}
        if node.op == "expand":
            return dims
        if node.op == "permute":
            return frozenset(k - rank for k, a in enumerate(node.attrs["axes"]) if a % rank in old)
        kept = [d for d, n in enumerate(shape) if n != 1]
        new = [d for d, n in enumerate(node.shape) if n != 1]
        if not old <= set(kept) or [shape[d] for d in kept] != [node.shape[d] for d in new]:
            return None
        return frozenset(new[kept.index(d)] - rank for d in old)

    def _meets_maximum(self, node: Node) -> Dims | None:
        """The axes of an extreme if a node compares x with its own maximum (minimum, median): somewhere along them the two are equal."""
        view = self.view
        a, b = view.inputs(view.root(node.id))
        if node.op == "eq" and view.op(a) in _MEMBERS:
            a, b = b, a
        if view.op(b) not in _MEMBERS or (node.op == "sub" and view.op(b) == "amin"):
            return None
        x, extreme = self.bounds[a[0]], self.bounds[b[0]]
        if x is None or x.may_nan.any() or extreme is None or extreme.nonfinite.any():
            return None  # inf - inf is no zero, and NaN equals nothing
        base = min([-1, *a[1], *b[1]]) - 1
        found = self._ranked(b, base) if view.op(b) == "kth" else view.reduced(b, base)
        if found is None:
            return None
        (inner, axes), names = found
        dims = [k for k, x in enumerate(axes) if x in names]
        if inner != a[0] or len(axes) != len(a[1]) or any(x != y for k, (x, y) in enumerate(zip(axes, a[1], strict=True)) if k not in dims):
            return None
        rank = len(node.shape)
        along = [a[1][k] for k in dims]
        return None if any(x < 0 for x in along) else frozenset(x - rank for x in along)

    def _ranked(self, v: Vertex, base: int) -> tuple[Vertex, tuple[int, ...]]:
        """The rows of which a vertex is the k-th smallest element, and the name of their axis."""
        node = self.view.node(v)
        d = node.attrs["dim"] % len(v[1])
        return self.view.resolve(node.inputs[0], (*v[1][:d], base, *v[1][d + 1 :])), (base,)

    def _reduced(self, node: Node) -> Bounds | None:
        """What a reduction is over axes that hold such an element."""
        dims = {node.attrs["dim"]} if node.op in ("softmax", "log_softmax") else set(node.attrs.get("dims", ()))
        shape, inner = self.view.nodes[node.inputs[0]].shape, self.bounds[node.inputs[0]]
        if not dims or inner is None or 0 in shape:
            return None  # a sum over no slices at all is 0
        dims = {d % len(shape) - len(shape) for d in dims}
        out: Bounds | None = None
        for origin, b in self._of(node.inputs[0]).items():
            slices = prod(shape[d] for d in dims - origin.dims)
            said = _reduction(node, b, inner, origin.elements * slices, prod(shape[d] for d in dims)) if origin.dims <= dims else None
            if said is not None:
                out = said if out is None else meet(out, said)
        return out


def _reduction(node: Node, b: Bounds, inner: Bounds, count: int, n: int) -> Bounds | None:
    """Bounds of a reduction of n elements `inner` of which `count` lie in b."""
    op, lo, hi = node.op, float(b.lo), float(b.hi)
    if op in ("any", "all"):
        zero = bool(b.may_zero)
        return make(1.0, 1.0) if op == "any" and not zero else make(0.0, 0.0) if op == "all" and lo == hi == 0 else None
    if op in ("softmax", "log_softmax"):
        # no row is all -inf: the largest element is finite, and its exponential 1
        sure = lo > -np.inf and not inner.may_nan.any() and bool((inner.hi < np.inf).all())
        return None if not sure else make(0.0, 1.0) if op == "softmax" else make(-np.inf, 0.0)
    if op == "amin":
        return make(-np.inf, hi, nan=True)
    if op == "count_nonzero":
        return None if bool(b.may_zero) else make(1.0, np.inf)
    if op in ("amax", "logsumexp"):
        return make(lo, np.inf, nan=True)  # log(sum(exp(x - max))) + max with a sum of at least 1: rounding keeps it at or above max
    if op == "sum" and not inner.may_nan.any() and bool((inner.lo >= 0).all()):
        lost = count * node.format.tiny if node.attrs.get("contracted") else 0.0  # products may have been rounded up before
        return make(max(lo, lo * count * (1 - 2 * n * node.format.eps) - lost), np.inf, nan=True)
    return None


def _says(b: Bounds, whole: Bounds) -> bool:
    """Whether a fact says more than the bounds of all elements."""
    return bool(b.lo <= b.hi and (b.lo > whole.lo or b.hi < whole.hi or whole.may_nan or (whole.may_zero & ~b.may_zero)))


def _scalar(b: Bounds) -> Bounds:
    return collapse(b, 0)


def _of_constant(value: np.ndarray) -> list[tuple[Dims, Bounds]]:
    """The axes along which a mask of zeros and ones has a one, or a zero, in each row."""
    if not 1 < value.size <= MOST_CONSTANTS or value.dtype.kind == "c" or not bool(((value == 0) | (value == 1)).all()):
        return []
    out: list[tuple[Dims, Bounds]] = []
    for d in range(-value.ndim, 0):
        ends = [end for end in (1, 0) if bool((value == end).any(axis=d).all()) and not bool((value == end).all())]
        out.extend((frozenset({d}), make(float(end), float(end), fraction=False)) for end in ends)
    return out
