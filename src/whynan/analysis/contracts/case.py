"""One recorded mode as the looks at it see it, and the evidence that they need: runs of the real function."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis import meaning
from whynan.analysis.evaluate import ancestors, evaluate_many
from whynan.analysis.finding import ERROR, WARNING, Finding
from whynan.analysis.health import Patient
from whynan.analysis.propagate import Proof
from whynan.analysis.search import Inputs, corner_products
from whynan.analysis.view import View
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.errors import OpError, TargetError
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import FORWARD
from whynan.ir.where import Site

CORNERS, DRAWS = 36, 24  # extreme and other inputs looked at for evidence
MOST_RUNS = 6
EDGE = 0.01  # how far outside [0, 1] a value must come to be no probability
PROBABILITIES = frozenset("prob probs probability probabilities proba softmax".split())


@dataclass(frozen=True, slots=True, eq=False)
class Case:
    """One recorded mode: how to run it, its graph seen element by element, the proof and what the search found."""

    patient: Patient
    trace: Trace
    view: View
    proof: Proof
    failing: tuple[Inputs, ...]

    @property
    def domains(self) -> Mapping[str, Domain]:
        """What the inputs may be."""
        return self.patient.domains


def tried(case: Case) -> list[Inputs]:
    """Inputs of the domain, the extreme ones first; some have all rows alike."""
    rng = np.random.default_rng(case.patient.settings.seed)
    found: list[Inputs] = list(corner_products(case.domains, CORNERS))
    drawn = [{n: sample.draw(d, rng) for n, d in case.domains.items()} for _ in range(DRAWS)]
    alike = [{n: _rows_alike(case.domains[n], v) for n, v in inputs.items()} for inputs in drawn[: DRAWS // 2]]
    return [*found, *drawn, *alike]


def _rows_alike(d: Domain, v: Array) -> Array:
    fixed = d.value is not None or not d.shape or not v.size
    return v if fixed else sample.project(d, np.broadcast_to(v[:1], d.shape))


def values_on(case: Case, node: int, candidates: Sequence[Inputs]) -> Array | None:
    """The node's value on every candidate (a row each, flattened); None if the graph alone does not tell."""
    graph = case.view.graph
    needed = ancestors(graph, node)
    if any(graph.nodes[i].op == "random" for i in needed):
        return None
    stacked = {name: np.stack([c[name] for c in candidates]) for name, i in graph.inputs.items() if i in needed}
    try:
        found = evaluate_many(graph, sorted(needed), stacked)[node] if stacked else None
    except OpError:
        return None
    return None if found is None else found.astype(np.float64).reshape(len(candidates), -1)


def spread_run(case: Case, node: int) -> tuple[Inputs, Trace] | None:
    """The recorded run in which the node's largest element is largest, among the candidates on which the loss runs."""
    candidates = tried(case)
    seen = values_on(case, node, candidates)
    if seen is None or not seen.size:
        return None
    order = np.argsort(-np.where(np.isfinite(seen), seen, -np.inf).max(axis=1), kind="stable")
    for k in order[:MOST_RUNS]:
        try:
            return candidates[k], case.patient.capture(candidates[k])
        except TargetError:
            continue
    return None


def feeding(case: Case, node: int) -> frozenset[str]:
    """The inputs that a node is computed from and that the loss has a gradient by."""
    given = {o.name for o in case.view.graph.outputs if o.kind == "gradient"}
    return meaning.depends(case.view, node) & given


def site_of(case: Case, node: int) -> Site | None:
    """Where a node stands in the source."""
    return case.view.nodes[node].site


def finding(
    case: Case, cause: str, message: str, inputs: Inputs, run: Run, *, op: str, site: Site | None, phase: str = FORWARD, sure: bool = False
) -> Finding:
    """A finding of kind `contract` with the run that shows it: an error if it is `sure`, else a warning."""
    severity = ERROR if sure else WARNING
    witness = case.patient.witness(inputs, run)
    return Finding("", "contract", severity, cause, message, op, phase, site, (case.patient.mode,), (), (), witness)


def zero_by(case: Case, value: int, run: Run) -> list[str]:
    """The inputs behind a value by which the gradient is exactly zero."""
    fed = feeding(case, value)
    return [n for n in case.domains if n in fed and (g := run.gradients.get(n)) is not None and g.size and not g.astype(np.float64).any()]


def listed(names: Sequence[str]) -> str:
    """A few names and how many more."""
    return " and ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} others"


def range_text(low: float, high: float) -> str:
    """Two limits in words."""
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def number(loss: Array) -> str:
    """A loss, or the sum of its elements, for a reader."""
    return f"{number_of(loss):.6g}"


def number_of(loss: Array) -> float:
    """A loss, or the sum of its elements."""
    return float(loss.astype(np.float64).sum())


def of_library(site: Site) -> bool:
    """Whether a place lies in an installed package, where a user would not look for a line."""
    return "site-packages" in site.file or "dist-packages" in site.file
