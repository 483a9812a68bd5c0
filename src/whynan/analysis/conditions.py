"""What the outcome of a look at a value says of the values that it was computed from.

Python code that looks at a value takes one path for each outcome. For the inputs that take a path the outcome is known, and with it more:
where `mask.sum() == 0` is false the sum is at least 1, where `x.max() > 1` is false no element of x is larger than 1. `implied` carries the
outcomes back to the values that they say something about, as bounds that hold for all elements of a value. A fact that holds of one element
only, which is not known (`any` is true), is carried to the other reductions of the same value.
"""

from collections.abc import Iterable, Sequence

import numpy as np

from whynan.analysis.view import View
from whynan.domain.interval import ZERO, Bounds, collapse, make, meet, reshape, top
from whynan.ir.dtype import Format, next_down, next_up
from whynan.ir.graph import Assumption, Graph, Node

_REARRANGING = frozenset({"reshape", "permute", "expand"})
_JUNCTIONS = frozenset({"logical_and", "logical_or", "logical_xor", "logical_not", "bitwise_and", "bitwise_or", "bitwise_not"})
_REDUCING = frozenset({"all", "any", "sum", "amax", "amin", "count_nonzero"})
_FLIPPED = {"gt": "lt", "ge": "le"}
_NEGATED = {"lt": "ge", "le": "gt", "gt": "le", "ge": "lt", "eq": "ne", "ne": "eq"}
_COUNTED = 2.0**24  # whole numbers up to here are told apart
_MOST_MEANT = 1024  # elements of a mean that is bounded by one of them: 1 / n is no subnormal of any format

TRUE = make(1.0, 1.0, neg_zero=False, fraction=False)
FALSE = make(0.0, 0.0, neg_zero=False, fraction=False)


def deciding(graph: Graph) -> frozenset[int]:
    """The conditions, element by element, from which what Python code looked at was put together."""
    seen: set[int] = set()
    stack = [a.node for a in graph.assumptions]
    while stack:
        node = graph.nodes[stack.pop()]
        if node.id not in seen and (node.format.kind == "bool" or node.op in _REDUCING | _REARRANGING | {"cast"}):
            seen.add(node.id)
            stack += node.inputs
    return frozenset(i for i in seen if graph.nodes[i].format.kind == "bool")


def implied(view: View, bounds: Sequence[Bounds], outcomes: Iterable[Assumption]) -> dict[int, Bounds]:
    """Bounds of nodes on those inputs on which every outcome is as it is assumed, by the first node of those that compute the same.

    `bounds` hold on the whole domain, for all nodes. An interval without elements says that no input is like that.
    """
    facts = _Facts(view, bounds)
    for a in outcomes:
        if not np.isnan(a.low):
            facts.learn(a.node, make(a.low, a.high))
    facts.settle()
    return {i: _of_rank(b, len(view.nodes[i].shape)) for i, b in facts.known.items()}


def chosen_by(view: View, bounds: Sequence[Bounds | None], node: Node) -> Bounds | None:
    """What the elements that a mask selects must fulfil for the mask to be true there: in `x[x > 0]` they are positive; None if unknown.

    The bounds of what stands before the node must be known.
    """
    found = _selection(view, node)
    if found is None:
        return None
    source, mask = found
    facts = _Facts(view, bounds, size=int(np.prod(view.nodes[mask].shape)))
    facts.learn(mask, TRUE)
    facts.settle()
    while view.representative[source] not in facts.known and view.nodes[source].op == "reshape":
        source = view.nodes[source].inputs[0]
    b = facts.known.get(view.representative[source])
    return None if b is None else reshape(b, (1,) * len(node.shape))


def _selection(view: View, node: Node) -> tuple[int, int] | None:
    """The value and the mask, of equally many elements, whose true elements say which of the value's are taken."""
    if node.op == "masked_select":
        source, mask = node.inputs
    elif node.op == "index" and len(node.inputs) == 2 and len(view.nodes[node.inputs[0]].shape) == 1:
        source, places = node.inputs
        while view.nodes[places].op in ("reshape", "cast"):
            places = view.nodes[places].inputs[0]
        if view.nodes[places].op != "masked_indices":
            return None
        mask = view.nodes[places].inputs[0]
        if len(view.nodes[mask].shape) != 1:
            return None
    else:
        return None
    same = int(np.prod(view.nodes[source].shape)) == int(np.prod(view.nodes[mask].shape))
    return (source, mask) if same and view.nodes[mask].format.kind == "bool" else None


def contradictory(graph: Graph, bounds: Sequence[Bounds], nodes: Iterable[int]) -> bool:
    """Whether one of these nodes can have no value at all."""
    return any(bool((bounds[i].empty & ~bounds[i].may_nan).any()) for i in nodes if 0 not in graph.nodes[i].shape)


def _of_rank(b: Bounds, rank: int) -> Bounds:
    return reshape(b, (1,) * rank)


class _Facts:
    """What is known so far: bounds that hold for each element of a value, without dimensions.

    With a `size` they hold for the elements at some places only, the same ones in all values of that size: what would move elements, or
    speaks of other values, says nothing.
    """

    def __init__(self, view: View, bounds: Sequence[Bounds | None], size: int | None = None) -> None:
        self.view, self.nodes, self.bounds, self.size = view, view.nodes, bounds, size
        self.known: dict[int, Bounds] = {}
        self._queue: list[int] = []
        self._some: set[int] = set()  # whole numbers from 0 on, of which some element is at least 1

    def now(self, i: int) -> Bounds:
        """What holds for each element of a node."""
        i = self.view.representative[i]
        b = self.bounds[i]
        return self.known[i] if i in self.known else top(self.nodes[i].format) if b is None else collapse(b, 0)

    def learn(self, i: int, fact: Bounds) -> None:
        """Each element of the node lies within the fact."""
        i = self.view.representative[i]
        node, before = self.nodes[i], self.now(i)
        if 0 in node.shape or (self.size is not None and int(np.prod(node.shape)) != self.size):
            return
        if before.integral:
            fact = Bounds(np.ceil(fact.lo), np.floor(fact.hi), fact.flags)
        after = _seen(meet(before, fact, node.format), node.format)
        if after.lo == before.lo and after.hi == before.hi and after.flags == before.flags:
            return
        self.known[i] = after
        self._queue.append(i)

    def settle(self) -> None:
        """Carry everything back as far as it goes."""
        while self._queue:
            while self._queue:
                i = self._queue.pop()
                self._back(self.nodes[i], self.known[i])
            self._elsewhere()

    # ------------------------------------------------------------ from a result to its operands

    def _back(self, node: Node, b: Bounds) -> None:
        if not node.inputs:
            return
        x, op = node.inputs[0], node.op
        if op in _REARRANGING:
            if self.size is None or op == "reshape":
                self.learn(x, b)
        elif op == "cast":
            self._uncast(node, x, b)
        elif op in _NEGATED:
            self._compared(node, b)
        elif op in _JUNCTIONS and node.format.kind == "bool":
            self._joined(node, b)
        elif op in ("isnan", "isfinite", "isinf"):
            self._tested(node, x, b)
        elif op in ("neg", "abs", "relu", "maximum", "minimum"):
            self._simple(node, x, b)
        elif (op in _REDUCING or op == "mean") and self.size is None:
            self._reduced(node, x, b)

    def _truth(self, i: int, value: bool) -> None:
        """Each element of the node, a bool or a number taken for one, is true or false."""
        if self.nodes[i].format.kind == "bool":
            self.learn(i, TRUE if value else FALSE)
        elif value:
            self.learn(i, make(-np.inf, np.inf, nan=True, pos_zero=False, neg_zero=False))
        else:
            self.learn(i, make(0.0, 0.0))

    def _uncast(self, node: Node, x: int, b: Bounds) -> None:
        source, target = self.nodes[x].format, node.format
        if target.kind == "bool":
            self._decided(x, b)
        elif source.is_float:
            if target.is_float and target.eps <= source.eps and target.max >= source.max and target.smallest <= source.smallest:
                self.learn(x, b)
        elif self.now(x).magnitude < 2 / target.eps if target.is_float else self._fits(x, target):
            self.learn(x, Bounds(b.lo, b.hi, np.asarray(b.flags | ZERO if b.may_zero else b.flags, np.uint8)))

    def _fits(self, i: int, fmt: Format, *, negated: bool = False) -> bool:
        """Whether each element of the node, a whole number (or its opposite), is a value of the format, so that nothing wraps around."""
        b = self.now(i)
        lo, hi = (-b.hi, -b.lo) if negated else (b.lo, b.hi)
        least = -fmt.max - 1 if fmt.numpy.kind == "i" else 0.0
        return bool(least <= lo and hi <= fmt.max)

    def _decided(self, x: int, b: Bounds) -> None:
        if b.lo == 1:
            self._truth(x, True)
        elif b.hi == 0:
            self._truth(x, False)

    def _joined(self, node: Node, b: Bounds) -> None:
        if not (b.lo == 1 or b.hi == 0):
            return
        value, op = bool(b.lo == 1), node.op
        if op.endswith("_not"):
            self._truth(node.inputs[0], not value)
        elif op.endswith("_xor"):
            return
        elif value == op.endswith("_and"):  # all true, or all false
            for i in node.inputs:
                self._truth(i, value)
        else:
            for i, other in (node.inputs, node.inputs[::-1]):
                if self._is(other, not value):
                    self._truth(i, value)

    def _is(self, i: int, value: bool) -> bool:
        b = self.now(i)
        return self.nodes[i].format.kind == "bool" and bool(b.lo == 1 if value else b.hi == 0)

    def _tested(self, node: Node, x: int, b: Bounds) -> None:
        limit = self.nodes[x].format.max if self.nodes[x].format.is_float else np.inf
        if node.op == "isnan" and b.hi == 0:
            self.learn(x, make(-np.inf, np.inf))
        elif node.op == "isfinite" and b.lo == 1:
            self.learn(x, make(-limit, limit))
        elif node.op == "isinf" and b.hi == 0:
            self.learn(x, make(-limit, limit, nan=True))

    def _simple(self, node: Node, x: int, b: Bounds) -> None:
        if node.op in ("neg", "abs") and not node.format.is_float and not self._fits(x, node.format, negated=True):
            return
        if node.op == "neg":
            self.learn(x, make(-b.hi, -b.lo, nan=b.may_nan))
        elif node.op == "abs":
            zero = bool(b.may_zero)
            self.learn(x, make(-b.hi, b.hi, nan=b.may_nan, pos_zero=zero, neg_zero=zero))
        elif node.op == "relu":
            self.learn(x, make(-np.inf if b.lo <= 0 else b.lo, b.hi, nan=b.may_nan))
        elif not (b.may_nan and any(self.now(i).may_nan for i in node.inputs)):
            for i in node.inputs:
                up = node.op == "maximum"
                self.learn(i, make(-np.inf if up else b.lo, b.hi if up else np.inf, nan=True))

    def _reduced(self, node: Node, x: int, b: Bounds) -> None:
        inner, op, alone = self.now(x), node.op, self.nodes[x].shape == node.shape
        if op in ("all", "any"):
            if (op == "all" and b.lo == 1) or (op == "any" and b.hi == 0) or alone:
                self._decided(x, b)
        elif op in ("amax", "amin"):
            if not (inner.may_nan and b.may_nan):  # a NaN says nothing of the other elements
                self.learn(x, make(-np.inf if op == "amax" else b.lo, b.hi if op == "amax" else np.inf, nan=True))
        elif op == "sum" and inner.lo >= 0 and not inner.may_nan and not self._wraps(node, inner):
            self.learn(x, make(0.0, b.hi))  # no term is larger than the sum: rounding is monotone
        if op in ("any", "sum", "amax", "count_nonzero", "mean") and b.lo > 0:
            self._remember(x)
        terms = int(np.prod(self.nodes[x].shape)) / max(int(np.prod(node.shape)), 1)
        most = float(terms) if op in ("sum", "count_nonzero") else 1.0
        exact = most < (2 / node.format.eps if node.format.is_float else node.format.max)
        if op in ("all", "sum", "amin", "count_nonzero") and b.hi < most and (exact or op in ("all", "amin")):
            self._remember_false(x)

    def _wraps(self, node: Node, terms: Bounds) -> bool:
        """Whether a sum of integers may exceed its format."""
        most = float(terms.hi) * float(np.prod(self.nodes[node.inputs[0]].shape))
        return not node.format.is_float and not most < node.format.max

    # ------------------------------------------------------------ comparisons

    def _compared(self, node: Node, b: Bounds) -> None:
        if not (b.lo == 1 or b.hi == 0):
            return
        (u, v), holds = node.inputs, bool(b.lo == 1)
        op = node.op if holds else _NEGATED[node.op]
        if op in _FLIPPED:
            u, v, op = v, u, _FLIPPED[op]
        if self.nodes[u].format.name != self.nodes[v].format.name:
            return
        ordered = (holds and node.op != "ne") or (node.op == "ne" and not holds)  # a comparison that is true excludes NaN
        if ordered:
            for i in (u, v):
                self.learn(i, make(-np.inf, np.inf))
        if op == "eq":
            self._equal(u, v)
        elif op == "ne":
            self._unequal(u, v)
            self._unequal(v, u)
        else:
            self._below(u, v, strict=op == "lt")

    def _equal(self, u: int, v: int) -> None:
        for i, other in ((u, v), (v, u)):
            b = self.now(other)
            self.learn(i, Bounds(b.lo, b.hi, np.asarray(b.flags | ZERO if b.may_zero else b.flags, np.uint8)))

    def _unequal(self, i: int, other: int) -> None:
        at, b = self.now(other), self.now(i)
        if at.may_nan or at.lo != at.hi:
            return
        point = float(at.lo)
        if point == 0:
            self.learn(i, make(-np.inf, np.inf, nan=True, pos_zero=False, neg_zero=False))
        elif b.lo == point:
            self.learn(i, make(self._beyond(i, point, 1), np.inf, nan=True))
        elif b.hi == point:
            self.learn(i, make(-np.inf, self._beyond(i, point, -1), nan=True))

    def _below(self, u: int, v: int, *, strict: bool) -> None:
        """u < v, or u <= v, unless one of the two is NaN."""
        a, b = self.now(u), self.now(v)
        if not (a.may_nan or b.may_nan):
            self._difference(v, u, strict=strict)
        if not b.may_nan:
            self.learn(u, make(-np.inf, self._beyond(u, float(b.hi), -1) if strict else b.hi, nan=True))
        if not a.may_nan:
            self.learn(v, make(self._beyond(v, float(a.lo), 1) if strict else a.lo, np.inf, nan=True))

    def _difference(self, larger: int, smaller: int, *, strict: bool) -> None:
        """What stands for larger - smaller is not negative, and not zero where that is gradual underflow's to say."""
        rep = self.view.representative
        pair = rep[larger], rep[smaller]
        for node in self.nodes:
            if node.op == "sub" and tuple(rep[i] for i in node.inputs) in (pair, pair[::-1]) and self._alike(node):
                sign = 1 if rep[node.inputs[0]] == pair[0] else -1
                zero = not strict or node.format.flush
                ends = (0.0, np.inf) if sign > 0 else (-np.inf, 0.0)
                self.learn(node.id, make(*ends, nan=True, pos_zero=zero, neg_zero=zero))

    def _alike(self, node: Node) -> bool:
        """Whether a difference of floats has the format of what it is the difference of."""
        return node.format.is_float and all(self.nodes[i].format.name == node.format.name for i in node.inputs)

    def _beyond(self, i: int, x: float, step: int) -> float:
        """The next value of the node above or below x."""
        if not self.nodes[i].format.is_float or (self.now(i).integral and abs(x) < _COUNTED):
            return float(np.floor(x) + 1 if step > 0 else np.ceil(x) - 1)
        fmt = self.nodes[i].format
        if x == step * np.inf:
            return x
        return float(next_up(fmt, x) if step > 0 else next_down(fmt, x))

    # ------------------------------------------------------------ some element, not known which

    def _remember(self, x: int) -> None:
        base = self._base(x)
        if base is not None:
            self._some.add(base)

    def _remember_false(self, x: int) -> None:
        """Some element of a mask is false: of what is its opposite, one is true."""
        base = self._base(x)
        if base is None or self.nodes[base].format.kind != "bool":
            return
        for node in self.nodes:
            if node.op in ("logical_not", "bitwise_not") and node.format.kind == "bool" and self._base(node.inputs[0]) == base:
                self._some.add(self.view.representative[node.id])

    def _base(self, i: int) -> int | None:
        """The whole numbers from 0 on that a node shows, rearranged, in another format or as truth; None if it shows none."""
        while True:
            i = self.view.representative[i]
            node = self.nodes[i]
            through = node.op in _REARRANGING or (
                node.op == "cast" and (node.format.kind == "bool" or self.nodes[node.inputs[0]].format.kind == "bool")
            )
            if not through:
                break
            below = self.now(node.inputs[0])
            if not (below.integral and below.lo >= 0 and not below.may_nan):
                break
            i = node.inputs[0]
        b = self.now(i)
        return self.view.representative[i] if b.integral and b.lo >= 0 and not b.may_nan else None

    def _elsewhere(self) -> None:
        """Other reductions of a value of which some element is at least 1: a maximum, a sum, a count are so, too."""
        if not self._some:
            return
        for node in self.nodes:
            if node.op not in ("any", "sum", "amax", "count_nonzero", "mean") or self.view.representative[node.id] != node.id:
                continue
            source = self.nodes[node.inputs[0]]
            inner = self.now(node.inputs[0])
            size = float(np.prod(source.shape))
            if int(np.prod(node.shape)) != 1 or not inner.lo >= 0 or inner.may_nan or self._wraps(node, inner):
                continue
            if self._base(node.inputs[0]) in self._some and (node.op != "mean" or 0 < size <= _MOST_MEANT):
                least = 1.0 if node.op != "mean" else (1 - 16 * node.format.eps) / size
                self.learn(node.id, make(least, np.inf))


def _seen(b: Bounds, fmt: Format) -> Bounds:
    """Where subnormals are flushed none of them is seen: an end among them that excludes zero is the smallest normal number."""
    if not (fmt.is_float and fmt.flush):
        return b
    lo, hi = np.where((b.lo > 0) & (b.lo < fmt.tiny), fmt.tiny, b.lo), np.where((b.hi < 0) & (b.hi > -fmt.tiny), -fmt.tiny, b.hi)
    return Bounds(np.asarray(lo), np.asarray(hi), b.flags)
