"""What is taken for a probability: what logarithms are taken of, and what these are mixed by."""

from dataclasses import dataclass

import numpy as np

from whynan.analysis.meaning.softmax import normalisers, unshifted
from whynan.analysis.meaning.walk import LOGARITHMIC, LOGS, PARTS, SMALL, about_one, complement, limits, negated, origin, scalar
from whynan.analysis.view import View
from whynan.ir.graph import FORWARD, Node


@dataclass(frozen=True, slots=True)
class Use:
    """One logarithm of `value`, or of 1 - `value` (`inverse`), which on the way is held in [low, high] by the node `clamp` (-1: none)."""

    value: int
    inverse: bool
    low: float
    high: float
    clamp: int
    log: int


def probability_uses(view: View) -> dict[int, list[Use]]:
    """The values that are taken for probabilities, each with its logarithms.

    These are values of which both log(x) and log(1 - x) are taken, and those whose logarithm is taken between eps and 1 - eps.
    """
    uses: dict[int, list[Use]] = {}
    for node in view.nodes:
        if node.phase == FORWARD and view.live[node.id] and (found := _use(view, node)) is not None:
            uses.setdefault(found.value, []).append(found)
    return {value: found for value, found in uses.items() if len({u.inverse for u in found}) == 2 or any(map(_between, found))}


def _between(use: Use) -> bool:
    """Whether the value is held between eps and 1 - eps."""
    eps = 1 - use.high
    return 0 < use.low <= SMALL and 0 < eps <= SMALL and eps <= 2 * use.low + 1e-6 and use.low <= 2 * eps + 1e-6


def _use(view: View, node: Node) -> Use | None:
    if node.op in LOGS:
        return _traced(view, node.inputs[0], False, node.id)
    if node.op == "xlogy":
        return _traced(view, node.inputs[1], False, node.id)
    if node.op in ("log1p", "xlog1py"):
        inner = negated(view, node.inputs[-1])
        return None if inner is None else _traced(view, inner, True, node.id)
    return None


def _traced(view: View, i: int, inverse: bool, log: int) -> Use:
    low, high, clamp = -np.inf, np.inf, -1
    while True:
        i = origin(view, i, PARTS)
        node = view.nodes[i]
        if (held := limits(view, node)) is not None:
            i, *ends = held
            least, most = (1 - ends[1], 1 - ends[0]) if inverse else ends
            low, high, clamp = max(low, least), min(high, most), node.id
        elif (other := complement(view, i)) is not None and node.op == "sub" and about_one(view, node.inputs[0]):
            i, inverse = other, not inverse
        elif (inner := _without_epsilon(view, node)) is not None or (inner := _share(view, node)) is not None:
            i = inner
        else:
            return Use(i, inverse, low, high, clamp, log)


def _without_epsilon(view: View, node: Node) -> int | None:
    """x where the node is x + eps."""
    if node.op != "add":
        return None
    found = ((a, scalar(view, b)) for a, b in (node.inputs, node.inputs[::-1]))
    return next((a for a, eps in found if eps is not None and abs(eps) <= SMALL), None)


def _share(view: View, node: Node) -> int | None:
    """x where the node is x / sum(x), unless x are exponentials: scores that are divided by their sum are no probabilities yet."""
    if node.op != "div":
        return None
    x, total = origin(view, node.inputs[0]), view.nodes[origin(view, node.inputs[1])]
    same = total.op == "sum" and origin(view, total.inputs[0]) == x
    return x if same and view.nodes[x].op != "exp" else None


def mixing_weights(view: View) -> dict[int, int]:
    """Values t that weigh logarithms as in t * log(a) + (1 - t) * log(b), each with a node that multiplies by it.

    With a loss that takes logits x, (1 - t) * x counts as well, as does x * t beside log1p(exp(-|x|)).
    """
    scores = {unshifted(view, n.scores) for n in normalisers(view) if n.kind == "sigmoid" and n.log}
    plain: dict[int, int] = {}
    inverse: dict[int, int] = {}
    logits: dict[int, int] = {}
    for node in view.nodes:
        if node.op not in ("mul", "xlogy", "xlog1py") or node.phase != FORWARD or not view.live[node.id]:
            continue
        for a, b in (node.inputs, node.inputs[::-1]):
            if a == b:
                continue
            t, other = origin(view, a), complement(view, a)
            by_score = unshifted(view, b) in scores
            if node.op != "mul" or _logarithmic(view, b):
                (plain if other is None else inverse).setdefault(t if other is None else origin(view, other), node.id)
            elif by_score:
                logits.setdefault(t if other is None else origin(view, other), node.id)
    return {**{t: n for t, n in plain.items() if t in inverse}, **logits}


def _logarithmic(view: View, i: int) -> bool:
    """Whether a value is a logarithm, with its sign changed or limited."""
    for _ in range(8):
        i = origin(view, i, PARTS)
        node = view.nodes[i]
        opposite, held = negated(view, i), limits(view, node)
        if opposite is not None:
            i = opposite
        elif held is not None:
            i = held[0]
        else:
            return node.op in LOGARITHMIC or (node.op == "add" and any(view.nodes[origin(view, j)].op == "log1p" for j in node.inputs))
    return False
