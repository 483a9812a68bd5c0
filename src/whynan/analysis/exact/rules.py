"""How elements are followed, by operation; here those of operations that only move elements."""

from math import prod

import numpy as np

from whynan.analysis.exact import arithmetic, functions
from whynan.analysis.exact.elements import FIRST, Elements, Rules, Value
from whynan.analysis.view import Vertex
from whynan.ir.graph import Node
from whynan.ops._opdef import OPS

MOVED_BY_VALUES = frozenset({"sort_values", "topk_values", "kth", "gather", "index", "take_flat", "masked_select", "max_pool"})


def _slice(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    shape = elements.view.nodes[node.inputs[0]].shape
    d, rank = node.attrs["dim"] % len(node.shape), len(node.shape)
    place = vertex[1][d]
    k = 0 if node.shape[d] == 1 else place - FIRST
    if len(shape) != rank or k < 0:
        return None
    start = node.attrs.get("start", 0)
    at = (start + shape[d] if start < 0 else start) + k * node.attrs.get("step", 1)
    return elements.of((node.inputs[0], (*vertex[1][:d], FIRST + at if shape[d] > 1 else -1, *vertex[1][d + 1 :])))


def _concat(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    d = node.attrs["dim"] % len(node.shape)
    k = vertex[1][d] - FIRST
    if k < 0:
        return None
    for i in node.inputs:
        n = elements.view.nodes[i].shape[d]
        if k < n:
            return elements.of((i, (*vertex[1][:d], FIRST + k if n > 1 else -1, *vertex[1][d + 1 :])))
        k -= n
    return None


def _moved(elements: Elements, vertex: Vertex, node: Node) -> Value | None:
    """An operation that only moves elements: where does this one come from?"""
    op = OPS.get(node.op)
    if op is None or not op.moves or len(node.inputs) != 1 or node.op in MOVED_BY_VALUES:
        return None
    if any(a < FIRST for a, n in zip(vertex[1], node.shape, strict=True) if n > 1):
        return None
    shape = elements.view.nodes[node.inputs[0]].shape
    if node.id not in elements.moves:
        numbers = np.arange(prod(shape), dtype=np.int64).reshape(shape)
        elements.moves[node.id] = np.asarray(op.evaluate(elements.view.calls[node.id], numbers)).reshape(node.shape)
    flat = elements.moves[node.id][tuple(max(a - FIRST, 0) for a in vertex[1])]
    places = np.unravel_index(int(flat), shape)
    return elements.of((node.inputs[0], tuple(FIRST + int(k) if n > 1 else -1 for k, n in zip(places, shape, strict=True))))


RULES: Rules = {
    **{name: _moved for name, op in OPS.items() if op.moves and name not in MOVED_BY_VALUES},
    "add": arithmetic.of_add,
    "sub": arithmetic.of_add,
    "neg": arithmetic.of_neg,
    "cast": arithmetic.of_cast,
    "mul": arithmetic.of_mul,
    "square": arithmetic.of_mul,
    "fma": arithmetic.of_fma,
    "either": arithmetic.of_either,
    "pow": arithmetic.of_pow,
    "div": arithmetic.of_div,
    "reciprocal": arithmetic.of_div,
    "exp": functions.of_exp,
    "log": functions.of_log,
    "log1p": functions.of_log,
    "logsumexp": functions.of_logsumexp,
    "logaddexp": functions.of_logsumexp,
    "softplus": functions.of_logsumexp,
    "logsigmoid": functions.of_logsumexp,
    "log_softmax": functions.of_softmax,
    "softmax": functions.of_softmax,
    "sigmoid": functions.of_sigmoid,
    "amax": arithmetic.of_largest,
    "amin": arithmetic.of_largest,
    "maximum": arithmetic.of_largest,
    "minimum": arithmetic.of_largest,
    "abs": arithmetic.of_largest,
    "relu": arithmetic.of_largest,
    "clamp": arithmetic.of_clamp,
    "sqrt": functions.of_sqrt,
    "norm": functions.of_norm,
    "sin": functions.of_wave,
    "cos": functions.of_wave,
    "sum": arithmetic.of_sum,
    "mean": arithmetic.of_sum,
    "prod": arithmetic.of_prod,
    "cumsum": arithmetic.of_cumsum,
    "cumprod": arithmetic.of_cumprod,
    "matmul": arithmetic.of_matmul,
    "slice": _slice,
    "concat": _concat,
}
