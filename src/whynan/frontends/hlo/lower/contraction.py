"""Products that a compiler may add to something without rounding them first.

Within one kernel LLVM may turn `a*b + c` into one fused multiply-add, also where the product is negated, moved or chosen on the
way; whether it does is not written in HLO. The graph then holds `either` the fused sum or the rounded one, the likelier first.
"""

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from whynan.frontends.hlo.lower._table import Kernel, known
from whynan.frontends.kit import Value, apply, where

Factors = tuple[Value, Value]

MOVES = frozenset({"reshape", "expand", "permute", "slice", "flip", "concat", "pad", "unfold", "slice_scatter"})
PICKS = frozenset({"index", "take_flat", "gather"})  # moves by computed positions, which are their other inputs
DEEPEST = 8  # steps between a product and its sum that are looked at


def sum_of(kernel: Kernel, terms: Sequence[Value], plus: bool) -> Value:
    """The sum or difference of two terms, contracted with a product where the kernel may do so."""
    a, b = terms
    plain = apply("add" if plus else "sub", a, b)
    if not kernel.fused or not a.format.is_float or a.format.name == "bfloat16":
        return plain
    ways = [plain]
    if (factors := unrounded(kernel, b)) is not None:
        ways.insert(0 if _direct(b) else 1, _fma(factors[0] if plus else -factors[0], factors[1], a))
    if (factors := unrounded(kernel, a)) is not None:
        ways.insert(0 if _direct(a) else 1, _fma(factors[0], factors[1], b if plus else -b))
    return plain if len(ways) == 1 else ways[0].add("either", *ways[1:], kernel=kernel.number)


def _direct(x: Value) -> bool:
    """Whether nothing but a sign stands between x and the product: LLVM then does contract, the left one of two."""
    node = x.builder.nodes[x.id]
    while node.op in ("neg", "reshape", "expand", "permute"):
        node = x.builder.nodes[node.inputs[0]]
    return node.op in ("mul", "square")


def _fma(a: Value, b: Value, c: Value) -> Value:
    return a.add("fma", b, c, shape=np.broadcast_shapes(a.shape, b.shape, c.shape))


def has_product(kernel: Kernel, x: Value) -> bool:
    """Whether the terms of a sum are products that may be added unrounded."""
    return kernel.fused and _product(kernel, x, DEEPEST) is not None


def unrounded(kernel: Kernel, x: Value) -> Factors | None:
    """Two values of x's shape whose exact product x is the rounding of, if x is such a product computed in this kernel."""
    found = _product(kernel, x, DEEPEST)
    return found() if found is not None else None


def _product(kernel: Kernel, x: Value, depth: int) -> Callable[[], Factors] | None:
    """How to get the two factors; nothing is added to the graph unless it is called."""
    node = x.builder.nodes[x.id]
    if node.id < kernel.first or depth == 0:
        return None
    inputs = [Value(x.builder, i) for i in node.inputs]
    if node.op in ("mul", "square"):
        a, b = inputs[0], inputs[-1]
        return None if _exact(a) or _exact(b) else lambda: (a.expand(x.shape), b.expand(x.shape))
    if node.op == "neg":
        inner = _product(kernel, inputs[0], depth - 1)
        return None if inner is None else lambda: _negated(inner())
    if node.op == "where":
        return _chosen(kernel, inputs, x, depth)
    if node.op in MOVES | PICKS:
        return _moved(kernel, inputs, x, depth)
    return None


def _negated(factors: Factors) -> Factors:
    return -factors[0], factors[1]


def _chosen(kernel: Kernel, inputs: list[Value], x: Value, depth: int) -> Callable[[], Factors] | None:
    condition, *branches = inputs
    found = [_product(kernel, b, depth - 1) for b in branches]
    if found == [None, None]:
        return None

    def factors() -> Factors:
        (a, b), (c, d) = (_or_itself(f, v) for f, v in zip(found, branches, strict=True))
        return where(condition, a, c).expand(x.shape), where(condition, b, d).expand(x.shape)

    return factors


def _moved(kernel: Kernel, inputs: list[Value], x: Value, depth: int) -> Callable[[], Factors] | None:
    """The same rearrangement of both factors; padding multiplies by 1."""
    node = x.builder.nodes[x.id]
    data, positions = (inputs[:1], inputs[1:]) if node.op in PICKS else (inputs, [])
    found = [_product(kernel, i, depth - 1) for i in data]
    if all(f is None for f in found):
        return None

    def moved(parts: list[Value], **attrs: Any) -> Value:
        return parts[0].add(node.op, *parts[1:], *positions, shape=x.shape, **{**node.attrs, **attrs})

    def factors() -> Factors:
        pairs = [_or_itself(f, v) for f, v in zip(found, data, strict=True)]
        one = {"value": 1.0} if node.op == "pad" else {}
        return moved([a for a, _ in pairs]), moved([b for _, b in pairs], **one)

    return factors


def _or_itself(found: Callable[[], Factors] | None, x: Value) -> Factors:
    return found() if found is not None else (x, x.const(1.0).expand(x.shape))


def _exact(x: Value) -> bool:
    """Whether a product with x needs no rounding: x is a constant power of two, or 0."""
    value = known(x)
    if value is None:
        return False
    wide = np.asarray(value, np.float64)
    return bool(np.all((np.abs(np.frexp(wide)[0]) == 0.5) | (wide == 0)))
