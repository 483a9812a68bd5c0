"""A graph run as another kernel might run it: sums in another order and accumulator, products contracted, means by the reciprocal.

What `analysis.evaluate` computes is one of the results that the bounds must hold; this is another. Choices are drawn per node; the same
operation on the same values is taken to give the same result (what a compiler may compute in two ways carries its kernel's number).
"""

from collections.abc import Callable, Mapping
from fractions import Fraction

import numpy as np

from whynan.analysis.view import View
from whynan.ir.dtype import FLOAT32, Array, Format
from whynan.ir.graph import Graph, Node, call_of
from whynan.ops._opdef import run


def evaluate_otherwise(graph: Graph, inputs: Mapping[str, Array], rng: np.random.Generator) -> dict[int, Array]:
    """The values of all nodes on many inputs at once, stacked along a leading axis."""
    count = len(next(iter(inputs.values())))
    named = {i: inputs[name] for name, i in graph.inputs.items()}
    out: dict[int, Array] = {}
    first = View(graph).representative
    for node in graph.nodes:
        if first[node.id] != node.id:
            out[node.id] = out[first[node.id]]
        elif node.id in named:
            out[node.id] = named[node.id]
        elif node.op == "const":
            out[node.id] = np.broadcast_to(node.attrs["value"], (count, *node.shape))
        else:
            out[node.id] = _run(graph, node, out, rng)
    return out


def _run(graph: Graph, node: Node, values: Mapping[int, Array], rng: np.random.Generator) -> Array:
    read = [values[i] for i in node.inputs]
    kernel = KERNELS.get(node.op) if node.format.is_float else None
    if kernel is None or (node.op == "norm" and node.attrs["ord"] != 2):
        return run(call_of(graph, node), read)
    with np.errstate(all="ignore"):
        ready = [flushed(v, graph.nodes[i].format) for v, i in zip(read, node.inputs, strict=True)]
        return flushed(kernel(graph, node, ready, values, rng).astype(node.format.numpy), node.format)


def flushed(x: Array, fmt: Format) -> Array:
    """Subnormals as zeros of their sign, where the format says so."""
    wide = x.astype(np.float64)
    return np.where(np.abs(wide) < fmt.tiny, np.copysign(0.0, wide), wide).astype(x.dtype) if fmt.flush else x


def fused(a: Array, b: Array, c: Array) -> Array:
    """a * b + c with one rounding: float64 holds the product of narrower numbers exactly, for float64 itself fractions do."""
    wide = [v.astype(np.float64) for v in np.broadcast_arrays(a, b, c)]
    plain = wide[0] * wide[1] + wide[2]
    if a.dtype != np.float64:
        return plain.astype(a.dtype)
    exact = [_fused_one(*v) for v in zip(*(v.reshape(-1).tolist() for v in (*wide, plain)), strict=True)]
    return np.array(exact).reshape(plain.shape)


def _fused_one(a: float, b: float, c: float, plain: float) -> float:
    if not np.isfinite([a, b, c]).all():
        return plain
    total = Fraction(a) * Fraction(b) + Fraction(c)
    try:
        return float(total) if total else plain
    except OverflowError:
        return np.inf if total > 0 else -np.inf


# ---------------------------------------------------------------- sums


def _folded(node: Node, terms: list[Array], rng: np.random.Generator, narrow: float = 0.5) -> Array:
    """The terms (of one value, or factors of two) added along the node's axes, in an order and an accumulator of chance.

    `narrow` is how likely a half format accumulates in itself.
    """
    fmt, axes = node.format, tuple(d for d in node.attrs["dims"])
    half = fmt.numpy.itemsize == 2
    acc = FLOAT32.numpy if half and rng.random() >= narrow else fmt.numpy
    rows = [_rows(t, axes).astype(acc) for t in terms]
    order = rng.permutation(rows[0].shape[-1])
    total, lanes = [], 1 + int(rng.integers(3))
    for lane in range(lanes):
        here = order[lane::lanes]
        if not len(here):
            continue
        parts = [[r[..., k] for r in rows] for k in here]
        part = parts[0][0] if len(rows) == 1 else flushed((parts[0][0] * parts[0][1]).astype(acc), fmt)
        for p in parts[1:]:
            part = flushed(part + p[0] if len(p) == 1 else fused(p[0], p[1], part), fmt)
        total.append(part)
    result = total[0]
    for part in total[1:]:
        result = flushed(result + part, fmt)
    return (result + 0).reshape(*terms[0].shape[: terms[0].ndim - len(node.shape)], *node.shape)


def _rows(x: Array, axes: tuple[int, ...]) -> Array:
    """The reduced axes last, as one."""
    kept = np.moveaxis(x, axes, range(-len(axes), 0))
    return kept.reshape(*kept.shape[: kept.ndim - len(axes)], -1)


def _sum(graph: Graph, node: Node, read: list[Array], values: Mapping[int, Array], rng: np.random.Generator) -> Array:
    factors = _factors(graph, node, read, values) if node.attrs.get("contracted") and rng.random() < 0.7 else None
    return _folded(node, factors or read, rng)


def _factors(graph: Graph, node: Node, read: list[Array], values: Mapping[int, Array]) -> list[Array] | None:
    product = graph.nodes[node.inputs[0]]
    if product.op != "mul":
        return None
    wide = [flushed(values[i], graph.nodes[i].format) for i in product.inputs]
    lead = wide[0].shape[0]
    full = [np.broadcast_to(v.reshape(lead, *(1,) * (len(product.shape) + 1 - v.ndim), *v.shape[1:]), read[0].shape) for v in wide]
    return full


def _mean(graph: Graph, node: Node, read: list[Array], values: Mapping[int, Array], rng: np.random.Generator) -> Array:
    narrow = 0.5 if node.attrs.get("accumulate") == "format" else 0.0  # a mean of halves is accumulated in float32 unless it says otherwise
    total, n = _folded(node, read, rng, narrow), int(np.prod([read[0].shape[d] for d in node.attrs["dims"]]))
    by = total.dtype.type(n)
    return total / by if rng.random() < 0.5 else total * flushed(np.asarray(total.dtype.type(1) / by), node.format)


def _norm(graph: Graph, node: Node, read: list[Array], values: Mapping[int, Array], rng: np.random.Generator) -> Array:
    acc = FLOAT32.numpy if node.format.numpy.itemsize == 2 else node.format.numpy
    square = flushed(read[0].astype(acc) * read[0].astype(acc), node.format)
    rows = _rows(square, node.attrs["dims"])
    total = flushed(np.cumsum(rows[..., rng.permutation(rows.shape[-1])], axis=-1)[..., -1], node.format)
    return np.sqrt(total).reshape(*read[0].shape[: read[0].ndim - len(node.shape)], *node.shape)


def _fma(graph: Graph, node: Node, read: list[Array], values: Mapping[int, Array], rng: np.random.Generator) -> Array:
    lead = read[0].shape[0]
    a, b, c = (v.reshape(lead, *(1,) * (len(node.shape) + 1 - v.ndim), *v.shape[1:]) for v in read)
    return fused(a, b, c)


def _either(graph: Graph, node: Node, read: list[Array], values: Mapping[int, Array], rng: np.random.Generator) -> Array:
    return np.broadcast_to(read[int(rng.integers(len(read)))], (len(read[0]), *node.shape))


KERNELS: dict[str, Callable[..., Array]] = {"sum": _sum, "mean": _mean, "norm": _norm, "fma": _fma, "either": _either}
