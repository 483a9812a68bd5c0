"""What a compiler did to a loss: small constants of the source that the compiled program no longer adds.

Compilers re-associate: `1 - x + 1e-8` becomes `1 - x`. The evidence is a failing input on which the program as written is finite,
and a constant that the written program adds and the compiled one does not.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from whynan.analysis.blame import Blame
from whynan.analysis.causes import AT_EDGE
from whynan.ir.graph import SMALL, Addend, Graph

CAUSE = "epsilon-removed-by-compiler"


def may_lack_epsilon(why: Blame) -> bool:
    """Whether a failure of a compiled program is of the kind that an epsilon prevents."""
    return why.cause in AT_EDGE or bool(AT_EDGE.intersection(why.related))


def removed(compiled: Graph) -> list[Addend]:
    """The small constants that the source adds and the compiled program does not."""
    kept = set(_added(compiled))
    return [a for a in compiled.added if not any(np.isclose(a.value, value, rtol=1e-2) for value in kept)]


def blamed_on(why: Blame, lost: Addend) -> Blame:
    """The same failure with its cause: the compiler removed the epsilon."""
    where = f" in `{lost.site.text}`" if lost.site else ""
    message = (
        f"the compiler removed the {lost.value:.3g}{where}: it re-associates sums, and the program that runs adds nothing. {why.message}"
    )
    related = tuple(dict.fromkeys([why.cause, *why.related]))
    return replace(why, cause=CAUSE, related=tuple(c for c in related if c != CAUSE), message=f"{message} {why.message}")


def _added(graph: Graph) -> Iterator[float]:
    for node in graph.nodes:
        if node.op in ("add", "sub", "maximum", "fma") and node.format.is_float:
            values = (_constant(graph, i) for i in node.inputs)
            yield from (abs(v) for v in values if v is not None and 0 < abs(v) <= SMALL)


def _constant(graph: Graph, i: int) -> float | None:
    """The one number of a constant, also behind a broadcast or a cast."""
    node = graph.nodes[i]
    while node.op in ("expand", "reshape", "cast") and node.inputs:
        node = graph.nodes[node.inputs[0]]
    if node.op != "const":
        return None
    value = np.asarray(node.attrs["value"], np.float64)
    return float(value.flat[0]) if value.size == 1 else None
