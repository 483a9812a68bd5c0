"""One cone, many boxes: values forward from the leaves, and what is known of inner values back to them (HC4-revise).

Known beforehand are bounds of inner values that relations have tightened, and conditions that a box decides. What follows from them
goes back through the inverses on the ops' records (`ops._backward`), and across from comparisons to differences (`order`).
"""

from dataclasses import dataclass
from operator import is_

import numpy as np

from whynan.analysis.boxes import Box, count
from whynan.analysis.cones import Cone
from whynan.analysis.order import changed, compared, pairs_of
from whynan.analysis.view import Vertex, View, align
from whynan.domain.interval import Bounds, Mask, entering, meet, normalised
from whynan.ir.dtype import Format, nearest, next_down, next_up
from whynan.ops._backward import invertible, narrowed
from whynan.ops._opdef import bound

ROUNDS = 3  # forward passes at most
MOST_REVISED = 64  # boxes that are narrowed backward: of many, each is small already
MAX_DECISIONS = 6
_WHOLE = frozenset({"floor", "ceil", "round", "trunc"})


@dataclass(frozen=True, slots=True, eq=False)
class Revised:
    """The boxes with their leaves narrowed, the root's bounds in each, which elements no input in a box can give, and all values."""

    box: Box
    root: Bounds
    dead: Mask
    values: Box


class Revision:
    """A cone with what stays the same for all boxes."""

    def __init__(self, view: View, cone: Cone, known: list[Bounds | None]) -> None:
        self.view, self.cone = view, cone
        self.formats = {v: view.nodes[v[0]].format for v in (*cone.leaves, *cone.inner)}
        self.pairs = pairs_of(view, cone.inner)
        self.decisions = self._decisions()
        self.steps = tuple(v for v in cone.inner if view.op(v) in _WHOLE and v != cone.root)  # whole numbers, in the value's own format
        self.known: Box = {}
        self._all = known
        self._bounded: dict[Vertex, tuple[list[Bounds], Bounds]] = {}  # what was computed last, and from what
        self._met: dict[Vertex, tuple[Bounds, Bounds, Bounds | None]] = {}
        self._entered: dict[Vertex, tuple[Bounds, Bounds]] = {}

    def learn(self, box: Box) -> None:
        """Find the inner values of which more is known beforehand than the widest boxes give."""
        rank = len(self.view.nodes[self.cone.root[0]].shape)
        values = self._forward(box, {})
        for v in self.cone.inner:
            known = self._all[v[0]]
            if known is None or v == self.cone.root:
                continue
            laid = align(known, v[1], rank)
            met = meet(values[v], Bounds(laid.lo[None], laid.hi[None], laid.flags[None]))
            if changed(values[v], met):
                self.known[v] = met

    def _decisions(self) -> tuple[Vertex, ...]:
        """Truth values that splitting leaves does not decide: comparisons of values that are not constants, and tests of inner ones."""
        out = []
        leaves = set(self.cone.leaves)
        for v in self.cone.inner:
            if self.formats[v].kind != "bool" or v == self.cone.root:
                continue
            varying = [u for u in self.view.inputs(v) if self.view.op(u) != "const"]
            if len(varying) > 1 or any(u not in leaves for u in varying):
                out.append(v)
        return tuple(out[-MAX_DECISIONS:])

    def evaluate(self, box: Box, back: bool = True) -> Revised:
        """Values of all boxes, narrowed forward and (with `back`) backward until nothing changes, or a few rounds are done."""
        values: Box = {v: self._entering(v, box[v]) for v in self.cone.leaves}
        given = {v: box[v] for v in self.cone.inner if v in box}
        required = {**self.known, **{v: b if v not in self.known else meet(self.known[v], b) for v, b in given.items()}}
        for _ in range(ROUNDS):
            values, pending, told = self._passed(values, required)
            few = back and count(values) <= MOST_REVISED
            if not (pending and few and self._back(values, pending)) and not told:
                break
            required = {v: values[v] for v in self.cone.inner}
        narrowed_box = {v: values[v] if v in self.cone.leaves else b for v, b in box.items()}
        n = max(count(narrowed_box), values[self.cone.root].lo.shape[0])
        root = values[self.cone.root]
        dead = self._dead(values, n)
        if dead.any():
            flags = np.where(dead, 0, root.flags).astype(np.uint8)
            root = normalised(np.where(dead, np.inf, root.lo), np.where(dead, -np.inf, root.hi), flags)
        return Revised(narrowed_box, root, dead, values)

    def _forward(self, values: Box, required: Box) -> Box:
        return self._passed(values, required)[0]

    def _passed(self, leaves: Box, required: Box) -> tuple[Box, set[Vertex], bool]:
        """All values from the leaves on; those that are narrower than what their inputs alone give; whether pairs made some so."""
        values: Box = {v: leaves[v] for v in self.cone.leaves}
        pending, told = set(), set[Vertex]()
        for v in self.cone.inner:
            values[v] = self._bound(v, [values[u] for u in self.view.inputs(v)])
            if v in required and (met := self._narrower(v, values[v], required[v])) is not None:
                values[v] = met
                pending.add(v)
        for pair in self.pairs:
            more = compared(self.view, pair, values)
            values.update(more)
            told |= more.keys()
        return values, pending | told, bool(told)

    # Between passes most leaves stay as they are: what is computed from the same objects as last time is not computed again.

    def _entering(self, v: Vertex, b: Bounds) -> Bounds:
        last = self._entered.get(v)
        if last is None or last[0] is not b:
            last = self._entered[v] = b, entering(b, self.formats[v])
        return last[1]

    def _bound(self, v: Vertex, inputs: list[Bounds]) -> Bounds:
        last = self._bounded.get(v)
        if last is None or not all(map(is_, last[0], inputs)):
            last = self._bounded[v] = inputs, bound(self.view.calls[v[0]], inputs)
        return last[1]

    def _narrower(self, v: Vertex, b: Bounds, required: Bounds) -> Bounds | None:
        """What both allow; None if the first says all of it."""
        last = self._met.get(v)
        if last is None or last[0] is not b or last[1] is not required:
            met = meet(b, required, self.formats[v])
            last = self._met[v] = b, required, met if changed(b, met) else None
        return last[2]

    def _back(self, values: Box, pending: set[Vertex]) -> bool:
        """Narrow inputs of what is pending, from the root backward, in place; whether any value has changed."""
        any_change = False
        for v in reversed(self.cone.inner):
            if v not in pending or not invertible(self.view.op(v)):
                continue
            inputs = self.view.inputs(v)
            for u, b in zip(inputs, narrowed(self.view.calls[v[0]], values[v], [values[u] for u in inputs]), strict=True):
                if b is not values[u]:
                    values[u] = _own(meet(values[u], b), self.formats[u])  # the same vertex may be read twice
                    pending.add(u)
                    any_change = True
        return any_change

    def _dead(self, values: Box, n: int) -> Mask:
        """Where some value can be nothing at all."""
        shape = (n, *(1,) * len(self.view.nodes[self.cone.root[0]].shape))
        dead = np.zeros(shape, bool)
        for b in values.values():
            nothing = b.empty & ~b.may_nan
            if nothing.any():
                dead = dead | nothing
        return dead


def _own(b: Bounds, fmt: Format) -> Bounds:
    """Bounds whose ends are values of the format, moved inward: what reads the value may have a wider one."""
    if not fmt.is_float:
        return b
    lo, hi = nearest(fmt, b.lo), nearest(fmt, b.hi)
    lo, hi = np.where(lo < b.lo, next_up(fmt, lo), lo), np.where(hi > b.hi, next_down(fmt, hi), hi)
    return normalised(lo, hi, b.flags, fmt)
