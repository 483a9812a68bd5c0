"""Gradients that go missing where a value is put in the place of a failure, or that are not the loss's derivative."""

from collections.abc import Iterator

import numpy as np

from whynan.analysis.blame import PLUMBING
from whynan.analysis.finding import Finding
from whynan.analysis.health.patient import Patient, warning
from whynan.analysis.search import Inputs, Seen
from whynan.domain import sample
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import FORWARD, Graph


def detached_by_placeholder(patient: Patient, detached: Seen | None) -> Iterator[Finding]:
    """A run in which a gradient was missing that other runs have: a value was put in the place of a failure."""
    if detached is None:
        return
    given = ", ".join(detached.run.gradients) or "none"
    yield warning(
        patient,
        kind="contract",
        cause="gradient-detached",
        op="",
        site=None,
        message="on this input the loss is finite but comes back cut off from its inputs: gradients that other inputs have are missing "
        f"(given: {given}). A value put in its place hides the failure and stops the training signal.",
        witness=patient.witness(detached.inputs, detached.run),
    )


def disagreeing(patient: Patient, trace: Trace) -> Iterator[Finding]:
    """Compare a hand-written derivative with central differences in float64 at a few ordinary points."""
    if not trace.graph.handwritten or _changes_only_the_gradient(trace.graph):
        return
    rng = np.random.default_rng(patient.settings.seed)
    off = [d for d in (_disagreement(patient, rng) for _ in range(4)) if d is not None]
    steps = all(d[4] == 0 for d in off)  # a loss of steps, given a slope on purpose (straight-through)
    if len(off) >= 3 and min(d[0] for d in off) > 1e-2 and not steps:
        _, inputs, result, analytic, numeric = max(off, key=lambda d: d[0])
        yield warning(
            patient,
            kind="contract",
            cause="custom-gradient-wrong",
            op="custom",
            site=trace.graph.handwritten[0],
            message=f"the hand-written backward gives a slope of {analytic:.6g} where central differences in float64 give {numeric:.6g}.",
            witness=patient.witness(inputs, result),
        )


def _changes_only_the_gradient(graph: Graph) -> bool:
    """Whether the hand-written functions compute nothing forward: to reverse, scale or clip a gradient is what they are for."""
    functions = {site.function for site in graph.handwritten}
    if not all(f.rpartition(".")[2] == "forward" for f in functions):  # the expression that calls it, which says nothing of what is inside
        return False
    inside = (n for n in graph.nodes if n.phase == FORWARD and n.site is not None and n.site.function in functions)
    return all(n.op in PLUMBING or n.op == "input" for n in inside)


def _disagreement(patient: Patient, rng: np.random.Generator) -> tuple[float, Inputs, Run, float, float] | None:
    """At one ordinary point along one direction: relative difference between the gradient and central differences, and both slopes."""
    inputs = {n: sample.ordinary(d, rng) for n, d in patient.domains.items()}
    wide = {n: v.astype(np.float64) if patient.domains[n].format.is_float else v for n, v in inputs.items()}
    names = [n for n, d in patient.domains.items() if d.grad]
    direction = {n: rng.normal(size=wide[n].shape) for n in names}
    here = patient.execute(wide)
    step = 1e-6
    up = patient.execute({**wide, **{n: wide[n] + step * direction[n] for n in names}})
    down = patient.execute({**wide, **{n: wide[n] - step * direction[n] for n in names}})
    if here.error or up.error or down.error:
        return None
    analytic = sum(float((g.astype(np.float64) * direction[n]).sum()) for n, g in here.gradients.items())
    numeric = float((up.loss.astype(np.float64).sum() - down.loss.astype(np.float64).sum()) / (2 * step))
    if not (np.isfinite(analytic) and np.isfinite(numeric)):
        return None
    scale = max(abs(analytic), abs(numeric), 1e-6)
    return abs(analytic - numeric) / scale, inputs, patient.execute(inputs), analytic, numeric
