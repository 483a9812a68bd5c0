"""What values of a graph stand for, read off the operations around them: probabilities, scores, class numbers.

No name of a function or an argument is looked at: a sigmoid is one however the framework or the user wrote it.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from whynan.analysis.view import View
from whynan.ir.graph import FORWARD, Node

SAME = frozenset({"reshape", "permute", "expand", "cast", "either"})  # the same elements, elsewhere or computed in one of several ways
PARTS = SAME | {"slice", "flip", "roll", "gather", "take_flat", "index"}  # some of the same elements
LOGS = frozenset({"log", "log2", "log10"})
LOGARITHMIC = LOGS | {"log1p", "logsigmoid", "log_softmax", "softplus", "logaddexp"}
CUTS = frozenset({"eq", "ne", "lt", "le", "gt", "ge", "argmax", "argmin", "sort_indices", "topk_indices", "count_nonzero", "isfinite"})
STEPS = frozenset({"floor", "ceil", "round", "trunc", "sign", "heaviside"})
SMALL = 0.05  # an epsilon is not larger


# ---------------------------------------------------------------- walking backward


def origin(view: View, i: int, through: frozenset[str] = SAME) -> int:
    """The value that a node shows rearranged, converted, or with other `through` operations, part of."""
    while True:
        node = view.nodes[i]
        if through is PARTS and (chosen := _guarded(view, node)) is not None:
            i = chosen
        elif node.op not in through or not node.inputs or (node.op == "cast" and _truncates(view, node)):
            return view.representative[i]
        else:
            i = _plain(view, node)


def _plain(view: View, node: Node) -> int:
    """What a rearranging node shows; of several ways to compute something, the one without contracted operations."""
    if node.op != "either":
        return node.inputs[0]
    return next((i for i in node.inputs if view.nodes[i].op != "fma"), node.inputs[0])


def _guarded(view: View, node: Node) -> int | None:
    """x where the node is x but for elements that a library sets apart: NaN for an index out of range, or a NaN that is passed on."""
    if node.op != "where":
        return None
    if view.nodes[node.inputs[2]].op == "const" and np.isnan(scalar(view, node.inputs[2]) or 0.0):
        return node.inputs[1]
    test = view.nodes[node.inputs[0]]
    return node.inputs[2] if test.op == "ne" and test.inputs[0] == test.inputs[1] else None


def _truncates(view: View, node: Node) -> bool:
    return view.nodes[node.inputs[0]].format.is_float and not node.format.is_float


def scalar(view: View, i: int) -> float | None:
    """The number that a node is everywhere, if it is a constant of one value."""
    node = view.nodes[origin(view, i)]
    if node.op != "const" or node.attrs["value"].size != 1:
        return None
    return float(node.attrs["value"].reshape(-1)[0])


def limits(view: View, node: Node) -> tuple[int, float, float] | None:
    """The operand of a clamp, a minimum, a maximum or a relu and the interval it is held in; None for any other node."""
    if node.op == "clamp":
        low, high = node.attrs.get("low"), node.attrs.get("high")
        return node.inputs[0], -np.inf if low is None else float(low), np.inf if high is None else float(high)
    if node.op == "relu":
        return node.inputs[0], 0.0, np.inf
    if node.op in ("minimum", "maximum"):
        for operand, other in (node.inputs, node.inputs[::-1]):
            edge = scalar(view, other)
            if edge is not None:
                return (operand, edge, np.inf) if node.op == "maximum" else (operand, -np.inf, edge)
    return None


def negated(view: View, i: int) -> int | None:
    """x where the node is -x, however that is written."""
    node = view.nodes[origin(view, i)]
    if node.op == "neg":
        return node.inputs[0]
    if node.op == "sub" and scalar(view, node.inputs[0]) == 0:
        return node.inputs[1]
    if node.op == "mul":
        return next((a for a, b in (node.inputs, node.inputs[::-1]) if scalar(view, b) == -1), None)
    return None


def complement(view: View, i: int) -> int | None:
    """x where the node is 1 - x, or x - 1."""
    node = view.nodes[origin(view, i)]
    if node.op == "sub":
        return next((a for a, b in (node.inputs, node.inputs[::-1]) if _about_one(view, b)), None)
    if node.op == "add":
        found = [negated(view, a) for a, b in (node.inputs, node.inputs[::-1]) if _about_one(view, b)]
        found += [a for a, b in (node.inputs, node.inputs[::-1]) if scalar(view, b) == -1]
        return next((x for x in found if x is not None), None)
    return None


def _about_one(view: View, i: int) -> bool:
    one = scalar(view, i)
    return one is not None and abs(one - 1) <= SMALL


def depends(view: View, i: int) -> frozenset[str]:
    """The names of the inputs that a node is computed from."""
    names = {node: name for name, node in view.graph.inputs.items()}
    seen, stack = {i}, [i]
    while stack:
        for j in view.nodes[stack.pop()].inputs:
            if j not in seen:
                seen.add(j)
                stack.append(j)
    return frozenset(names[j] for j in seen if j in names)


# ---------------------------------------------------------------- logarithms of probabilities


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
        elif (other := complement(view, i)) is not None and node.op == "sub" and _about_one(view, node.inputs[0]):
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


# ---------------------------------------------------------------- softmax and sigmoid


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


# ---------------------------------------------------------------- class numbers


@dataclass(frozen=True, slots=True)
class Lookup:
    """A place where the elements of the input `name` are taken for class numbers 0 ... count - 1."""

    node: int
    name: str
    count: int


def lookups(view: View) -> Iterator[Lookup]:
    """Where an input's elements, as they are or clamped, choose among the elements of an axis or become one-hot rows."""
    names = {node: name for name, node in view.graph.inputs.items()}
    for node in view.nodes:
        if node.phase != FORWARD or not view.live[node.id]:
            continue
        for index, count in _indices(view, node):
            name = names.get(_label(view, index))
            if name is not None and count > 1:
                yield Lookup(node.id, name, count)


def _indices(view: View, node: Node) -> list[tuple[int, int]]:
    """The indices that a node reads, each with the number of elements to choose from."""
    if node.op == "gather":
        return [(node.inputs[1], view.nodes[node.inputs[0]].shape[node.attrs["dim"]])]
    if node.op == "index":
        shape = view.nodes[node.inputs[0]].shape
        return [(i, shape[axis]) for i, axis in zip(node.inputs[1:], node.attrs["axes"], strict=False)]
    if node.op == "one_hot":
        return [(node.inputs[0], int(node.attrs["classes"]))]
    if node.op == "where" and np.isnan(scalar(view, node.inputs[2]) or 0.0):
        return _checked_range(view, node.inputs[0])
    if node.op == "eq":
        pairs = (node.inputs, node.inputs[::-1])
        return [(a, len(v)) for a, b in pairs if (v := _numbered(view, b)) is not None]
    return []


def _checked_range(view: View, condition: int) -> list[tuple[int, int]]:
    """The one whole-numbered input that a condition says lies in 0 ... n-1, with n: how JAX's indexing gives NaN for others."""
    names, found, stack = depends(view, condition), [], [condition]
    for i in stack:
        node = view.nodes[i]
        if node.op == "le" and (last := scalar(view, node.inputs[1])) is not None:
            found.append(int(last) + 1)
        elif node.op in ("logical_and", "reshape", "expand", "all"):
            stack += node.inputs
    if len(names) != 1 or not found:
        return []
    index = view.graph.inputs[next(iter(names))]
    return [] if view.nodes[index].format.is_float else [(index, max(found))]


def _numbered(view: View, i: int) -> np.ndarray | None:
    """0 ... n-1 if the constant counts so, in any layout."""
    node = view.nodes[origin(view, i)]
    if node.op != "const" or node.attrs["value"].size < 2:
        return None
    values = np.unique(node.attrs["value"].astype(np.float64))
    return values if np.array_equal(values, np.arange(len(values))) else None


def _label(view: View, i: int) -> int:
    while True:
        i = origin(view, i, SAME | {"slice"})
        held = limits(view, view.nodes[i])
        if held is None:
            return i
        i = held[0]


def sentinels(view: View, name: str) -> frozenset[float] | None:
    """The values of an input that the program treats apart (an ignore_index), or None if it compares the input by size."""
    label = view.graph.inputs[name]
    found: set[float] = set()
    for node in view.nodes:
        if node.op not in ("eq", "ne", "lt", "le", "gt", "ge") or not view.live[node.id]:
            continue
        for a, b in (node.inputs, node.inputs[::-1]):
            number = scalar(view, b)
            if number is None or _label(view, a) != label:
                continue
            if node.op not in ("eq", "ne"):
                return None
            found.add(number)
    return frozenset(found)


# ---------------------------------------------------------------- cross-entropy targets


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
