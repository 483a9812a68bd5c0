"""The wrong thing fed in: what a loss takes its inputs for, against what they are. Findings of kind `contract`.

Where to look is read off the graph (`meaning`), what the inputs may be off the proof and the domains; each finding rests on a
run of the real function that shows it.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whynan.analysis import meaning
from whynan.analysis.evaluate import ancestors, evaluate_many, fill, finite
from whynan.analysis.finding import ERROR, WARNING, Finding
from whynan.analysis.health import Patient
from whynan.analysis.propagate import Proof
from whynan.analysis.search import Inputs, Searched, corner_products
from whynan.analysis.view import View
from whynan.domain import sample
from whynan.domain.names import words_of
from whynan.domain.spec import Domain
from whynan.errors import OpError, TargetError
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import BACKWARD, FORWARD, Node
from whynan.ir.where import Site

CORNERS, DRAWS = 36, 24  # extreme and other inputs looked at for evidence
MOST_RUNS = 6
EDGE = 0.01  # how far outside [0, 1] a value must come to be no probability
FAR = 0.5  # how far outside [0, 1] leaves no doubt

# operations whose result is a score: nothing in them keeps it between 0 and 1
SCORES = frozenset({"input", "matmul", "conv", "add", "sub", "mul", "neg", "relu", "tanh", "elu", "gelu", "silu", "mean", "where", "fma"})
WHOLE = ("classes", "integers")
PROBABILITIES = frozenset("prob probs probability probabilities proba softmax".split())


@dataclass(frozen=True, slots=True, eq=False)
class _Case:
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


def contracts(patient: Patient, trace: Trace, proof: Proof, searched: Searched) -> Iterator[Finding]:
    """All findings of kind `contract` for one mode, but for those that `health` makes of single runs."""
    case = _Case(patient, trace, View(trace.graph), proof, tuple(f.inputs for f in searched.failures))
    for look in (_scores_as_probabilities, _normalised_twice, _labels, _weights, _hidden, _detached):
        yield from look(case)


# ---------------------------------------------------------------- evidence


def _candidates(case: _Case) -> list[Inputs]:
    """Inputs of the domain, the extreme ones first; some have all rows alike."""
    rng = np.random.default_rng(case.patient.settings.seed)
    found: list[Inputs] = list(corner_products(case.domains, CORNERS))
    drawn = [{n: sample.draw(d, rng) for n, d in case.domains.items()} for _ in range(DRAWS)]
    alike = [{n: _rows_alike(case.domains[n], v) for n, v in inputs.items()} for inputs in drawn[: DRAWS // 2]]
    return [*found, *drawn, *alike]


def _rows_alike(d: Domain, v: Array) -> Array:
    fixed = d.value is not None or not d.shape or not v.size
    return v if fixed else sample.project(d, np.broadcast_to(v[:1], d.shape))


def _seen(case: _Case, node: int, candidates: Sequence[Inputs]) -> Array | None:
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


def _spread_run(case: _Case, node: int) -> tuple[Inputs, Trace] | None:
    """The recorded run in which the node's largest element is largest, among the candidates on which the loss runs."""
    candidates = _candidates(case)
    seen = _seen(case, node, candidates)
    if seen is None or not seen.size:
        return None
    order = np.argsort(-np.where(np.isfinite(seen), seen, -np.inf).max(axis=1), kind="stable")
    for k in order[:MOST_RUNS]:
        try:
            return candidates[k], case.patient.capture(candidates[k])
        except TargetError:
            continue
    return None


def _fed(case: _Case, node: int) -> frozenset[str]:
    """The inputs that a node is computed from and that the loss has a gradient by."""
    given = {o.name for o in case.view.graph.outputs if o.kind == "gradient"}
    return meaning.depends(case.view, node) & given


def _site(case: _Case, node: int) -> Site | None:
    return case.view.nodes[node].site


def _finding(
    case: _Case, cause: str, message: str, inputs: Inputs, run: Run, *, op: str, site: Site | None, phase: str = FORWARD, sure: bool = False
) -> Finding:
    severity = ERROR if sure else WARNING
    witness = case.patient.witness(inputs, run)
    return Finding("", "contract", severity, cause, message, op, phase, site, (case.patient.mode,), (), (), witness)


# ---------------------------------------------------------------- logits as probabilities


def _scores_as_probabilities(case: _Case) -> Iterator[Finding]:
    """A value that is clamped between eps and 1 - eps for its logarithms, but reaches outside [0, 1]: no gradient there."""
    reported: set[Site | None] = set()
    for value, uses in meaning.probability_uses(case.view).items():
        node, bounds = case.view.nodes[value], case.proof.bounds[value]
        leaves = bool((bounds.lo < -EDGE).any() or (bounds.hi > 1 + EDGE).any())
        if not leaves or node.op not in SCORES or not _told(case, node) or not _fed(case, value):
            continue
        use = next((u for u in uses if u.clamp >= 0), uses[0])
        site = _site(case, use.clamp if use.clamp >= 0 else use.log)
        found = None if site in reported else _wrong_outside(case, value)
        if found is None:
            continue
        reported.add(site)
        sure = found.far and not _assumed(case, node)
        yield _finding(
            case,
            "logits-as-probabilities",
            f"the loss takes {_called(case, node)} for a probability, but on this input it is {_range(found.low, found.high)}: "
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


def _told(case: _Case, node: Node) -> bool:
    """Whether something says what the value is: the user, the argument's name, or the computation that it comes from."""
    domain = _domain_of(case, node)
    return domain is None or not domain.assumed or domain.kind == "logit"


def _assumed(case: _Case, node: Node) -> bool:
    domain = _domain_of(case, node)
    return domain is not None and (domain.assumed or domain.kind not in ("logit", "real"))


def _domain_of(case: _Case, node: Node) -> Domain | None:
    """The domain of the input that the node is, None if it is computed."""
    return next((case.domains[name] for name, i in case.view.graph.inputs.items() if i == node.id), None)


def _called(case: _Case, node: Node) -> str:
    name = next((name for name, i in case.view.graph.inputs.items() if i == node.id), "")
    if name:
        return name
    if node.site is None or _of_library(node.site) or len(node.site.text) > 60:
        return "a raw score"
    return f"the raw score {' '.join(node.site.text.split())}"


def _of_library(site: Site) -> bool:
    """Whether a place lies in an installed package, where a user would not look for a line."""
    return "site-packages" in site.file or "dist-packages" in site.file


def _wrong_outside(case: _Case, value: int) -> _Outside | None:
    """A run in which all elements lie outside [0, 1] and a gradient is exactly zero because of it, the largest loss first.

    If there is none because the loss refuses such values, one that it refuses.
    """
    candidates = _candidates(case)
    seen = _seen(case, value, candidates)
    if seen is None or not seen.size:
        return None
    outside = np.isfinite(seen) & ((seen < -EDGE) | (seen > 1 + EDGE))
    rows = np.flatnonzero(outside.all(axis=1))[: CORNERS // 2]
    runs = [(k, case.patient.execute(candidates[k])) for k in rows]
    dead = [(k, run) for k, run in runs if not run.error and finite(run.loss) and _zero_by(case, value, run)]
    if dead:
        k, run = max(dead, key=lambda pair: _float(pair[1].loss))
        names = _listed(_zero_by(case, value, run))
        what = f"the loss is finite and wrong there, {_number(run.loss)}, and the gradient by {names} is exactly 0"
    elif runs and all(run.error for _, run in runs):
        k, run = runs[0]
        what = f"the loss raises {run.error.rstrip('.')}"
    else:
        return None
    far = bool(seen[rows].min() < -FAR or seen[rows].max() > 1 + FAR)
    return _Outside(candidates[k], run, float(seen[k].min()), float(seen[k].max()), what, far)


def _zero_by(case: _Case, value: int, run: Run) -> list[str]:
    """The inputs behind a value by which the gradient is exactly zero."""
    fed = _fed(case, value)
    return [n for n in case.domains if n in fed and (g := run.gradients.get(n)) is not None and g.size and not g.astype(np.float64).any()]


def _listed(names: Sequence[str]) -> str:
    """A few names and how many more."""
    return " and ".join(names) if len(names) <= 2 else f"{names[0]} and {len(names) - 1} others"


def _range(low: float, high: float) -> str:
    return f"{low:.6g}" if low == high else f"{low:.6g} to {high:.6g}"


def _number(loss: Array) -> str:
    return f"{_float(loss):.6g}"


def _float(loss: Array) -> float:
    return float(loss.astype(np.float64).sum())


# ---------------------------------------------------------------- softmax of a softmax


_TOP = 0.7312  # sigmoid(1): neither a second sigmoid nor a second softmax of numbers in [0, 1] gives more


def _normalised_twice(case: _Case) -> Iterator[Finding]:
    """A probability that is taken for a logit: a softmax or sigmoid of one."""
    found = meaning.normalisers(case.view)
    made = {case.view.representative[n.node]: n for n in found}
    reported: set[Site | None] = set()
    for second in found:
        source = meaning.probability(case.view, second.scores)
        site = _site(case, second.node)
        if site in reported or not _fed(case, source) or not _is_probability(case, source, made, second):
            continue
        finding = _squeezed(case, source, made.get(source), second)
        if finding is not None:
            reported.add(site)
            yield finding


def _is_probability(case: _Case, source: int, made: Mapping[int, meaning.Normaliser], second: meaning.Normaliser) -> bool:
    first = made.get(source)
    if first is not None:
        return not first.log and first.node != second.node
    name = next((name for name, i in case.view.graph.inputs.items() if i == source), "")
    domain = case.domains.get(name)
    if domain is None or domain.kind not in ("prob", "simplex") or not second.log:
        return False  # weights and soft targets are made by plain softmax of anything; a cross-entropy takes the logarithm
    return not domain.assumed or bool({*words_of(name)} & PROBABILITIES)


def _squeezed(case: _Case, source: int, first: meaning.Normaliser | None, second: meaning.Normaliser) -> Finding | None:
    """The finding, if in a real run the second function gives no more than what it can make of numbers in [0, 1]."""
    seen = _spread_run(case, source)
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
    return _finding(
        case,
        "double-softmax",
        f"{where}, and the {second.kind} in this expression takes it for a logit: for a value of {given.max():.4g} it gives at most "
        f"{result.max():.4g}, so the loss cannot come near its minimum and its gradients are small.",
        inputs,
        run,
        op=second.kind,
        site=_site(case, second.node),
    )


def _origin_text(case: _Case, source: int, first: meaning.Normaliser | None) -> str:
    if first is None:
        return next(name for name, i in case.view.graph.inputs.items() if i == source)
    site = _site(case, source)
    if site is None or _of_library(site):
        return f"the result of the {first.kind} before it"
    return f"the {first.kind} {' '.join(site.text.split())} of line {site.line}"


# ---------------------------------------------------------------- class numbers out of range


def _labels(case: _Case) -> Iterator[Finding]:
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


def _label_finding(case: _Case, lookup: meaning.Lookup, strange: float) -> Finding | None:
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
        done, sure = f"the loss is {_number(run.loss)} there", True
    else:
        nearest = {**inputs, name: np.clip(bad, 0, lookup.count - 1).astype(dtype)}
        same = np.array_equal(case.patient.execute(nearest).loss, run.loss)
        taken = f"silently takes it for {int(np.clip(strange, 0, lookup.count - 1))}"
        done = f"the loss {taken if same else 'is finite and wrong there'}"
        sure = False
    return _finding(case, "target-out-of-range", f"{where}: {done}.", inputs, run, op=node.op, site=node.site, sure=sure)


def _weights(case: _Case) -> Iterator[Finding]:
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
        what = f"the loss raises {run.error.rstrip('.')}" if run.error else f"the loss, otherwise never negative, is {_number(run.loss)}"
        yield _finding(
            case,
            "target-out-of-range",
            f"{names[value]} weighs the logarithms of a probability and of its complement, which needs numbers between 0 and 1, but may be "
            f"{_range(domain.low, domain.high)}: on this input {what}.",
            inputs,
            run,
            op=case.view.nodes[node].op,
            site=_site(case, node),
            sure=bool(run.error),
        )


def _below_zero(case: _Case, name: str, domain: Domain) -> tuple[Inputs, Run] | None:
    """The run with the lowest, negative loss, or one that raises; None if the same happens with targets in [0, 1] as well."""
    candidates = _candidates(case)
    few = candidates[:: max(1, len(candidates) // MOST_RUNS)]
    inside = [{**c, name: np.clip(c[name].astype(np.float64), 0, 1).astype(c[name].dtype)} for c in few]
    if any(r.error or _float(r.loss) < -EDGE for r in map(case.patient.execute, inside)):
        return None
    outside = [c for c in candidates if c[name].size and not ((c[name] >= 0) & (c[name] <= 1)).all()]
    runs = [(c, case.patient.execute(c)) for c in outside]
    refused = next(((c, r) for c, r in runs if r.error), None)
    low = [(c, r) for c, r in runs if not r.error and finite(r.loss) and _float(r.loss) < -EDGE]
    return min(low, key=lambda pair: _float(pair[1].loss), default=None) or refused


# ---------------------------------------------------------------- a NaN replaced afterwards


_TESTS = frozenset({"isnan", "isinf", "isfinite"})


def _hidden(case: _Case) -> Iterator[Finding]:
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
            yield _finding(case, "nan-hidden-after-the-fact", _hidden_text(case, run), inputs, run, op=node.op, site=node.site)


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


def _repaired_run(case: _Case, value: int) -> tuple[Inputs, Run] | None:
    """A run in which the value is not finite although the loss is."""
    candidates = [*case.failing, *_candidates(case)]
    seen = _seen(case, value, candidates)
    if seen is None:
        return None
    for k in np.flatnonzero(~np.isfinite(seen).all(axis=1))[:MOST_RUNS]:
        run = case.patient.execute(candidates[k])
        if not run.error and finite(run.loss):
            return candidates[k], run
    return None


def _hidden_text(case: _Case, run: Run) -> str:
    bad = [name for name, g in run.gradients.items() if not finite(g)]
    gone = [name for name, g in run.gradients.items() if g.size and not g.astype(np.float64).any()]
    what = f"a NaN or an infinity is replaced here after it arose: on this input the loss looks fine, {_number(run.loss)}"
    if bad:
        return f"{what}, but the gradient by {_listed(bad)} is not finite."
    lost = f"the gradient by {_listed(gone)} is exactly 0" if gone else "the replaced elements have no gradient"
    return f"{what}, and {lost}: nothing is learned from it and nothing shows it."


# ---------------------------------------------------------------- a gradient that is cut off


def _detached(case: _Case) -> Iterator[Finding]:
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


def _has_no_gradient(case: _Case, name: str) -> bool:
    """Whether the gradient by an input is missing, or proven to be zero everywhere."""
    for o in case.view.graph.outputs:
        if o.kind == "gradient" and o.name == name:
            b = case.proof.bounds[o.node]
            return not b.may_nan.any() and not b.lo.any() and not b.hi.any()
    return True


def _moves(case: _Case, name: str) -> tuple[Inputs, Run] | None:
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


def _cut_finding(case: _Case, name: str, inputs: Inputs, run: Run) -> Finding:
    node, how, cause = _cut(case, name)
    state = "always 0" if name in run.gradients else "missing"
    message = f"the loss changes with {name}, but {how}: the gradient by {name} is {state}."
    return _finding(case, cause, message, inputs, run, op=node.op if node else "", site=node.site if node else None, phase=BACKWARD)


def _cut(case: _Case, name: str) -> tuple[Node | None, str, str]:
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
