"""Weights below zero."""

from collections.abc import Iterator

import numpy as np

from whynan.analysis import meaning
from whynan.analysis.contracts.case import EDGE, MOST_RUNS, Case, finding, number, number_of, range_text, site_of, tried
from whynan.analysis.evaluate import finite
from whynan.analysis.finding import Finding
from whynan.analysis.search import Inputs
from whynan.domain.spec import Domain
from whynan.ir.frontend import Run


def weights(case: Case) -> Iterator[Finding]:
    """Targets of a cross-entropy, t * log(p) + (1 - t) * log(1 - p), outside [0, 1]: the loss falls below zero without end."""
    names = {i: name for name, i in case.view.graph.inputs.items()}
    for value, node in meaning.mixing_weights(case.view).items():
        domain = case.domains.get(names.get(value, ""))
        if domain is None or domain.assumed or (domain.low >= 0 and domain.high <= 1):
            continue
        found = _below_zero(case, names[value], domain)
        if found is None:
            continue
        inputs, run = found
        what = f"the loss raises {run.error.rstrip('.')}" if run.error else f"the loss, otherwise never negative, is {number(run.loss)}"
        yield finding(
            case,
            "target-out-of-range",
            f"{names[value]} weighs the logarithms of a probability and of its complement, which needs numbers between 0 and 1, but may be "
            f"{range_text(domain.low, domain.high)}: on this input {what}.",
            inputs,
            run,
            op=case.view.nodes[node].op,
            site=site_of(case, node),
            sure=bool(run.error),
        )


def _below_zero(case: Case, name: str, domain: Domain) -> tuple[Inputs, Run] | None:
    """The run with the lowest, negative loss, or one that raises; None if the same happens with targets in [0, 1] as well."""
    candidates = tried(case)
    few = candidates[:: max(1, len(candidates) // MOST_RUNS)]
    inside = [{**c, name: np.clip(c[name].astype(np.float64), 0, 1).astype(c[name].dtype)} for c in few]
    if any(r.error or number_of(r.loss) < -EDGE for r in map(case.patient.execute, inside)):
        return None
    outside = [c for c in candidates if c[name].size and not ((c[name] >= 0) & (c[name] <= 1)).all()]
    runs = [(c, case.patient.execute(c)) for c in outside]
    refused = next(((c, r) for c, r in runs if r.error), None)
    low = [(c, r) for c, r in runs if not r.error and finite(r.loss) and number_of(r.loss) < -EDGE]
    return min(low, key=lambda pair: number_of(pair[1].loss), default=None) or refused
