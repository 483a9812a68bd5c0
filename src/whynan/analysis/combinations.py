"""Case by case: each combination of the whole numbers that a few inputs can hold, where what the code does hangs on these.

Losses of pairs and triplets pick rows by their labels: how many pairs there are, and which, follows from the labels alone. Four labels of
two classes are sixteen cases, each a program without looks, or with few. If all are proven, every input of the domain is.
"""

from collections.abc import Mapping

from whynan.analysis.discrete import KINDS, combinations
from whynan.analysis.evaluate import ancestors
from whynan.domain.spec import Domain, const
from whynan.ir.dtype import Array
from whynan.ir.graph import Assumption, Graph

MOST_CASES = 64


def cases_of(graph: Graph, look: Assumption, domains: Mapping[str, Domain]) -> list[dict[str, Domain]]:
    """The domains of each case: the inputs of whole numbers that the look depends on are constants there. No cases if they are too many."""
    needed = ancestors(graph, look.node)
    names = [n for n, i in graph.inputs.items() if i in needed and domains[n].value is None and domains[n].kind in KINDS]
    every = combinations({n: domains[n] for n in names}, MOST_CASES) if names else None
    if every is None:
        return []
    return [{**domains, **{n: _fixed(domains[n], every[n][k]) for n in names}} for k in range(len(every[names[0]]))]


def _fixed(d: Domain, value: Array) -> Domain:
    return const(value).but(grad=d.grad, assumed=d.assumed, grad_given=d.grad_given)


def fixed_in(case: Mapping[str, Domain], domains: Mapping[str, Domain]) -> dict[str, Array]:
    """The values that a case gives to inputs which are no constants on the whole domain."""
    return {n: d.value for n, d in case.items() if d.value is not None and domains[n].value is None}
