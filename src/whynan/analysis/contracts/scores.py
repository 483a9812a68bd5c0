"""Scores taken for probabilities: a logarithm, or a cross-entropy, of what nothing keeps between 0 and 1."""

from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np

from whynan.analysis import meaning
from whynan.analysis.contracts.case import (
    CORNERS,
    EDGE,
    Case,
    feeding,
    finding,
    listed,
    number,
    number_of,
    of_library,
    range_text,
    site_of,
    tried,
    values_on,
    zero_by,
)
from whynan.analysis.evaluate import finite
from whynan.analysis.finding import Finding
from whynan.analysis.search import Inputs
from whynan.domain.spec import Domain
from whynan.ir.frontend import Run
from whynan.ir.graph import Node
from whynan.ir.where import Site

FAR = 0.5  # how far outside [0, 1] leaves no doubt

# operations whose result is a score: nothing in them keeps it between 0 and 1
SCORES = frozenset({"input", "matmul", "conv", "add", "sub", "mul", "neg", "relu", "tanh", "elu", "gelu", "silu", "mean", "where", "fma"})


def scores_as_probabilities(case: Case) -> Iterator[Finding]:
    """A value that is clamped between eps and 1 - eps for its logarithms, but reaches outside [0, 1]: no gradient there."""
    reported: set[Site | None] = set()
    for value, uses in meaning.probability_uses(case.view).items():
        node, bounds = case.view.nodes[value], case.proof.bounds[value]
        leaves = bool((bounds.lo < -EDGE).any() or (bounds.hi > 1 + EDGE).any())
        if not leaves or node.op not in SCORES or not _told(case, node) or not feeding(case, value):
            continue
        use = next((u for u in uses if u.clamp >= 0), uses[0])
        site = site_of(case, use.clamp if use.clamp >= 0 else use.log)
        found = None if site in reported else _wrong_outside(case, value)
        if found is None:
            continue
        reported.add(site)
        sure = found.far and not _assumed(case, node)
        yield finding(
            case,
            "logits-as-probabilities",
            f"the loss takes {_called(case, node)} for a probability, but on this input it is {range_text(found.low, found.high)}: "
            f"{found.what}.",
            found.inputs,
            found.run,
            op=case.view.nodes[use.clamp if use.clamp >= 0 else use.log].op,
            site=site,
            sure=sure,
        )


@dataclass(frozen=True, slots=True, eq=False)
class _Outside:
    """A run in which a value that is taken for a probability lies in [low, high], outside [0, 1], and what came of it."""

    inputs: Inputs
    run: Run
    low: float
    high: float
    what: str
    far: bool  # whether the value comes so far from [0, 1] on some input that it cannot be meant for a probability


def _told(case: Case, node: Node) -> bool:
    """Whether something says what the value is: the user, the argument's name, or the computation that it comes from."""
    domain = _domain_of(case, node)
    return domain is None or not domain.assumed or domain.kind == "logit"


def _assumed(case: Case, node: Node) -> bool:
    domain = _domain_of(case, node)
    return domain is not None and (domain.assumed or domain.kind not in ("logit", "real"))


def _domain_of(case: Case, node: Node) -> Domain | None:
    """The domain of the input that the node is, None if it is computed."""
    return next((case.domains[name] for name, i in case.view.graph.inputs.items() if i == node.id), None)


def _called(case: Case, node: Node) -> str:
    name = next((name for name, i in case.view.graph.inputs.items() if i == node.id), "")
    if name:
        return name
    if node.site is None or of_library(node.site) or len(node.site.text) > 60:
        return "a raw score"
    return f"the raw score {' '.join(node.site.text.split())}"


def _wrong_outside(case: Case, value: int) -> _Outside | None:
    """A run in which all elements lie outside [0, 1] and a gradient is exactly zero because of it, the largest loss first.

    If there is none because the loss refuses such values, one that it refuses.
    """
    candidates = tried(case)
    seen = values_on(case, value, candidates)
    if seen is None or not seen.size:
        return None
    outside = np.isfinite(seen) & ((seen < -EDGE) | (seen > 1 + EDGE))
    rows = np.flatnonzero(outside.all(axis=1))[: CORNERS // 2]
    runs = [(k, case.patient.execute(candidates[k])) for k in rows]
    dead = [(k, run) for k, run in runs if not run.error and finite(run.loss) and zero_by(case, value, run)]
    if dead:
        k, run = max(dead, key=lambda pair: number_of(pair[1].loss))
        names = listed(zero_by(case, value, run))
        what = f"the loss is finite and wrong there, {number(run.loss)}, and the gradient by {names} is exactly 0"
    elif runs and all(run.error for _, run in runs):
        k, run = runs[0]
        what = f"the loss raises {run.error.rstrip('.')}"
    else:
        return None
    far = bool(seen[rows].min() < -FAR or seen[rows].max() > 1 + FAR)
    return _Outside(candidates[k], run, float(seen[k].min()), float(seen[k].max()), what, far)
