"""The pipeline: record the loss, prove it, search where the proof is open, blame what the search found, report.

Works on a `Program` that a front end has made ready; knows no framework.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whynan.analysis import compiled
from whynan.analysis.blame import Blame, blame
from whynan.analysis.causes import OUT_OF_DOMAIN
from whynan.analysis.contract import contracts
from whynan.analysis.descent import proposals
from whynan.analysis.finding import ERROR, SAFE, UNDECIDED, UNSAFE, Finding, Open, Report, Witness
from whynan.analysis.forecast import forecaster
from whynan.analysis.health import Patient, warnings
from whynan.analysis.propagate import Proof, propagate
from whynan.analysis.refused import Refusal, refusal
from whynan.analysis.search import Failure, Hint, Inputs, Searched, fingerprint, search, signature
from whynan.analysis.shrink import shrink
from whynan.analysis.solve import solutions
from whynan.config import Settings
from whynan.domain import sample
from whynan.domain.abstract import bounds_of
from whynan.domain.spec import Domain
from whynan.errors import TargetError, WhynanError
from whynan.ir.frontend import Program, Run, Trace
from whynan.ir.graph import FORWARD, Graph
from whynan.ir.where import Site

MOST_BLAMED = 20
PLAIN = "eager"  # in every framework, the mode that runs what is written
PATH = "path"  # the op of an open site that is a look at a value
STARTS = 12  # inputs tried until the loss runs without raising

ScriptOf = Callable[[Inputs, str], str]
Raised = Callable[[BaseException | None], Site | None]  # where in the user's code an error was raised


@dataclass(frozen=True, slots=True, eq=False)
class _Mode:
    """What one mode's program gave."""

    mode: str
    trace: Trace
    proof: Proof
    unproven: tuple[Open, ...]  # why the proof, finite or not, does not cover the domain
    searched: Searched
    findings: tuple[Finding, ...]


class _Refused(Exception):
    """The loss raises on its whole domain for a cause that can be told; carries the finding."""

    def __init__(self, finding: Finding) -> None:
        super().__init__(finding.message)
        self.finding = finding


def check_program(
    program: Program, domains: Mapping[str, Domain], settings: Settings, script: ScriptOf, raised: Raised = lambda error: None
) -> Report:
    """Check a program in each mode and put the results into one report.

    `domains` holds every input by name, parameters of the loss included. `script(inputs, mode)` writes a witness's program.
    `raised` finds the user's expression that an error comes from. Raises TargetError if the loss cannot be run on its domain at all, unless
    what it raises is a known cause: that is a finding.
    """
    start = time.perf_counter()
    job = _Job(program, domains, settings, script, raised)
    modes: list[_Mode] = []
    refused: list[Finding] = []
    unable: dict[str, TargetError] = {}
    for mode in settings.modes:
        try:
            modes.append(job.mode(mode))
        except _Refused as stopped:
            refused.append(stopped.finding)
        except TargetError as error:  # one mode that cannot be run does not take the others' answer away
            unable[mode] = error
    if unable and not modes and not refused:
        raise next(iter(unable.values()))
    findings = _merged([*refused, *(job.confirmed(f) for m in modes for f in m.findings)])
    return _report(job, modes, findings, unable, time.perf_counter() - start)


class _Job:
    """One program on one set of domains: runs it, records it."""

    def __init__(
        self, program: Program, domains: Mapping[str, Domain], settings: Settings, script: ScriptOf, raised: Raised = lambda error: None
    ) -> None:
        self.program, self.domains, self.settings, self.script, self.raised = program, domains, settings, script, raised
        self.wrt = tuple(name for name, d in domains.items() if d.grad)

    def _arguments(self) -> dict[str, Domain]:
        """The domains of what is passed to the loss, as against what it owns."""
        return {name: d for name, d in self.domains.items() if name not in self.program.parameters}

    def run(self, inputs: Inputs, mode: str) -> Run:
        """The real function."""
        return self.program.run(inputs, self.wrt, mode)

    def capture(self, inputs: Inputs, mode: str) -> Trace:
        """The real function, recorded."""
        return self.program.capture(inputs, self.wrt, mode)

    def mode(self, mode: str) -> _Mode:
        """Everything for one mode."""
        first, second = self._starts(mode)
        trace = self.capture(first, mode)
        bounds = {name: bounds_of(self.domains[name]) for name in trace.graph.inputs}
        simplexes = [name for name in trace.graph.inputs if self.domains[name].kind in ("simplex", "onehot")]
        proof = propagate(trace.graph, bounds, self.settings.boxes, simplexes=simplexes)
        unproven = [*_assumed(trace.graph, proof), *_varying(trace.graph, self.capture(second, mode).graph)]
        open_ = not proof.finite or bool(unproven)
        searched = self._search(mode, trace, proof) if open_ else Searched((), 0, 0.0)
        patient = self._patient(mode)
        wrong = list(contracts(patient, trace, proof, searched))
        known = {_span(f.site) for f in wrong if f.cause == "logits-as-probabilities"}  # says more than that a clamp stops the gradient
        others = [f for f in warnings(patient, trace, proof, searched) if f.kind != "dead-gradient" or _span(f.site) not in known]
        findings = [*self._refuted(mode, searched), *wrong, *others]
        return _Mode(mode, trace, proof, tuple(unproven), searched, tuple(findings))

    def _starts(self, mode: str) -> tuple[Inputs, Inputs]:
        """Two ordinary inputs on which the loss runs; where it runs on one only, that one twice."""
        rng = np.random.default_rng(self.settings.seed)
        good: list[Inputs] = []
        error = ""
        for inputs in _ordinary(self.domains, rng):
            run = self.run(inputs, mode)
            if run.error:
                error = error or run.error
            else:
                good.append(inputs)
            if len(good) == 2:
                return good[0], good[1]
        if not good:
            self._refuse(mode, error)
            said = error.rstrip(".") if error.startswith("TypeError: the loss ") else f"raised {error.rstrip('.')}"
            raise TargetError(
                f"{self.program.name} {said.removeprefix('TypeError: the loss ')} on {_shapes(self._arguments())}.",
                "Give domains, shapes included, on which it runs and returns a tensor of floats.",
            )
        return good[0], good[0]

    def _refuse(self, mode: str, error: str) -> None:
        """Raise _Refused if the error that the loss raises on its domain has a cause that can be told."""
        why = refusal(error, self.domains, lambda domains: self._runs(domains, mode))
        if why is None:
            return
        rng = np.random.default_rng(self.settings.seed)
        inputs = next(i for i in _ordinary(self.domains, rng) if self.run(i, mode).error)
        raise _Refused(self._refusal(mode, why, inputs))

    def _refusal(self, mode: str, why: Refusal, inputs: Inputs) -> Finding:
        site = None
        try:
            self.capture(inputs, mode)
        except WhynanError as error:
            site = self.raised(error)
        witness = self._witness(mode, inputs, self.run(inputs, mode))
        return Finding("", "contract", ERROR, why.cause, why.message, why.op, FORWARD, site, (mode,), (), (), witness)

    def _runs(self, domains: Mapping[str, Domain], mode: str) -> bool:
        rng = np.random.default_rng(self.settings.seed)
        return all(not self.run({n: sample.ordinary(d, rng) for n, d in domains.items()}, mode).error for _ in range(3))

    def _search(self, mode: str, trace: Trace, proof: Proof) -> Searched:
        names = {i: name for name, i in trace.graph.inputs.items()}
        hints: list[Hint] = [{names[i]: r for i, r in box.items()} for box in proof.hints]
        return search(
            lambda inputs: self.run(inputs, mode),
            self.domains,
            hints=hints,
            proposals=lambda: itertools.chain(
                proposals(trace.graph, proof, self.domains, self.settings.seed),
                solutions(trace.graph, proof, self.domains, self.settings.seed),
            ),
            seed=self.settings.seed,
            evaluations=self.settings.evaluations,
            seconds=self.settings.budget,
            forecast=forecaster(trace.graph),
        )

    def _patient(self, mode: str) -> Patient:
        return Patient(
            lambda inputs: self.run(inputs, mode),
            lambda inputs: self.capture(inputs, mode),
            lambda inputs, run: self._witness(mode, inputs, run),
            self.domains,
            self.settings,
            mode,
        )

    def _witness(self, mode: str, inputs: Inputs, run: Run) -> Witness:
        return Witness(inputs, run.loss, run.gradients, lambda: self.script(inputs, mode), lambda again: self.run(again, mode))

    # ------------------------------------------------------------ from failures to findings

    def _refuted(self, mode: str, searched: Searched) -> Iterator[Finding]:
        """One finding per place and phase, each with its simplest witness."""
        found: dict[tuple[object, ...], tuple[Blame, Failure]] = {}
        end = time.perf_counter() + self.settings.budget
        for failure in _varied(searched.failures)[:MOST_BLAMED]:
            if found and time.perf_counter() > end:
                break
            if not all(sample.contains(d, failure.inputs[name]) for name, d in self.domains.items()):
                continue  # no witness lies outside its domain
            why = blame(self.capture(failure.inputs, mode))
            if why is None:  # not repeatable: without a second failing run it is no witness
                continue
            key = _key(why)
            if key not in found or (why.cause in OUT_OF_DOMAIN and found[key][0].cause not in OUT_OF_DOMAIN):
                found[key] = (why, failure)  # a whole region that fails says more than its edge
        for why, failure in sorted(found.values(), key=lambda pair: pair[0].node):  # as the program runs
            yield self._finding(mode, why, failure)

    def _finding(self, mode: str, why: Blame, failure: Failure) -> Finding:
        simple = shrink(failure.inputs, self.domains, lambda inputs: _alike(self.run(inputs, mode), failure.run), element=why.element)
        again = blame(self.capture(simple, mode))
        if again is None or _key(again) != _key(why) or again.cause != why.cause:
            simple, again = failure.inputs, why
        return self.explained(mode, again, simple)

    def _compared(self, mode: str, why: Blame, inputs: Inputs) -> Blame:
        """The blame of a compiled program's failure, put on the compiler where it took away what keeps the written program finite."""
        if mode == PLAIN or not compiled.may_lack_epsilon(why):
            return why
        lost = compiled.removed(self.capture(inputs, mode).graph)
        if not lost or self._fails(inputs, PLAIN):
            return why
        here = [a for a in lost if a.site and why.site and a.site.line == why.site.line]
        return compiled.blamed_on(why, (here or lost)[0])

    def _fails(self, inputs: Inputs, mode: str) -> bool:
        """Whether an output is not finite there; a run that raises has none."""
        run = self.run(inputs, mode)
        return not run.error and bool(signature(run))

    def confirmed(self, finding: Finding) -> Finding:
        """The finding with all modes in which its witness fails: it is run in each."""
        if finding.severity != ERROR or finding.witness is None:
            return finding
        inputs = finding.witness.inputs
        fails = [m for m in self.settings.modes if m in finding.modes or self._fails(inputs, m)]
        return replace(finding, modes=tuple(fails))

    def explained(self, mode: str, why: Blame, inputs: Inputs) -> Finding:
        """The finding for a blamed input."""
        why = self._compared(mode, why, inputs)
        return Finding(
            id="",
            kind="non-finite",
            severity=ERROR,
            cause=why.cause,
            message=why.message,
            op=why.op,
            phase=why.phase,
            site=why.site,
            modes=(mode,),
            related=why.related,
            chain=why.chain,
            witness=self._witness(mode, inputs, self.run(inputs, mode)),
        )


def _alike(run: Run, other: Run) -> bool:
    """Whether two runs fail in the same outputs, and both or neither with a loss that is NaN."""
    return not run.error and signature(run) == signature(other) and _nan(run) == _nan(other)


def _nan(run: Run) -> bool:
    return bool(np.isnan(run.loss.astype(np.float64)).any())


def _key(why: Blame) -> tuple[object, ...]:
    return (why.phase, _span(why.site), why.op)


def _span(site: Site | None) -> tuple[object, ...] | None:
    """The place of an expression, whatever library code stands below it."""
    return (site.file, site.line, site.column, site.end_line, site.end_column) if site else None


def _varied(failures: Sequence[Failure]) -> list[Failure]:
    """Failures in turn from each way of failing, so that different defects are looked at early."""
    groups: dict[object, list[Failure]] = {}
    for f in failures:
        groups.setdefault(fingerprint(f.run), []).append(f)
    rows = list(groups.values())
    return [row[k] for k in range(max((len(r) for r in rows), default=0)) for row in rows if k < len(row)]


def _ordinary(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    """Generic inputs first: ties and zeros would take special paths; then plain ones, then anything."""
    for _ in range(4):
        yield {name: sample.ordinary(d, rng) for name, d in domains.items()}
    yield {name: sample.plain(d) for name, d in domains.items()}
    for _ in range(STARTS):
        yield {name: sample.draw(d, rng) for name, d in domains.items()}


def _shapes(domains: Mapping[str, Domain]) -> str:
    return ", ".join(f"{name}={d}" for name, d in domains.items())


# ---------------------------------------------------------------- what a proof does not cover


def _assumed(graph: Graph, proof: Proof) -> list[Open]:
    """Looks at values whose outcome is not the same on the whole domain."""
    out = []
    for a in graph.assumptions:
        b = proof.bounds[a.node]
        if b.may_nan.any() or (b.lo < a.low).any() or (b.hi > a.high).any():
            out.append(Open(PATH, a.site, FORWARD, f"{a.what} looks at a value here: on other inputs the code may take another path"))
    return list(dict.fromkeys(out))


def _varying(one: Graph, two: Graph) -> list[Open]:
    """A second recording on other inputs must give the same graph; otherwise the graph depends on values unseen."""
    if len(one.nodes) != len(two.nodes) or any(
        a.op != b.op or a.shape != b.shape or a.inputs != b.inputs for a, b in zip(one.nodes, two.nodes, strict=True)
    ):
        return [Open(PATH, None, FORWARD, "which operations are done changes with the input's values")]
    live = _live(one)
    for a, b in zip(one.nodes, two.nodes, strict=True):
        if a.op == "const" and live[a.id] and not np.array_equal(a.attrs["value"], b.attrs["value"], equal_nan=a.format.is_float):
            reason = "a number here changes with the input's values but was computed outside the framework"
            return [Open(PATH, a.site, FORWARD, reason)]
    return []


def _live(graph: Graph) -> list[bool]:
    alive = [False] * len(graph.nodes)
    for o in graph.outputs:
        alive[o.node] = True
    for node in reversed(graph.nodes):
        if alive[node.id]:
            for i in node.inputs:
                alive[i] = True
    return alive


# ---------------------------------------------------------------- the report


def _merged(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings of all modes, equal ones joined, errors first, numbered."""
    joined: dict[tuple[object, ...], Finding] = {}
    for f in findings:
        # compilers write the same mistake with other operations
        key = (f.kind, f.cause, _span(f.site)) if f.kind == "contract" else (f.kind, f.cause, f.phase, f.op, f.site)
        before = joined.get(key)
        if before is None:
            joined[key] = f
        elif f.kind != "non-finite":
            joined[key] = replace(before, modes=tuple(dict.fromkeys([*before.modes, *f.modes])))
        elif not set(f.modes) <= set(before.modes):  # the first one's witness is fine there: this one has its own
            joined[(*key, f.modes)] = f
    failing = {f.site for f in joined.values() if f.severity == ERROR}
    # where a gradient can be infinite it can be large as well: that is no news
    news = [f for f in joined.values() if f.kind != "exploding-gradient" or f.site not in failing]
    # stable: else in order of execution
    ordered = sorted(news, key=lambda f: (f.severity != ERROR, f.kind != "non-finite", f.phase != FORWARD))
    return tuple(replace(f, id=f"F{n}") for n, f in enumerate(ordered, 1))


def _report(job: _Job, modes: Sequence[_Mode], findings: tuple[Finding, ...], unable: Mapping[str, TargetError], seconds: float) -> Report:
    unsafe = any(f.kind == "non-finite" for f in findings)
    stopped = [mode for mode in job.settings.modes if mode not in unable and mode not in {m.mode for m in modes}]
    covered = not stopped and not unable and all(m.proof.finite and not m.unproven for m in modes)
    verdict = UNSAFE if unsafe else SAFE if covered else UNDECIDED
    left = [] if verdict == SAFE else [o for m in modes for o in _left(m, findings)]
    left += [Open(PATH, None, FORWARD, f"mode {mode} could not be checked: {error.message}") for mode, error in unable.items()]
    return Report(
        target=job.program.name,
        framework=job.program.framework,
        framework_version=job.program.framework_version,
        dtype=_dtype(job.domains),
        modes=job.settings.modes,
        verdict=verdict,
        seconds=seconds,
        domain=job.domains,
        sites=_sites(modes, findings),
        findings=findings,
        undecided=tuple(left),
        search={key: sum(getattr(m.searched, key) for m in modes) for key in ("evaluations", "screened", "seconds")},
        notes=tuple(dict.fromkeys([n for m in modes for n in m.trace.graph.notes] + [_RAISES.format(m) for m in stopped])),
    )


_RAISES = "nothing is known of mode {}: the loss raises there"


def _left(m: _Mode, findings: Sequence[Finding]) -> Iterator[Open]:
    """Sites that are neither proven nor refuted, and what a proof does not cover."""
    refuted = {f.site for f in findings if f.kind == "non-finite"}
    seen = set()
    for i, reason in sorted(m.proof.open.items()):
        node = m.trace.graph.nodes[i]
        if node.site not in refuted and (node.site, node.phase) not in seen:
            seen.add((node.site, node.phase))
            yield Open(node.op, node.site, node.phase, reason)
    yield from m.unproven


def _sites(modes: Sequence[_Mode], findings: Sequence[Finding]) -> dict[str, int]:
    """Op applications of the recorded programs that reach an output, by what is known of them."""
    total = sum(len(_applications(m.trace.graph, range(len(m.trace.graph.nodes)))) for m in modes)
    refuted_sites = {(f.site, f.phase) for f in findings if f.kind == "non-finite"}
    refuted, undecided = 0, 0
    for m in modes:
        graph = m.trace.graph
        open_ = [i for i in m.proof.open if (graph.nodes[i].site, graph.nodes[i].phase) not in refuted_sites]
        undecided += len(_applications(graph, open_))
    refuted = len(refuted_sites)
    return {"total": total, "proven": max(total - refuted - undecided, 0), "refuted": refuted, "undecided": undecided}


def _applications(graph: Graph, nodes: Sequence[int] | range) -> set[int]:
    live = _live(graph)
    return {graph.nodes[i].source for i in nodes if live[i] and graph.nodes[i].op not in ("const", "input")}


def _dtype(domains: Mapping[str, Domain]) -> str:
    """The float dtype of the inputs, the narrowest first; float32 if there is none."""
    names = [d.dtype for d in domains.values() if d.format.is_float]
    return min(names, key=lambda n: ("float16", "bfloat16", "float32", "float64").index(n)) if names else "float32"


# ---------------------------------------------------------------- explain


def explain_program(program: Program, domains: Mapping[str, Domain], settings: Settings, script: ScriptOf) -> Report:
    """Run a program on one concrete input (all domains are constants) and report what happened there.

    Raises TargetError if the loss raises on it.
    """
    start = time.perf_counter()
    job = _Job(program, domains, settings, script)
    inputs = {name: sample.plain(d) for name, d in domains.items()}
    findings: list[Finding] = []
    notes: list[str] = []
    for mode in settings.modes:
        trace = job.capture(inputs, mode)
        notes += trace.graph.notes
        why = blame(trace)
        if why is not None:
            findings.append(job.explained(mode, why, inputs))
    merged = _merged(findings)
    return Report(
        target=program.name,
        framework=program.framework,
        framework_version=program.framework_version,
        dtype=_dtype(domains),
        modes=settings.modes,
        verdict=UNSAFE if merged else SAFE,
        seconds=time.perf_counter() - start,
        domain=domains,
        sites={"total": 0, "proven": 0, "refuted": len(merged), "undecided": 0},
        findings=merged,
        search={"evaluations": len(settings.modes), "screened": 0, "seconds": 0.0},
        notes=(*dict.fromkeys(notes), "one concrete input was run: nothing is proven about any other"),
    )
