"""A softmax of a softmax: probabilities that are taken for logits."""

from collections.abc import Iterator, Mapping

import numpy as np

from whynan.analysis import meaning
from whynan.analysis.contracts.case import EDGE, PROBABILITIES, Case, feeding, finding, of_library, site_of, spread_run
from whynan.analysis.evaluate import fill
from whynan.analysis.finding import Finding
from whynan.domain.names import words_of
from whynan.ir.where import Site

_TOP = 0.7312  # sigmoid(1): neither a second sigmoid nor a second softmax of numbers in [0, 1] gives more


def normalised_twice(case: Case) -> Iterator[Finding]:
    """A probability that is taken for a logit: a softmax or sigmoid of one."""
    found = meaning.normalisers(case.view)
    made = {case.view.representative[n.node]: n for n in found}
    reported: set[Site | None] = set()
    for second in found:
        source = meaning.probability(case.view, second.scores)
        site = site_of(case, second.node)
        if site in reported or not feeding(case, source) or not _is_probability(case, source, made, second):
            continue
        finding = _squeezed(case, source, made.get(source), second)
        if finding is not None:
            reported.add(site)
            yield finding


def _is_probability(case: Case, source: int, made: Mapping[int, meaning.Normaliser], second: meaning.Normaliser) -> bool:
    first = made.get(source)
    if first is not None:
        return not first.log and first.node != second.node
    name = next((name for name, i in case.view.graph.inputs.items() if i == source), "")
    domain = case.domains.get(name)
    if domain is None or domain.kind not in ("prob", "simplex") or not second.log:
        return False  # weights and soft targets are made by plain softmax of anything; a cross-entropy takes the logarithm
    return not domain.assumed or bool({*words_of(name)} & PROBABILITIES)


def _squeezed(case: Case, source: int, first: meaning.Normaliser | None, second: meaning.Normaliser) -> Finding | None:
    """The finding, if in a real run the second function gives no more than what it can make of numbers in [0, 1]."""
    seen = spread_run(case, source)
    if seen is None:
        return None
    inputs, trace = seen
    if len(trace.graph.nodes) != len(case.view.nodes):  # another path than the recorded one
        return None
    values = fill(trace.graph, trace.values)
    before, after = values[source], values[second.node]
    run = case.patient.execute(inputs)
    if before is None or after is None or run.error or not before.size or not after.size:
        return None
    given, result = before.astype(np.float64), after.astype(np.float64)
    result = np.exp(-np.abs(result)) if second.log else result
    top = _TOP * (1 + 4 * case.view.nodes[second.node].format.eps)  # half precision rounds it up
    if not (given.min() >= 0 and given.max() <= 1 + EDGE and result.max() <= top):
        return None
    where = f"{_origin_text(case, source, first)} is a probability already (here at most {given.max():.4g})"
    return finding(
        case,
        "double-softmax",
        f"{where}, and the {second.kind} in this expression takes it for a logit: for a value of {given.max():.4g} it gives at most "
        f"{result.max():.4g}, so the loss cannot come near its minimum and its gradients are small.",
        inputs,
        run,
        op=second.kind,
        site=site_of(case, second.node),
    )


def _origin_text(case: Case, source: int, first: meaning.Normaliser | None) -> str:
    if first is None:
        return next(name for name, i in case.view.graph.inputs.items() if i == source)
    site = site_of(case, source)
    if site is None or of_library(site):
        return f"the result of the {first.kind} before it"
    return f"the {first.kind} {' '.join(site.text.split())} of line {site.line}"
