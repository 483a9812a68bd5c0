"""All outcomes of a look that depends on whole numbers only, by going through all of them.

How many pairs of labels are equal, whether a mask is empty: what is computed from a few labels or mask bits alone can be computed for
each of their combinations. Bounds cannot tell that a number of symmetric pairs is even; this can.
"""

from collections.abc import Mapping, Sequence

import numpy as np

from whynan.analysis.evaluate import ancestors, evaluate_many
from whynan.domain.interval import Bounds
from whynan.domain.spec import Domain
from whynan.errors import OpError
from whynan.ir.dtype import Array
from whynan.ir.graph import Assumption, Graph, Node

Inputs = Mapping[str, Array]

MOST_COMBINATIONS = 20_000
MOST_NUMBERS = 20_000_000  # elements of all values in one go
KINDS = frozenset({"binary", "mask", "classes", "integers", "onehot"})

# results are elements of the operands, or truths about them
CHOOSING = frozenset(
    """input const eq ne lt le gt ge logical_and logical_or logical_xor logical_not reshape permute expand slice index gather where concat
    flip diagonal as_strided as_strided_scatter slice_scatter diagonal_scatter one_hot masked_select masked_indices all any amax
    amin maximum minimum count_nonzero neg abs relu sign isnan isfinite isinf""".split()
)
_BITS = frozenset({"bitwise_and", "bitwise_or", "bitwise_xor", "bitwise_not"})
_COUNTING = frozenset({"add", "sub", "mul", "sum", "cast"})


def outcomes(
    graph: Graph, bounds: Sequence[Bounds], before: Sequence[Assumption], look: Assumption, domains: Mapping[str, Domain]
) -> dict[float, Inputs] | None:
    """Each value that is looked at on some input that takes the path so far, with the whole numbers that give it; None if not known.

    There may be more values than are possible (looks before that depend on other inputs are not regarded), never fewer.
    """
    needed = ancestors(graph, look.node)
    if not _exact(graph, bounds, needed, domains) or int(np.prod(graph.nodes[look.node].shape)) != 1:
        return None
    names = [n for n, i in graph.inputs.items() if i in needed]
    every = combinations({n: domains[n] for n in names}, MOST_COMBINATIONS)
    if every is None or not names or sum(int(np.prod(graph.nodes[i].shape)) for i in needed) * len(every[names[0]]) > MOST_NUMBERS:
        return None
    values: dict[int, Array] = {}
    try:
        for a in (*(a for a in before if _told_by(graph, bounds, a, names, domains)), look):
            fresh = sorted(ancestors(graph, a.node) - values.keys())
            values |= evaluate_many(graph, fresh, every, before=values)
            if a is look:
                break
            x = values[a.node].astype(np.float64).reshape(len(values[a.node]), -1)
            kept = ((x >= a.low) & (x <= a.high)).all(axis=1)
            every, values = {n: x[kept] for n, x in every.items()}, {i: x[kept] for i, x in values.items()}
            if not kept.any():
                return {}
    except OpError:
        return None
    found, first = np.unique(values[look.node].astype(np.float64).reshape(-1), return_index=True)
    return {float(v): {n: x[k] for n, x in every.items()} for v, k in zip(found, first, strict=True)}


def _told_by(graph: Graph, bounds: Sequence[Bounds], look: Assumption, names: Sequence[str], domains: Mapping[str, Domain]) -> bool:
    """Whether a look's outcome follows, exactly, from these inputs alone."""
    needed = ancestors(graph, look.node)
    return all(n in names for n, i in graph.inputs.items() if i in needed) and _exact(graph, bounds, needed, domains)


def _exact(graph: Graph, bounds: Sequence[Bounds], needed: set[int], domains: Mapping[str, Domain]) -> bool:
    """Whether the values are computed from whole numbers without any rounding, by operations that do the same everywhere."""
    names = {i: n for n, i in graph.inputs.items()}
    if any(i in names and domains[names[i]].value is None and domains[names[i]].kind not in KINDS for i in needed):
        return False
    return all(_rounds_not(graph, bounds, graph.nodes[i]) for i in needed)


def _rounds_not(graph: Graph, bounds: Sequence[Bounds], node: Node) -> bool:
    if node.op in CHOOSING or (node.op in _BITS and not node.format.is_float):
        return True
    if node.op not in _COUNTING:
        return False
    if node.format.kind == "bool":
        return True
    terms = int(np.prod(graph.nodes[node.inputs[0]].shape)) if node.op == "sum" else 1
    operands = [bounds[i] for i in node.inputs]
    whole = all(bool(b.integral.all()) and not b.nonfinite.any() for b in (*operands, bounds[node.id]))
    most = terms * max(float(b.magnitude.max(initial=0.0)) for b in (*operands, bounds[node.id]))
    return whole and most < (1 / node.format.eps if node.format.is_float else min(node.format.max, 2.0**53))


def combinations(domains: Mapping[str, Domain], most: int) -> dict[str, Array] | None:
    """All inputs of domains of whole numbers (`KINDS`, or constants), stacked along a new first axis; None if they are more than `most`."""
    sizes = {n: _choices(d) for n, d in domains.items()}
    total = 1
    for values, places in sizes.values():
        if places > 64 or values**places > most:
            return None
        total *= values**places
        if total > most:
            return None
    out: dict[str, Array] = {}
    number = np.arange(total)
    for name, (values, places) in sizes.items():
        digits = np.empty((total, places), np.int64)
        for k in range(places):
            digits[:, k] = number % values
            number = number // values
        out[name] = _decoded(domains[name], digits)
    return out


def _choices(d: Domain) -> tuple[int, int]:
    """How many values each of how many places can have."""
    if d.value is not None:
        return 1, 0
    if d.kind == "onehot":
        return d.shape[-1], int(np.prod(d.shape[:-1]))
    return int(d.high - d.low) + 1, int(np.prod(d.shape))


def _decoded(d: Domain, digits: np.ndarray) -> Array:
    if d.value is not None:
        return np.broadcast_to(d.value, (len(digits), *d.shape))
    made = np.eye(d.shape[-1])[digits] if d.kind == "onehot" else d.low + digits
    return made.reshape(len(digits), *d.shape).astype(d.format.numpy)
