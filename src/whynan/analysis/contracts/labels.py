"""Class numbers out of range."""

from collections.abc import Iterator

import numpy as np

from whynan.analysis import meaning
from whynan.analysis.contracts.case import Case, finding, number
from whynan.analysis.evaluate import finite
from whynan.analysis.finding import ERROR, Finding
from whynan.domain import sample

WHOLE = ("classes", "integers")


def labels(case: Case) -> Iterator[Finding]:
    """Class numbers of the domain that the loss has no class for."""
    reported: set[str] = set()
    for lookup in meaning.lookups(case.view):
        domain = case.domains[lookup.name]
        apart = meaning.sentinels(case.view, lookup.name)
        if lookup.name in reported or domain.assumed or domain.kind not in WHOLE:
            continue
        strange = [v for v in (domain.high, domain.low) if not 0 <= v < lookup.count and v not in (apart or ())]
        found = next((f for v in strange if (f := _label_finding(case, lookup, v)) is not None), None)
        if found is not None and (apart is not None or found.severity == ERROR):  # labels that are compared by size may be masked
            reported.add(lookup.name)
            yield found


def _label_finding(case: Case, lookup: meaning.Lookup, strange: float) -> Finding | None:
    """What the real function does with one label out of range, against the same input with all labels in range."""
    rng = np.random.default_rng(case.patient.settings.seed)
    inputs = {n: sample.ordinary(d, rng) for n, d in case.domains.items()}
    labels = np.clip(inputs[lookup.name].astype(np.int64), 0, lookup.count - 1)
    bad = labels.copy()
    bad.reshape(-1)[:1] = int(strange)
    name, dtype = lookup.name, inputs[lookup.name].dtype
    good, inputs = {**inputs, name: labels.astype(dtype)}, {**inputs, name: bad.astype(dtype)}
    domain = case.domains[name]
    if case.patient.execute(good).error or not sample.contains(domain, inputs[name]):
        return None
    run = case.patient.execute(inputs)
    where = f"{name} may be {strange:g}, but this expression has {lookup.count} classes, 0 to {lookup.count - 1}"
    node = case.view.nodes[lookup.node]
    if run.error:
        done, sure = f"the loss raises {run.error.rstrip('.')}", True
    elif not finite(run.loss):
        done, sure = f"the loss is {number(run.loss)} there", True
    else:
        nearest = {**inputs, name: np.clip(bad, 0, lookup.count - 1).astype(dtype)}
        same = np.array_equal(case.patient.execute(nearest).loss, run.loss)
        taken = f"silently takes it for {int(np.clip(strange, 0, lookup.count - 1))}"
        done = f"the loss {taken if same else 'is finite and wrong there'}"
        sure = False
    return finding(case, "target-out-of-range", f"{where}: {done}.", inputs, run, op=node.op, site=node.site, sure=sure)
