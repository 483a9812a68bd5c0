"""What conditions say of rows: which comparisons hold somewhere in each row, and what follows where "any" of a mask is asked first.

A *literal* is a value and whether it must be nonzero or zero: conditions are brought to one form, so that `~(m == 0)`, `m > 0` and
`m.bool()` are the same statement about m.
"""

from collections.abc import Sequence
from dataclasses import dataclass

from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds, collapse, join, make
from whynan.ir.graph import Node

Dims = frozenset[int]  # negative axes of a value

TRUE, FALSE = make(1.0, 1.0, fraction=False), make(0.0, 0.0, neg_zero=False, fraction=False)
ALIKE = {"eq": TRUE, "le": TRUE, "ge": TRUE, "ne": FALSE, "lt": FALSE, "gt": FALSE}
_COUNTS = frozenset({"any", "sum", "amax", "count_nonzero"})  # zero where all elements of whole numbers from 0 on are, else not


@dataclass(frozen=True, slots=True)
class Literal:
    """Whether a vertex is not zero (or, if `nonzero` is false, whether it is)."""

    vertex: Vertex
    nonzero: bool


@dataclass(frozen=True, slots=True)
class Exists:
    """Whether along some axes (by their names in the literal's vertex) the literal holds somewhere; if `holds` is false: nowhere."""

    literal: Literal
    names: tuple[int, ...]
    holds: bool


def literal(view: View, bounds: Sequence[Bounds | None], v: Vertex) -> Literal:
    """The plain form of a condition."""
    nonzero = True
    while True:
        node = view.node(v)
        if node.op == "logical_not" or (node.op == "bitwise_not" and node.format.kind == "bool"):
            v, nonzero = view.inputs(v)[0], not nonzero
        elif node.op == "cast" and _truth(view, bounds, node):
            v = view.inputs(v)[0]
        elif (found := _compared(view, bounds, v)) is not None:
            v, nonzero = found[0], nonzero == found[1]
        else:
            return Literal(v, nonzero)


def _truth(view: View, bounds: Sequence[Bounds | None], node: Node) -> bool:
    """Whether a cast shows as a bool whether its operand is zero, or a bool as a number."""
    source = view.nodes[node.inputs[0]]
    return source.format.kind == "bool" or (node.format.kind == "bool" and _distinct(view, bounds, source.id))


def _distinct(view: View, bounds: Sequence[Bounds | None], i: int) -> bool:
    """Whether all operations agree on which elements are zero: where subnormals are flushed some take them for zero, others do not."""
    b = bounds[i]
    return not view.nodes[i].format.flush or (b is not None and bool(b.integral.all()))


def _compared(view: View, bounds: Sequence[Bounds | None], v: Vertex) -> tuple[Vertex, bool] | None:
    """x != 0 and x == 0, and other comparisons of whole numbers from 0 on that say the same."""
    op = view.op(v)
    if op not in ALIKE:
        return None
    x, c = view.inputs(v)
    value, b = view.node(c).attrs.get("value"), bounds[x[0]]
    if view.op(c) != "const" or value is None or value.size != 1 or b is None or b.may_nan.any():
        return None
    at, counts = float(value.reshape(-1)[0]), bool(b.integral.all() and (b.lo >= 0).all())
    if op in ("ne", "eq") and at == 0 and _distinct(view, bounds, x[0]):
        return x, op == "ne"
    if counts and ((op == "gt" and 0 <= at < 1) or (op == "ge" and 0 < at <= 1)):
        return x, True
    if counts and ((op == "lt" and 0 < at <= 1) or (op == "le" and 0 <= at < 1)):
        return x, False
    return None


def exists(view: View, bounds: Sequence[Bounds | None], v: Vertex) -> Exists | None:
    """What a condition says of a whole row, if it is computed by `any`, `all`, or by counting."""
    outer = literal(view, bounds, v)
    node = view.node(outer.vertex)
    found = view.reduced(outer.vertex, min([-1, *outer.vertex[1]]) - 1) if node.op in (*_COUNTS, "all") else None
    if found is None or not found[1]:
        return None
    inner = bounds[found[0][0]]
    if inner is None or inner.may_nan.any() or not _distinct(view, bounds, found[0][0]):
        return None
    if node.op not in ("any", "all") and not (bool(inner.integral.all() and (inner.lo >= 0).all()) and _counts(view, node, inner)):
        return None
    one = literal(view, bounds, found[0])
    if node.op == "all":
        return Exists(Literal(one.vertex, not one.nonzero), found[1], not outer.nonzero)
    return Exists(one, found[1], outer.nonzero)


def _counts(view: View, node: Node, inner: Bounds) -> bool:
    """Whether a reduction of integers cannot wrap around to zero."""
    terms = float(inner.hi.max(initial=0.0)) * max(1, *view.nodes[node.inputs[0]].shape) ** len(view.nodes[node.inputs[0]].shape)
    return node.format.is_float or node.op != "sum" or terms < node.format.max


def met(view: View, bounds: Sequence[Bounds | None], node: Node) -> list[tuple[Dims, Bounds]]:
    """What some element of each row of this node is, and the axes along which the rows run, from how the node compares or selects."""
    if node.op in ALIKE or node.op == "sub":
        return _diagonal(view, bounds, node)
    if node.op in ("logical_or", "bitwise_or") and node.format.kind == "bool":
        ways = view.inputs(view.root(node.id))
        return [(dims, TRUE) for guard, mask in (ways, ways[::-1]) if (dims := _empty_or_mask(view, bounds, guard, mask, len(node.shape)))]
    if node.op == "where":
        return _where_any(view, bounds, node)
    return []


def _diagonal(view: View, bounds: Sequence[Bounds | None], node: Node) -> list[tuple[Dims, Bounds]]:
    """x_i meets x_j where i is j: once in each row and in each column."""
    a, b = view.inputs(view.root(node.id))
    known, rank = bounds[a[0]], len(node.shape)
    apart = [(x, y) for x, y in zip(a[1], b[1], strict=True) if x != y] if a[0] == b[0] else []
    if len(apart) != 1 or min(apart[0]) < 0 or known is None or known.nonfinite.any():
        return []
    said = make(0.0, 0.0) if node.op == "sub" else ALIKE[node.op]
    return [(frozenset({axis - rank}), said) for axis in apart[0]]


def _empty_or_mask(view: View, bounds: Sequence[Bounds | None], guard: Vertex, mask: Vertex, rank: int) -> Dims | None:
    """The axes of `mask | ~any(mask)`: a row without a true element is all true."""
    said = exists(view, bounds, guard)
    return None if said is None or said.holds else _along(said, literal(view, bounds, mask), rank)


def _where_any(view: View, bounds: Sequence[Bounds | None], node: Node) -> list[tuple[Dims, Bounds]]:
    """`where(any(m), x, y)`: x where m holds somewhere, y elsewhere."""
    condition, first, second = view.inputs(view.root(node.id))
    said = exists(view, bounds, condition)
    if said is None:
        return []
    there, elsewhere = (first, second) if said.holds else (second, first)
    other = bounds[elsewhere[0]]
    if other is None or other.may_nan.any():
        return []
    rank = len(node.shape)
    for mask, value in _masked(view, bounds, there):
        dims = _along(said, mask, rank)
        if dims:
            return [(dims, join(collapse(value, rank), collapse(other, rank)))]
    return []


def _masked(view: View, bounds: Sequence[Bounds | None], v: Vertex) -> list[tuple[Literal, Bounds]]:
    """Literals, and the value of v where they hold: of a mask itself, and of `where(m, x, y)`."""
    own = literal(view, bounds, v)
    out = [(own, TRUE), (Literal(own.vertex, not own.nonzero), FALSE)] if view.node(v).format.kind == "bool" else []
    if view.op(v) == "where":
        condition, first, second = view.inputs(v)
        plain = literal(view, bounds, condition)
        for mask, way in ((plain, first), (Literal(plain.vertex, not plain.nonzero), second)):
            b = bounds[way[0]]
            if b is not None and not b.may_nan.any():
                out.append((mask, b))
    return out


def _along(said: Exists, mask: Literal, rank: int) -> Dims | None:
    """The axes along which "any" looked at the very mask at hand; None if it looked at another one."""
    (node, axes), (other, own) = said.literal.vertex, mask.vertex
    if node != other or said.literal.nonzero != mask.nonzero or len(axes) != len(own):
        return None
    along = [mine for its, mine in zip(axes, own, strict=True) if its in said.names]
    same = all(its == mine for its, mine in zip(axes, own, strict=True) if its not in said.names)
    if not same or not along or min(along) < 0 or len(along) != len(said.names) or len(set(own) - {-1}) != len([x for x in own if x != -1]):
        return None
    return frozenset(x - rank for x in along)
