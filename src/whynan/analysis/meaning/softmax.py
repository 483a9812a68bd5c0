"""Softmax and sigmoid, however they are written."""

from collections.abc import Mapping
from dataclasses import dataclass

import numpy as np

from whynan.analysis.meaning.walk import PARTS, SMALL, limits, negated, origin, scalar
from whynan.analysis.view import View
from whynan.ir.graph import FORWARD, Node


@dataclass(frozen=True, slots=True)
class Normaliser:
    """A softmax or sigmoid: the node of its result, that of its scores, and whether the result is its logarithm."""

    node: int
    scores: int
    kind: str  # "softmax", "sigmoid"
    log: bool


_NAMED = {"softmax": ("softmax", False), "log_softmax": ("softmax", True), "sigmoid": ("sigmoid", False), "logsigmoid": ("sigmoid", True)}


def normalisers(view: View) -> list[Normaliser]:
    """Every softmax and sigmoid of the forward pass, whole or spelt out, in order of execution."""
    found: dict[int, Normaliser] = {}
    for node in view.nodes:
        if node.phase == FORWARD and view.live[node.id] and node.inputs and node.format.is_float:
            made = _normaliser(view, node, found)
            if made is not None:
                found[view.representative[node.id]] = made
    return list(found.values())


def _normaliser(view: View, node: Node, known: Mapping[int, Normaliser]) -> Normaliser | None:
    if node.op in _NAMED:
        return Normaliser(node.id, node.inputs[0], *_NAMED[node.op])
    if node.op in ("softplus", "logaddexp"):
        scores = _softplus(view, node)
        return None if scores is None else Normaliser(node.id, scores, "sigmoid", True)
    if node.op in ("div", "reciprocal"):
        return _quotient(view, node)
    if node.op == "mul":
        return _product(view, node)
    if node.op == "log1p":
        scores = _log_logistic(view, node)
        return None if scores is None else Normaliser(node.id, scores, "sigmoid", True)
    if node.op == "sub":
        scores = _minus_logsumexp(view, node)
        return None if scores is None else Normaliser(node.id, scores, "softmax", True)
    if node.op == "exp":  # the exponential of a log_softmax
        inner = known.get(origin(view, node.inputs[0]))
        return Normaliser(node.id, inner.scores, inner.kind, False) if inner is not None and inner.log and _is_log(view, inner) else None
    return None


def _is_log(view: View, found: Normaliser) -> bool:
    """Whether a logarithmic normaliser is log(softmax) or log(sigmoid) itself, not one of its terms."""
    return view.nodes[found.node].op in ("log_softmax", "logsigmoid", "sub")


def _softplus(view: View, node: Node) -> int | None:
    """x where the node is log(1 + exp(x)) or log(1 + exp(-x))."""
    if node.op == "logaddexp":
        inner = next((a for a, b in (node.inputs, node.inputs[::-1]) if scalar(view, b) == 0), None)
    else:
        inner = node.inputs[0]
    if inner is None:
        return None
    opposite = negated(view, inner)
    return inner if opposite is None else opposite


def _log_logistic(view: View, node: Node) -> int | None:
    """x where the node is log1p(exp(-|x|)), the term of a binary cross-entropy that takes logits."""
    inner = view.nodes[origin(view, node.inputs[0])]
    x = _of_minus_size(view, inner.inputs[0]) if inner.op == "exp" else None
    if x is None:
        return None
    less = view.nodes[origin(view, x)]  # logaddexp(x, 0) goes by |x - 0|
    if less.op == "sub" and scalar(view, less.inputs[1]) == 0:
        return less.inputs[0]
    opposite = negated(view, x)
    return x if opposite is None else opposite


def _of_minus_size(view: View, i: int) -> int | None:
    """x where the node is -|x|, or chooses -x where x is positive and x elsewhere."""
    opposite = negated(view, i)
    if opposite is not None:
        size = view.nodes[origin(view, opposite)]
        return size.inputs[0] if size.op == "abs" else None
    node = view.nodes[origin(view, i)]
    if node.op != "where":
        return None
    test, (_, positive, negative) = view.nodes[origin(view, node.inputs[0])], node.inputs
    flipped = negated(view, positive)
    if flipped is None or test.op not in ("ge", "gt") or scalar(view, test.inputs[1]) != 0:
        return None
    same = origin(view, flipped) == origin(view, negative) == origin(view, test.inputs[0])
    return negative if same else None


def _quotient(view: View, node: Node) -> Normaliser | None:
    if node.op == "div":
        top, total = view.nodes[origin(view, node.inputs[0])], view.nodes[origin(view, node.inputs[1])]
        if top.op == "exp" and total.op == "sum" and origin(view, total.inputs[0]) == view.representative[top.id]:
            return Normaliser(node.id, unshifted(view, top.inputs[0]), "softmax", False)
        if scalar(view, node.inputs[0]) != 1:
            return None
    below = view.nodes[origin(view, node.inputs[-1])]
    if below.op != "add":
        return None
    for a, b in (below.inputs, below.inputs[::-1]):
        power = view.nodes[origin(view, a)]
        inner = negated(view, power.inputs[0]) if power.op == "exp" and scalar(view, b) == 1 else None
        if inner is not None:
            return Normaliser(node.id, inner, "sigmoid", False)
    return None


def _product(view: View, node: Node) -> Normaliser | None:
    """exp(z) * (1 / sum(exp(z))), as compilers divide a whole row by its sum."""
    for a, b in (node.inputs, node.inputs[::-1]):
        top, share = view.nodes[origin(view, a)], view.nodes[origin(view, b)]
        inverse = share.op == "reciprocal" or (share.op == "div" and scalar(view, share.inputs[0]) == 1)
        total = view.nodes[origin(view, share.inputs[-1])] if inverse else share
        if top.op == "exp" and inverse and total.op == "sum" and origin(view, total.inputs[0]) == view.representative[top.id]:
            return Normaliser(node.id, unshifted(view, top.inputs[0]), "softmax", False)
    return None


def _minus_logsumexp(view: View, node: Node) -> int | None:
    """z where the node is z - logsumexp(z), or its opposite, for all or some elements of z, shifted or not."""
    for scores, total in (node.inputs, node.inputs[::-1]):
        summed = _logsumexp(view, total)
        if summed is not None and unshifted(view, scores) == unshifted(view, summed):
            return unshifted(view, summed)
    return None


def _logsumexp(view: View, i: int) -> int | None:
    """z where the node is logsumexp(z) (up to a shift), None otherwise."""
    node = view.nodes[origin(view, i)]
    if node.op == "logsumexp":
        return node.inputs[0]
    if node.op == "add":  # log(sum(exp(z - m))) + m
        return next((z for a in node.inputs if (z := _logsumexp(view, a)) is not None), None)
    if node.op != "log":
        return None
    total = view.nodes[origin(view, node.inputs[0])]
    total = view.nodes[origin(view, total.inputs[0])] if total.op == "abs" else total
    power = view.nodes[origin(view, total.inputs[0])] if total.op == "sum" else total
    return power.inputs[0] if total.op == "sum" and power.op == "exp" else None


def unshifted(view: View, i: int) -> int:
    """z where the node is z - max(z) or part of it; else the value itself that the node shows."""
    i = origin(view, i, PARTS)
    node = view.nodes[i]
    if node.op == "sub":
        z, most = origin(view, node.inputs[0], PARTS), view.nodes[_finite_part(view, node.inputs[1])]
        if most.op == "amax" and origin(view, most.inputs[0], PARTS) == z:
            return z
    return i


def _finite_part(view: View, i: int) -> int:
    """The value behind `where(isfinite(m), m, 0)` and `maximum(m, -inf)`, the guards of a maximum; else the value itself."""
    for _ in range(4):
        i = origin(view, i)
        node = view.nodes[i]
        if node.op == "where" and scalar(view, node.inputs[2]) == 0:
            i = node.inputs[1]
        elif node.op == "maximum" and (held := limits(view, node)) is not None and held[1] == -np.inf:
            i = held[0]
        else:
            break
    return i


def probability(view: View, i: int) -> int:
    """The value behind one that is rearranged, cut out, or clamped into [0, 1]."""
    while True:
        i = origin(view, i, PARTS)
        held = limits(view, view.nodes[i])
        if held is None or not (held[1] == -np.inf or 0 <= held[1] <= SMALL) or not (held[2] == np.inf or 1 - SMALL <= held[2] <= 1):
            return i
        i = held[0]
