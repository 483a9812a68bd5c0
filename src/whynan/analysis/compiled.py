"""What a compiler did to a loss: small constants of the source that the compiled program no longer adds.

Compilers re-associate: `1 - x + 1e-8` becomes `1 - x`. The evidence is a failing input on which the program as written is finite,
and a constant that the written program adds and the compiled one does not.
"""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from whynan.analysis.blame import Blame
from whynan.analysis.causes import AT_EDGE
from whynan.analysis.evaluate import ancestors
from whynan.ir.graph import SMALL, Addend, Graph, Node
from whynan.ir.where import Site

CAUSE = "epsilon-removed-by-compiler"


def may_lack_epsilon(why: Blame) -> bool:
    """Whether a failure of a compiled program is of the kind that an epsilon prevents."""
    return why.cause in AT_EDGE or bool(AT_EDGE.intersection(why.related))


def removed(compiled: Graph, why: Blame) -> list[Addend]:
    """The small constants that the source adds and the compiled program does not, those at the failing expression first.

    One is kept where the program adds it in the same expression, at no place that is known, or on the way to what failed.
    """
    way = ancestors(compiled, why.node)
    kept = [(value, node.site if node.id not in way else None) for node, value in _added(compiled)]
    lost = [a for a in compiled.added if not any(np.isclose(a.value, v, rtol=1e-2) and _near(a.site, site) for v, site in kept)]
    return sorted(lost, key=lambda a: why.site is None or a.site is None or not _near(a.site, why.site))


def _near(a: Site | None, b: Site | None) -> bool:
    """Whether two expressions overlap; one that is not known may be anywhere."""
    return a is None or b is None or a.overlaps(b)


def blamed_on(why: Blame, lost: Addend) -> Blame:
    """The same failure with its cause: the compiler removed the epsilon."""
    where = f" in `{lost.site.text}`" if lost.site else ""
    message = f"the compiler removed the {lost.value:.3g}{where}: it re-associates sums, and the program that runs adds nothing."
    related = tuple(dict.fromkeys([why.cause, *why.related]))
    return replace(why, cause=CAUSE, related=tuple(c for c in related if c != CAUSE), message=f"{message} {why.message}")


def _added(graph: Graph) -> Iterator[tuple[Node, float]]:
    """The additions of small constants, each with the constant."""
    for node in graph.nodes:
        if node.op in ("add", "sub", "maximum", "fma") and node.format.is_float:
            values = (_constant(graph, i) for i in node.inputs)
            yield from ((node, abs(v)) for v in values if v is not None and 0 < abs(v) <= SMALL)


def _constant(graph: Graph, i: int) -> float | None:
    """The one number of a constant, also behind a broadcast or a cast."""
    node = graph.nodes[i]
    while node.op in ("expand", "reshape", "cast") and node.inputs:
        node = graph.nodes[node.inputs[0]]
    if node.op != "const":
        return None
    value = np.asarray(node.attrs["value"], np.float64)
    return float(value.flat[0]) if value.size == 1 else None
