"""The search for fixes: proposals for each failing expression, written into the source, run, checked again, compared with the original.

A fix is verified if the same check proves the changed source finite and its value is the original's wherever the original is finite.
Several defects are mended one after the other. Limits are counts, so that the same loss gets the same fixes on any machine.
"""

import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from whynan.analysis.compare import Difference, Original, difference, original
from whynan.analysis.finding import SAFE, UNDECIDED, UNSAFE, Finding, Report
from whynan.analysis.propagate import propagate
from whynan.analysis.search import Inputs, signature
from whynan.config import Settings
from whynan.domain.abstract import bounds_of
from whynan.domain.spec import Domain
from whynan.errors import FrameworkMissing, TargetError, WhynanError
from whynan.fixes import Proposal, propose
from whynan.fixes._proposal import EQUIVALENT
from whynan.frontends.source import USER, kind_of
from whynan.ir.dtype import FORMATS, Format
from whynan.ir.frontend import Program, Run, Trace
from whynan.ir.graph import FORWARD
from whynan.ir.term import Term, size
from whynan.ir.where import Site
from whynan.patches.advice import advice
from whynan.patches.change import ADVICE, REVIEW, VERIFIED, Evidence, FileChange, Fix, PatchError, diff, read_file
from whynan.patches.load import Isolated
from whynan.patches.read import Context, contexts
from whynan.patches.source import Source
from whynan.patches.spell import Unwritable
from whynan.patches.wrapper import wrappers
from whynan.patches.write import rewritten

ENOUGH = 2  # verified fixes, after which the search ends
MOST_SHOWN = 5
MOST_CHECKS = 12  # full checks of changed sources
MOST_TRIED = 60  # changed sources that are run at all
MOST_STEPS = 4  # defects mended one after the other
MOST_LOOKED_AT = 3  # expressions around the failing one, the largest apart
LARGE = 60  # operations: what is larger is not changed as a whole
MOST_REPEATED = 3  # candidates of one defect that are followed although another defect is left


@dataclass(frozen=True, eq=False)
class Job:
    """A loss to be fixed: the program, its ready domains, the options, and how to make a program of another callable and check it."""

    target: Any
    expression: str  # what names the target in its module; "" where nothing does
    program: Program
    domains: Mapping[str, Domain]
    settings: Settings
    remake: Callable[[Any], Program]
    check: Callable[[Program], Report]


@dataclass(frozen=True, eq=False)
class State:
    """A source under repair: the texts of the changed files, the check's answer, and what was done so far."""

    texts: Mapping[Path, str]
    report: Report
    titles: tuple[str, ...] = ()
    proposals: tuple[Proposal, ...] = ()


@dataclass(frozen=True, eq=False)
class Candidate:
    """A changed source that has not been checked yet."""

    texts: Mapping[Path, str]
    proposal: Proposal
    rank: tuple[int, ...]


@dataclass
class _Search:
    """One search for fixes."""

    job: Job
    isolated: Isolated
    origin: Original
    trace: Trace
    checks: int = 0
    tried: int = 0
    seen: set[str] = field(default_factory=set)
    found: list[tuple[tuple[object, ...], Fix]] = field(default_factory=list)

    @property
    def mode(self) -> str:
        """The mode in which changed sources are run first."""
        return self.job.settings.modes[0]

    @property
    def verified(self) -> int:
        """How many verified fixes were found."""
        return sum(fix.applicability == VERIFIED for _, fix in self.found)

    def over(self) -> bool:
        """Whether enough has been found or tried."""
        return self.verified >= ENOUGH or self.checks >= MOST_CHECKS or self.tried >= MOST_TRIED

    def expand(self, state: State) -> list[State]:
        """Try all changes for the first defect of a source; those after which another one is left come back."""
        left: list[tuple[Candidate, Program]] = []
        for candidate in self._candidates(state):
            if self.over():
                return []
            program = self._program(candidate)
            if program is None:
                continue
            self.tried += 1
            compared = difference(self.origin, partial(self._run, program))
            if compared.failing is not None:
                left += [(candidate, program)] if self._other(state, compared) else []
            else:
                self._judge(state, candidate, program, compared)
        return self._followed(state, left) if not self.found else []

    def _other(self, state: State, compared: Difference) -> bool:
        """Whether what fails after a change may be another defect than the one that was to be mended."""
        if len(_keys(state.report)) > 1 or compared.failing is None or compared.failing.error:
            return not (compared.failing and compared.failing.error)
        before = self.origin.points[compared.first_failing]
        return signature(before.run) != signature(compared.failing)

    def _followed(self, state: State, left: Sequence[tuple[Candidate, Program]]) -> list[State]:
        """What a change leaves to mend, for changes that mend the defect but not all."""
        out: list[State] = []
        for candidate, program in left:
            if len(out) >= MOST_REPEATED or self.over() or len(state.titles) + 1 >= MOST_STEPS:
                break
            report = self._check(program)
            if report is None or report.verdict != UNSAFE:
                continue
            here = _keys(self._at_home(report))
            if _key(_first(state.report)) not in here:
                out.append(
                    State(
                        candidate.texts,
                        self._at_home(report),
                        (*state.titles, candidate.proposal.title),
                        (*state.proposals, candidate.proposal),
                    )
                )
        return out

    def _judge(self, state: State, candidate: Candidate, program: Program, compared: Difference) -> None:
        report = self._check(program)
        if report is None or report.verdict == UNSAFE:
            return
        proposals = (*state.proposals, candidate.proposal)
        titles = (*state.titles, candidate.proposal.title)
        evidence = _evidence(report, compared, proposals, self._cost(program))
        same = not compared.changed and not compared.bent and not compared.missed
        applicability = VERIFIED if report.verdict == SAFE and same else REVIEW
        changes = tuple(self._change(path, text) for path, text in candidate.texts.items())
        fix = Fix("; then ".join(dict.fromkeys(titles)), applicability, "".join(diff(c) for c in changes), evidence, changes)
        moved, dead = len(compared.changed) + len(compared.bent), len(compared.dead) + len(compared.lost)
        rank = (applicability != VERIFIED, moved, bool(compared.away), dead, len(titles), candidate.rank)
        self.found.append((rank, fix))

    def _change(self, path: Path, text: str) -> FileChange:
        old, encoding, digest = read_file(path)
        return FileChange(path, old, text, encoding, digest)

    # ------------------------------------------------------------ candidates

    def _candidates(self, state: State) -> Iterator[Candidate]:
        """Changes that keep the value first, from the smallest expression to the largest; then the others in order of rank."""
        others: list[Candidate] = []
        for candidate in self._proposed(state):
            if candidate.proposal.kind == EQUIVALENT:
                yield from self._news(candidate)
            else:
                others.append(candidate)
        for candidate in sorted(others, key=lambda c: c.rank):
            yield from self._news(candidate)

    def _news(self, candidate: Candidate) -> Iterator[Candidate]:
        key = repr(sorted((str(p), t) for p, t in candidate.texts.items()))
        if key not in self.seen:
            self.seen.add(key)
            yield candidate

    def _proposed(self, state: State) -> Iterator[Candidate]:
        finding = _first(state.report)
        place = finding.site if finding is not None else None
        if finding is None or place is None:
            return
        path = Path(place.file).resolve()
        text = state.texts.get(path) or _text(path)
        if text is None or kind_of(str(path)) != USER:
            return
        around = contexts(Source(text), self.job.program.framework, (place.line, place.column), (place.end_line, place.end_column))
        ranges, fmt, mode = self._ranges(), self._format(place), (finding.modes or (self.mode,))[0]
        for k, context in enumerate(telling(around)):
            made = list(propose(context.term, context.at, finding.cause, ranges, fmt, mode))
            if context.expanded is not None:
                made = [Proposal(context.expanded, _WRITTEN_OUT, EQUIVALENT), *made]
                made += propose(context.expanded, context.at, finding.cause, ranges, fmt, mode)
            for i, proposal in enumerate(made):
                new = _without_signs(around, context, proposal) or _written(context, proposal)
                if new is not None and new != text:
                    yield Candidate({**state.texts, path: new}, proposal, _rank(proposal, i, k, len(new)))

    def _ranges(self) -> dict[str, tuple[float, float]]:
        """What is known of expressions by their text: inputs by their domains, others by the bounds of the original's graph."""
        bounds = {name: bounds_of(self.job.domains[name]) for name in self.trace.graph.inputs}
        proof = propagate(self.trace.graph, bounds, 2000)
        known: dict[str, tuple[float, float]] = {}
        for node, b in zip(self.trace.graph.nodes, proof.bounds, strict=True):
            if node.phase == FORWARD and node.site is not None and b.lo.size and not b.may_nan.any():
                known[node.site.text] = (float(b.lo.min()), float(b.hi.max()))
        return known | {name: (float(b.lo.min()), float(b.hi.max())) for name, b in bounds.items() if b.lo.size}

    def _format(self, place: Site) -> Format:
        """The format of the failing operation."""
        here = [n.format for n in self.trace.graph.nodes if n.site == place and n.format.is_float]
        return here[-1] if here else FORMATS[self._dtype()]

    def _dtype(self) -> str:
        return next((d.dtype for d in self.job.domains.values() if d.format.is_float), "float32")

    # ------------------------------------------------------------ runs

    def _program(self, candidate: Candidate) -> Program | None:
        try:
            return self.job.remake(self.isolated.changed(self.job.target, self.job.expression, candidate.texts))
        except (PatchError, TargetError, FrameworkMissing):
            return None

    def _run(self, program: Program, inputs: Inputs) -> Run:
        return program.run(inputs, tuple(n for n, d in self.job.domains.items() if d.grad), self.mode)

    def _check(self, program: Program) -> Report | None:
        self.checks += 1
        try:
            return self.job.check(program)
        except WhynanError:
            return None

    def _cost(self, program: Program) -> float:
        """The time of the changed loss relative to the original, both run on one ordinary input."""
        inputs = self.origin.points[-1].inputs
        return _seconds(lambda: self._run(program, inputs)) / max(_seconds(lambda: self._run(self.job.program, inputs)), 1e-9)

    def _at_home(self, report: Report) -> Report:
        """The report with the user's files in place of the temporary ones."""
        homes = self.isolated.homes
        moved = [replace(f, site=_moved(f.site, homes)) for f in report.findings]
        return replace(report, findings=tuple(moved))


def fixes(job: Job, report: Report) -> list[Fix]:
    """The fixes of an unsafe loss, best first; empty if it has no failure that a change of the source could remove."""
    if _first(report) is None:
        return []
    with Isolated() as isolated:
        search = _Search(job, isolated, *_origin(job, report))
        states = [State({}, report)]
        try:
            while states and not search.over() and not search.verified:
                states = [*states[1:], *search.expand(states[0])]
        except KeyboardInterrupt:
            if not search.found:
                raise  # else what was found until now is the answer
        around = [] if search.found else list(_around(search))
    ordered = sorted(search.found, key=lambda pair: pair[0])
    return [*(fix for _, fix in ordered[:MOST_SHOWN]), *around, *_advice(job, report)]


def _around(search: _Search) -> Iterator[Fix]:
    """Functions around a loss whose own source could not be mended, checked and compared like a change of it; they are advice."""
    job = search.job
    if job.program.parameters:
        return
    for made in wrappers(job.program.framework, job.expression or getattr(job.target, "__name__", ""), job.domains):
        space: dict[str, Any] = {made.inner: job.target}
        try:
            exec(compile(made.text, "<whynan wrapper>", "exec", dont_inherit=True), space)
            program = job.remake(space[made.name])
        except (ImportError, TargetError, FrameworkMissing):
            return
        compared = difference(search.origin, partial(search._run, program))
        report = search._check(program) if compared.failing is None else None
        if report is None or report.verdict == UNSAFE:
            continue
        evidence = _evidence(report, compared, (), search._cost(program))
        note = "the source is left as it is: put this function beside your own code and call it instead"
        yield Fix(made.title, ADVICE, made.text, replace(evidence, notes=(note,)))


def _advice(job: Job, report: Report) -> Iterator[Fix]:
    """What to change outside the loss, if that is better than any change of it."""
    place = next((f.site for f in report.findings if f.cause in _FROM_PROBABILITIES and f.site is not None), None)
    text = _text(Path(place.file)) if place is not None else None
    if place is None or text is None:
        return
    around = contexts(Source(text), job.program.framework, (place.line, place.column), (place.end_line, place.end_column))
    given = [n for n, d in job.domains.items() if d.kind == "prob" and d.grad]
    said = advice(around[0], given) if around else ""
    if said:
        yield Fix(said, ADVICE, "", Evidence("", 0, 0, None, "", "", None, ("the change is outside the loss",)))


def _origin(job: Job, report: Report) -> tuple[Original, Trace]:
    mode = job.settings.modes[0]
    wrt = tuple(n for n, d in job.domains.items() if d.grad)
    witnesses = [f.witness.inputs for f in report.findings if f.kind == "non-finite" and f.witness is not None]
    trace = job.program.capture(witnesses[0], wrt, mode) if witnesses else None
    if trace is None:
        raise TargetError(f"{job.program.name} has no input on which it fails.", "Check it first.")
    dtype = next((d for d in job.domains.values() if d.format.is_float), None)
    eps = dtype.format.eps if dtype is not None else 1e-7
    before = original(lambda inputs: job.program.run(inputs, wrt, mode), trace, job.domains, witnesses, eps, job.settings.seed)
    return before, trace


def _evidence(report: Report, compared: Difference, proposals: Sequence[Proposal], cost: float) -> Evidence:
    changed = ""
    if compared.changed:
        point, new = max(compared.changed, key=lambda pair: abs(pair[1] - _true(pair[0])))
        changed = (
            f"the value changes on {len(compared.changed)} of {compared.compared} inputs, at most from {_true(point):.6g} to {new:.6g}"
            + "".join(f"; {p.changes}" for p in proposals if p.changes)
        )
    elif compared.missed:
        point, new = max(compared.missed, key=lambda pair: abs(pair[1] - _true(pair[0])))
        changed = (
            f"where the original fails the value is another one than in real arithmetic on {len(compared.missed)} inputs "
            f"(there to {new:.6g}, the true value is {_true(point):.6g})"
        )
    elif compared.away:
        point, new = max(compared.away, key=lambda pair: abs(pair[1] - _true(pair[0])))
        changed = (
            "the value changes only where the original fails, or so close to there that rounding alone moves it as much "
            f"(there to {new:.6g}, the true value is {_true(point):.6g})"
        )
    elif any(p.changes for p in proposals):
        changed = f"the value changes on none of {compared.compared} inputs on which the original is finite; by design, " + "; ".join(
            p.changes for p in proposals if p.changes
        )
    return Evidence(report.verdict, compared.compared, compared.mended, compared.largest, changed, _gradient(compared), round(cost, 2))


def _gradient(compared: Difference) -> str:
    """What happens to the gradients, in words."""
    said = []
    if compared.bent:
        names = ", ".join(sorted({name for _, name in compared.bent}))
        said.append(f"the gradient by {names} changes on {len({id(p) for p, _ in compared.bent})} inputs where the original's is right")
    if compared.dead:
        said.append(f"the gradient by {', '.join(compared.dead)} becomes 0 on some inputs where it was not")
    if compared.lost:
        said.append(f"the gradient by {', '.join(compared.lost)} is 0 on some inputs where the original fails and the true one is not 0")
    return "; ".join(said) or "gradient alive"


def _true(point: Any) -> float:
    return float(point.exact) if point.exact is not None and np.isfinite(point.exact) else float(np.sum(point.run.loss.astype(np.float64)))


_FROM_PROBABILITIES = frozenset({"log-of-zero", "epsilon-rounds-away", "epsilon-removed-by-compiler"})
_WRITTEN_OUT = "write the library's call out"
_LINEAR = frozenset({"mean", "sum", "cast", "move"})
_PLAIN = frozenset({"neg", "mean", "sum", "cast", "move", "opaque", "detach"})  # around a context, these offer no further change


def telling(around: Sequence[Context]) -> list[Context]:
    """The contexts worth a look of their own: the failing expression, those that add an operation which may matter, and the largest."""
    chosen = [c for k, c in enumerate(around) if k == 0 or c.term.op not in _PLAIN][:MOST_LOOKED_AT]
    last = [c for c in around if size(c.term) <= LARGE][-1:]
    return chosen + [c for c in last if c not in chosen]


def _rank(proposal: Proposal, position: int, context: int, length: int) -> tuple[int, ...]:
    """Where a candidate stands in line: what keeps the value first, then the proposals' own order, then what reads shorter."""
    same = proposal.kind == EQUIVALENT
    return (0, position, length) if same else (1, position + context, context)


def _first(report: Report) -> Finding | None:
    return next((f for f in report.findings if f.kind == "non-finite" and f.severity == "error"), None)


def _key(finding: Finding | None) -> tuple[object, ...]:
    return () if finding is None or finding.site is None else (finding.site.file, finding.site.function, finding.site.text, finding.op)


def _keys(report: Report) -> set[tuple[object, ...]]:
    return {_key(f) for f in report.findings if f.kind == "non-finite"}


def _moved(site: Site | None, homes: Mapping[str, Path]) -> Site | None:
    return site if site is None or site.file not in homes else replace(site, file=str(homes[site.file]))


def _written(context: Context, proposal: Proposal) -> str | None:
    try:
        return rewritten(context, proposal.term)
    except Unwritable:
        return None


def _without_signs(around: Sequence[Context], inner: Context, proposal: Proposal) -> str | None:
    """A change to -y whose place is negated once more, as in -(…).mean(), with both signs left out: y.mean(). Signs round nothing."""
    if proposal.term.op != "neg" or proposal.kind != EQUIVALENT:
        return None
    for outer in around:
        if outer.term.op == "neg" and outer.source is inner.source:
            whole = _inside(outer.term.args[0], inner.term, proposal.term.args[0])
            if whole is not None:
                return _written(outer, replace(proposal, term=whole))
    return None


def _inside(whole: Term, old: Term, new: Term) -> Term | None:
    """The term with another one in place of `old`, if only sums, means and moves stand between."""
    if whole == old:
        return new
    if whole.op not in _LINEAR or len(whole.args) != 1:
        return None
    below = _inside(whole.args[0], old, new)
    return None if below is None else replace(whole, args=(below,))


def _text(path: Path) -> str | None:
    try:
        return read_file(path)[0]
    except PatchError:
        return None


def _seconds(act: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))


__all__ = ["UNDECIDED", "Job", "fixes"]
