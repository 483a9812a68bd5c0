"""A gradient that is cut off on its way."""

from collections.abc import Iterator
from dataclasses import replace

import numpy as np

from whynan.analysis import meaning
from whynan.analysis.contracts.case import MOST_RUNS, Case, finding
from whynan.analysis.evaluate import ancestors, finite
from whynan.analysis.finding import Finding
from whynan.analysis.search import Inputs
from whynan.domain import sample
from whynan.ir.frontend import Run
from whynan.ir.graph import BACKWARD, FORWARD, Node


def detached(case: Case) -> Iterator[Finding]:
    """Inputs on which the loss depends by value but, anywhere in the domain, not by gradient."""
    wanted = [name for name, d in case.domains.items() if d.grad]
    dead = [name for name in wanted if _has_no_gradient(case, name)]
    for name in dead:
        if not case.domains[name].grad_given and len(dead) < len(wanted):
            continue  # one input of several: it may be meant so
        run = _moves(case, name)
        if run is not None:
            yield _cut_finding(case, name, *run)
            return


def _has_no_gradient(case: Case, name: str) -> bool:
    """Whether the gradient by an input is missing, or proven to be zero everywhere."""
    for o in case.view.graph.outputs:
        if o.kind == "gradient" and o.name == name:
            b = case.proof.bounds[o.node]
            return not b.may_nan.any() and not b.lo.any() and not b.hi.any()
    return True


def _moves(case: Case, name: str) -> tuple[Inputs, Run] | None:
    """A run whose loss differs from that of another input with only this one changed; None if the loss never changes with it."""
    rng = np.random.default_rng(case.patient.settings.seed)
    base = {n: sample.ordinary(d, rng) for n, d in case.domains.items()}
    first = case.patient.execute(base)
    for _ in range(MOST_RUNS):
        other = {**base, name: sample.draw(case.domains[name], rng)}
        run = case.patient.execute(other)
        gradient = run.gradients.get(name)
        still = gradient is None or not gradient.astype(np.float64).any()
        if still and not run.error and not first.error and finite(run.loss) and not np.array_equal(run.loss, first.loss):
            return other, run
    return None


def _cut_finding(case: Case, name: str, inputs: Inputs, run: Run) -> Finding:
    node, how, cause = _cut(case, name)
    state = "always 0" if name in run.gradients else "missing"
    message = f"the loss changes with {name}, but {how}: the gradient by {name} is {state}."
    return finding(case, cause, message, inputs, run, op=node.op if node else "", site=node.site if node else None, phase=BACKWARD)


def _cut(case: Case, name: str) -> tuple[Node | None, str, str]:
    """Where an input loses its gradient, in what way, and the cause that this is."""
    graph = case.view.graph
    start = graph.inputs[name]
    fed = [n for n in graph.nodes if n.phase == FORWARD and start in ancestors(graph, n.id) and n.id != start]
    for a in graph.assumptions:
        if start in ancestors(graph, a.node) and ("numpy" in a.what or a.what in (".item()", "float(tensor)", ".tolist()")):
            cause = "numpy-in-graph" if "numpy" in a.what else "gradient-detached"
            node = graph.nodes[a.node]
            return replace(node, site=a.site or node.site), f"{a.what} takes the value out of the framework's sight", cause
    for node in fed:
        if node.op in CUTTING or (node.op == "cast" and graph.nodes[node.inputs[0]].format.is_float and not node.format.is_float):
            return node, f"{_step_name(node)} has no slope", "gradient-detached"
    first = fed[0] if fed else None
    return first, "detach(), stop_gradient or the like cuts it off from its gradient", "gradient-detached"


CUTTING = meaning.CUTS | meaning.STEPS


def _step_name(node: Node) -> str:
    if node.op in ("eq", "ne", "lt", "le", "gt", "ge"):
        return "a comparison"
    return "a conversion to whole numbers" if node.op == "cast" else f"the {node.op}"
