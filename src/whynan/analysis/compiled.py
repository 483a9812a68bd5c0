"""What a compiler did to a loss: small constants of the source that the compiled program no longer adds.

Compilers re-associate: `1 - x + 1e-8` becomes `1 - x`. The evidence is a failing input on which the program as written is finite,
and a constant that the written program adds and the compiled one does not.
"""

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np

from whynan.analysis.blame import Blame
from whynan.analysis.causes import AT_EDGE
from whynan.ir.graph import Graph
from whynan.ir.where import Site

CAUSE = "epsilon-removed-by-compiler"
_SMALL = 1e-3


@dataclass(frozen=True, slots=True)
class Epsilon:
    """A small constant that a program adds, and where."""

    value: float
    site: Site | None


def may_lack_epsilon(why: Blame) -> bool:
    """Whether a failure of a compiled program is of the kind that an epsilon prevents."""
    return why.cause in AT_EDGE or bool(AT_EDGE.intersection(why.related))


def removed(written: Graph, compiled: Graph) -> list[Epsilon]:
    """The small constants that the written program adds and the compiled one does not."""
    kept = {e.value for e in _added(compiled)}
    return [e for e in _added(written) if e.value not in kept]


def blamed_on(why: Blame, lost: Epsilon) -> Blame:
    """The same failure with its cause: the compiler removed the epsilon."""
    where = f" in `{lost.site.text}`" if lost.site else ""
    message = (
        f"the compiler removed the {lost.value:.3g}{where}: it re-associates sums, and the program that runs adds nothing. {why.message}"
    )
    related = tuple(dict.fromkeys([why.cause, *why.related]))
    return replace(why, cause=CAUSE, related=tuple(c for c in related if c != CAUSE), message=f"{message} {why.message}")


def _added(graph: Graph) -> Iterator[Epsilon]:
    for node in graph.nodes:
        if node.op not in ("add", "sub", "maximum") or not node.format.is_float:
            continue
        for i in node.inputs:
            value = _constant(graph, i)
            if value is not None and 0 < abs(value) <= _SMALL:
                yield Epsilon(abs(value), node.site)


def _constant(graph: Graph, i: int) -> float | None:
    """The one number of a constant, also behind a broadcast or a cast."""
    node = graph.nodes[i]
    while node.op in ("expand", "reshape", "cast") and node.inputs:
        node = graph.nodes[node.inputs[0]]
    if node.op != "const":
        return None
    value = np.asarray(node.attrs["value"], np.float64)
    return float(value.flat[0]) if value.size == 1 else None
