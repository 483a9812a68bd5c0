"""Products and quotients of products and quotients, taken apart: what stands above and below the line cancels.

The gradient of log(a / b + tiny) is (1 / (a / b + tiny)) / b: step by step as large as 1 / tiny times 1 / b, but at most 1 / a.
"""

from collections.abc import Iterable, Iterator
from math import inf
from typing import NamedTuple

from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds, make
from whynan.ir.dtype import FLOAT64
from whynan.ir.graph import Node

MOST_FACTORS = 12
MOST_STEPS = 12  # operations that are taken apart
MOST_WAYS = 8  # choices of what stands for the divisors
ROUNDING = 2.0  # units of one operation, with room for terms of second order

_SIGNS = {"mul": (1, 1), "div": (1, -1), "neg": (1,), "square": (2,), "reciprocal": (-1,)}


class _Product(NamedTuple):
    """Powers of values, the operations that they were taken out of, and the coarsest unit of these."""

    powers: dict[Vertex, int]
    steps: int
    eps: float


def product_bound(view: View, bounds: list[Bounds | None], node: Node) -> Bounds | None:
    """Limits of a product or a quotient from its factors' factors; None for other nodes, and where its factors are none themselves.

    Only values that are finite and clear of underflow are taken apart: each is its exact product but for one relative rounding, and what it
    was divided by is a number other than zero.
    """
    if node.op not in ("mul", "div") or not node.format.is_float or "ulps" in node.attrs:
        return None
    root = view.root(node.id)
    first = _with({}, _parts(view, root))
    if len(first) < 2:
        return None
    limit = inf
    for powers, steps, eps in _ways(view, bounds, _Product(first, 0, node.format.eps)):
        limit = min(limit, _largest(bounds, powers) * (1 + ROUNDING * (steps + 1) * eps) if steps else inf)
    limit += node.format.tiny  # what underflows is not rounded relatively
    return make(-limit, limit, nan=True) if limit < node.format.max / 2 else None


def _ways(view: View, bounds: list[Bounds | None], first: _Product) -> Iterator[_Product]:
    """The factors' factors; where a divisor is at least something positive, with that in its place, too."""
    todo = [first]
    for _ in range(MOST_WAYS):
        if not todo:
            return
        found = _apart(view, bounds, todo.pop(0))
        yield found
        smaller = ((v, k, less) for v, k in found.powers.items() if k < 0 for less in _below(view, bounds, v))
        todo += [found._replace(powers=_with(_without(found.powers, v), [(less, k)])) for v, k, less in smaller]


def _apart(view: View, bounds: list[Bounds | None], product: _Product) -> _Product:
    for _ in range(MOST_STEPS):
        able = (v for v in product.powers if _parts(view, v) and _clear(view, bounds, v))
        v = next(able, None)
        if v is None or len(product.powers) > MOST_FACTORS:
            break
        k = product.powers[v]
        powers = _with(_without(product.powers, v), [(u, k * n) for u, n in _parts(view, v)])
        product = _Product(powers, product.steps + abs(k), max(product.eps, view.node(v).format.eps))
    return product


def _parts(view: View, v: Vertex) -> list[tuple[Vertex, int]]:
    """The factors of a value with their powers; none of one that is no product."""
    node = view.node(v)
    signs = _SIGNS.get(node.op, ()) if node.format.is_float and "ulps" not in node.attrs else ()
    return list(zip(view.inputs(v), signs, strict=True)) if signs else []


def _clear(view: View, bounds: list[Bounds | None], v: Vertex) -> bool:
    """Whether a value is a finite number that is neither zero nor subnormal."""
    b = bounds[v[0]]
    return b is not None and not b.nonfinite.any() and _least(b) >= view.node(v).format.tiny


def _below(view: View, bounds: list[Bounds | None], v: Vertex) -> list[Vertex]:
    """Positive numbers that a value is at least, as computed: rounding is monotone."""
    op, attrs = view.op(v), view.node(v).attrs
    if op not in ("add", "maximum", "clamp") or attrs.get("high") is not None or attrs.get("alpha", 1) != 1:
        return []
    inputs = view.inputs(v)
    found = []
    for u in inputs:
        b = bounds[u[0]]
        if b is None or not _clear(view, bounds, u) or not float(b.lo.min()) > 0:
            continue
        others = [bounds[w[0]] for w in inputs if w is not u] if op == "add" else []
        if all(c is not None and not c.nonfinite.any() and float(c.lo.min()) >= 0 for c in others):
            found.append(u)
    return found


def _with(powers: dict[Vertex, int], parts: Iterable[tuple[Vertex, int]]) -> dict[Vertex, int]:
    out = dict(powers)
    for v, k in parts:
        out[v] = out.get(v, 0) + k
    return {v: k for v, k in out.items() if k}


def _without(powers: dict[Vertex, int], v: Vertex) -> dict[Vertex, int]:
    return {u: k for u, k in powers.items() if u != v}


def _least(b: Bounds) -> float:
    """The smallest magnitude."""
    return max(float(b.lo.min(initial=inf)), -float(b.hi.max(initial=-inf)), 0.0)


def _largest(bounds: list[Bounds | None], powers: dict[Vertex, int]) -> float:
    """The largest magnitude of a product. What falls below float64's numbers on the way counts as its smallest normal one."""
    out = 1.0
    for v, k in powers.items():
        b = bounds[v[0]]
        if b is None or b.may_nan.any():
            return inf
        size, least = float(b.magnitude.max(initial=0.0)), _least(b)
        for _ in range(abs(k)):
            out = max(out * size, FLOAT64.tiny) if k > 0 else max(out / least, FLOAT64.tiny) if least else inf
    return out if out == out else inf
