"""A NaN that is replaced afterwards."""

from collections.abc import Iterator

import numpy as np

from whynan.analysis import meaning
from whynan.analysis.contracts.case import MOST_RUNS, Case, finding, listed, number, tried, values_on
from whynan.analysis.evaluate import finite
from whynan.analysis.finding import Finding
from whynan.analysis.search import Inputs
from whynan.analysis.view import View
from whynan.ir.frontend import Run
from whynan.ir.graph import FORWARD, Node

_TESTS = frozenset({"isnan", "isinf", "isfinite"})


def hidden(case: Case) -> Iterator[Finding]:
    """A value that can be non-finite and is replaced: what comes out looks right, its gradient is NaN or gone."""
    for node in case.view.nodes:
        if node.phase != FORWARD or not case.view.live[node.id]:
            continue
        value = _repaired(case.view, node)
        if value is None or case.view.nodes[value].op in ("input", "amax", "amin") or not case.proof.bounds[value].nonfinite.any():
            continue
        found = _repaired_run(case, value)
        if found is not None:
            inputs, run = found
            yield finding(case, "nan-hidden-after-the-fact", _hidden_text(case, run), inputs, run, op=node.op, site=node.site)


def _repaired(view: View, node: Node) -> int | None:
    """The value whose NaN or infinity the node replaces."""
    if node.op == "nan_to_num":
        return meaning.origin(view, node.inputs[0])
    if node.op != "where":
        return None
    tested = _tested(view, node.inputs[0])
    chosen = {meaning.origin(view, i) for i in node.inputs[1:]}
    return tested if tested in chosen else None


def _tested(view: View, i: int) -> int | None:
    """x where the condition says whether x is finite (or NaN)."""
    for _ in range(6):
        node = view.nodes[meaning.origin(view, i)]
        if node.op in _TESTS:
            return meaning.origin(view, node.inputs[0])
        if node.op in ("ne", "eq"):
            a, b = (meaning.origin(view, j) for j in node.inputs)
            return a if a == b else None
        if node.op not in ("logical_not", "logical_or", "logical_and", "any", "all") or not node.inputs:
            return None
        i = node.inputs[0]
    return None


def _repaired_run(case: Case, value: int) -> tuple[Inputs, Run] | None:
    """A run in which the value is not finite although the loss is."""
    candidates = [*case.failing, *tried(case)]
    seen = values_on(case, value, candidates)
    if seen is None:
        return None
    for k in np.flatnonzero(~np.isfinite(seen).all(axis=1))[:MOST_RUNS]:
        run = case.patient.execute(candidates[k])
        if not run.error and finite(run.loss):
            return candidates[k], run
    return None


def _hidden_text(case: Case, run: Run) -> str:
    bad = [name for name, g in run.gradients.items() if not finite(g)]
    gone = [name for name, g in run.gradients.items() if g.size and not g.astype(np.float64).any()]
    what = f"a NaN or an infinity is replaced here after it arose: on this input the loss looks fine, {number(run.loss)}"
    if bad:
        return f"{what}, but the gradient by {listed(bad)} is not finite."
    lost = f"the gradient by {listed(gone)} is exactly 0" if gone else "the replaced elements have no gradient"
    return f"{what}, and {lost}: nothing is learned from it and nothing shows it."
