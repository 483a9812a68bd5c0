"""The pipeline: record the loss, prove it, search where the proof is open, blame what the search found, report.

Works on a `Program` that a front end has made ready; knows no framework.
"""

import itertools
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace

import numpy as np

from whynan.analysis import compiled
from whynan.analysis.accuracy import counted, inaccurate
from whynan.analysis.blame import Blame, blame, finding_of
from whynan.analysis.cases import Problem
from whynan.analysis.causes import OUT_OF_DOMAIN
from whynan.analysis.contracts import contracts
from whynan.analysis.descent import proposals
from whynan.analysis.effort import Effort
from whynan.analysis.envelope import envelope_of, safe_ranges, without_graph
from whynan.analysis.finding import ERROR, SAFE, UNSAFE, Finding, Report, SafeRange, Witness
from whynan.analysis.health import Patient, warnings
from whynan.analysis.paths import Path, explore, foreseeing, varied
from whynan.analysis.refused import Refusal, refusal
from whynan.analysis.search import Failure, Hint, Inputs, Searched, fingerprint, search, signature
from whynan.analysis.shrink import shrink
from whynan.analysis.solve import solutions
from whynan.analysis.summary import ModeResult, assembled, dtype_of, merged, span_of
from whynan.config import OWN, Settings
from whynan.domain import sample
from whynan.domain.spec import Domain, retyped
from whynan.errors import TargetError, WhynanError
from whynan.ir.frontend import Program, Run, Trace
from whynan.ir.graph import FORWARD
from whynan.ir.where import Site

MOST_BLAMED = 20
PLAIN = "eager"  # in every framework, the mode that runs what is written
STARTS = 12  # inputs tried until the loss runs without raising
MOST_REMEMBERED = 1024  # runs whose results are kept
SMALL = 4096  # numbers in an input that is worth remembering

ScriptOf = Callable[[Inputs, str], str]
Raised = Callable[[BaseException | None], Site | None]  # where in the user's code an error was raised


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
    modes: list[ModeResult] = []
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
    findings = merged([*refused, *(job.confirmed(f) for m in modes for f in m.findings)])
    ranges = tuple(r for m in modes for r in job.ranges(m))
    report = assembled(program, domains, settings.modes, modes, findings, unable, time.perf_counter() - start)
    return replace(report, envelope=envelope_of(ranges), safe_ranges=ranges)


class _Job:
    """One program on one set of domains: runs it, records it."""

    def __init__(
        self, program: Program, domains: Mapping[str, Domain], settings: Settings, script: ScriptOf, raised: Raised = lambda error: None
    ) -> None:
        self.program, self.domains, self.settings, self.script, self.raised = program, domains, settings, script, raised
        self.wrt = tuple(name for name, d in domains.items() if d.grad)
        self._seen: dict[object, Run] = {}

    def _arguments(self) -> dict[str, Domain]:
        """The domains of what is passed to the loss, as against what it owns."""
        return {name: d for name, d in self.domains.items() if name not in self.program.parameters}

    def run(self, inputs: Inputs, mode: str) -> Run:
        """The real function. Special values, corners and simplified inputs often coincide: an input that was run is not run again."""
        if sum(a.size for a in inputs.values()) > SMALL:
            return self.really(inputs, mode)
        name = (mode, *((n, a.dtype.name, a.shape, a.tobytes()) for n, a in sorted(inputs.items())))
        found = self._seen.get(name)
        if found is None:
            found = self.really(inputs, mode)
            if len(self._seen) < MOST_REMEMBERED:
                self._seen[name] = found
        return found

    def really(self, inputs: Inputs, mode: str) -> Run:
        """The real function, whether it has been run on the input or not."""
        return self.program.run(inputs, self.wrt, mode)

    def capture(self, inputs: Inputs, mode: str) -> Trace:
        """The real function, recorded."""
        return self.program.capture(inputs, self.wrt, mode)

    def problem(self, mode: str) -> Problem:
        """What the proof asks of a mode."""
        capture = self.program.capture
        return Problem(
            lambda inputs: capture(inputs, self.wrt, mode),
            self.domains,
            self.settings.boxes,
            self.settings.seed,
            lambda inputs, told: capture(inputs, self.wrt, mode, told),
        )

    def mode(self, mode: str) -> ModeResult:
        """Everything for one mode."""
        first, second = self._starts(mode)
        trace = self.capture(first, mode)
        problem = self.problem(mode)
        proof = problem.prove(trace.graph)
        covered = explore(problem, trace, proof, first, second)
        open_ = bool(covered.unproven) or not all(p.proof.finite for p in covered.paths)
        searched = self._search(mode, covered.paths) if open_ else Searched((), 0, 0.0)
        patient = self._patient(mode)
        wrong = list(contracts(patient, trace, proof, searched))
        known = {span_of(f.site) for f in wrong if f.cause == "logits-as-probabilities"}  # says more than that a clamp stops the gradient
        others = [f for f in warnings(patient, trace, proof, searched) if f.kind != "dead-gradient" or span_of(f.site) not in known]
        imprecise = inaccurate(patient, trace) if self.settings.accuracy else ()
        notes = (counted(trace.graph, self.domains, self.settings.seed),) if self.settings.accuracy else ()
        findings = [*self._refuted(mode, searched), *wrong, *others, *imprecise]
        return ModeResult(mode, covered.paths, covered.unproven, searched, tuple(findings), notes)

    def ranges(self, result: ModeResult) -> Iterator[SafeRange]:
        """The safe range of each input in one mode, in the dtypes that the settings ask for."""
        for dtype in self.settings.envelope:
            domains = {n: d if dtype == OWN or n in self.program.parameters else retyped(d, dtype) for n, d in self.domains.items()}
            job = _Job(self.program, domains, self.settings, self.script, self.raised)
            patient = job._patient(result.mode)
            try:
                same = all(domains[n].dtype == d.dtype for n, d in self.domains.items())
                trace = result.paths[0].trace if same else job.capture(job._starts(result.mode)[0], result.mode)
            except (WhynanError, _Refused) as error:
                yield from without_graph(patient, getattr(error, "message", "the loss raises on its domain"))
            else:
                yield from safe_ranges(patient, trace)

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

    def _search(self, mode: str, paths: Sequence[Path]) -> Searched:
        hints = [hint for p in paths for hint in _hints(p)]
        open_ = [p for p in paths if not p.proof.finite]
        return search(
            lambda inputs: self.run(inputs, mode),
            self.domains,
            starts=lambda: varied(paths, self.domains, self.settings.seed),
            hints=hints,
            proposals=lambda: itertools.chain.from_iterable(self._proposals(p) for p in open_),
            seed=self.settings.seed,
            evaluations=self.settings.evaluations,
            seconds=self.settings.budget,
            forecast=foreseeing(paths),
        )

    def _proposals(self, path: Path) -> Iterator[Inputs]:
        graph, seed = path.trace.graph, self.settings.seed
        yield from proposals(graph, path.proof, self.domains, seed)
        yield from solutions(graph, path.proof, self.domains, seed)

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
        return Witness(inputs, run.loss, run.gradients, lambda: self.script(inputs, mode), lambda again: self.really(again, mode))

    # ------------------------------------------------------------ from failures to findings

    def _refuted(self, mode: str, searched: Searched) -> Iterator[Finding]:
        """One finding per place and phase, each with its simplest witness."""
        found: dict[tuple[object, ...], tuple[Blame, Failure]] = {}
        effort = Effort()
        for failure in _varied(searched.failures)[:MOST_BLAMED]:
            if found and effort.seconds > self.settings.budget:
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
        """The blame of a compiled program's failure, put on the compiler where it took away what keeps the written program finite.

        Where the compiled program does not show why it fails, the written one is asked, if it fails too.
        """
        if mode == PLAIN:
            return why
        if why.cause == "other-domain-error" and self._fails(inputs, PLAIN):
            return blame(self.capture(inputs, PLAIN)) or why
        if not compiled.may_lack_epsilon(why):
            return why
        lost = compiled.removed(self.capture(inputs, mode).graph, why)
        if not lost or self._fails(inputs, PLAIN):
            return why
        return compiled.blamed_on(why, lost[0])

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
        return finding_of(why, mode, self._witness(mode, inputs, self.run(inputs, mode)))


def _alike(run: Run, other: Run) -> bool:
    """Whether two runs fail in the same outputs, and both or neither with a loss that is NaN."""
    return not run.error and signature(run) == signature(other) and _nan(run) == _nan(other)


def _nan(run: Run) -> bool:
    return bool(np.isnan(run.loss.astype(np.float64)).any())


def _key(why: Blame) -> tuple[object, ...]:
    return (why.phase, span_of(why.site), why.op)


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


def _hints(path: Path) -> Iterator[Hint]:
    names = {i: name for name, i in path.trace.graph.inputs.items()}
    return ({names[i]: r for i, r in box.items()} for box in path.proof.hints)


def _shapes(domains: Mapping[str, Domain]) -> str:
    return ", ".join(f"{name}={d}" for name, d in domains.items())


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
    joined = merged(findings)
    return Report(
        target=program.name,
        framework=program.framework,
        framework_version=program.framework_version,
        dtype=dtype_of(domains),
        modes=settings.modes,
        verdict=UNSAFE if joined else SAFE,
        seconds=time.perf_counter() - start,
        domain=domains,
        sites={"total": 0, "proven": 0, "refuted": len(joined), "undecided": 0},
        findings=joined,
        search={"evaluations": len(settings.modes), "screened": 0, "seconds": 0.0},
        notes=(*dict.fromkeys(notes), "one concrete input was run: nothing is proven about any other"),
    )
