"""One search for fixes: changed sources are run, compared with the original, checked again; what is left to mend is mended next."""

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from whynan.analysis.compare import Difference, Original, difference
from whynan.analysis.finding import SAFE, UNDECIDED, UNSAFE, Report
from whynan.analysis.search import Inputs, signature
from whynan.errors import FrameworkMissing, TargetError, WhynanError
from whynan.fixing.candidates import Known, candidates
from whynan.fixing.evidence import evidence_of
from whynan.fixing.job import Candidate, Job, State, first, key_of, keys
from whynan.ir.frontend import Program, Run
from whynan.ir.term import walk
from whynan.ir.where import Site
from whynan.patches.change import REVIEW, VERIFIED, FileChange, Fix, PatchError, diff, read_file
from whynan.patches.load import Isolated

ENOUGH = 2  # verified fixes, after which the search ends
MOST_AFTER = 2  # full checks after the first verified fix, in search of another
MOST_CHECKS = 12  # full checks of changed sources
MOST_TRIED = 60  # changed sources that are run at all
MOST_STEPS = 4  # defects mended one after the other
MOST_UNPROVEN = 1  # changes that keep the value but are not proven finite, to which more is done
MOST_REPEATED = 3  # candidates of one defect that are followed although another defect is left


@dataclass
class Search:
    """One search for fixes."""

    job: Job
    isolated: Isolated
    origin: Original
    known: Known
    checks: int = 0
    tried: int = 0
    first: int = 0  # checks until the first verified fix
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
        enough = self.verified >= ENOUGH or (self.verified > 0 and self.checks >= self.first + MOST_AFTER)
        return enough or self.checks >= MOST_CHECKS or self.tried >= MOST_TRIED

    def expand(self, state: State) -> list[State]:
        """Try all changes for the first defect of a source; those after which another is left, or finiteness is not proven, come back."""
        left: list[tuple[Candidate, Program]] = []
        unproven: list[State] = []
        for candidate in candidates(state, self.known):
            if self.over():
                return []
            if not self._new(candidate):
                continue
            program = self.program(candidate.texts)
            if program is None:
                continue
            self.tried += 1
            compared = difference(self.origin, partial(self.run, program))
            if compared.failing is not None:
                left += [(candidate, program)] if self._other(state, compared) else []
            else:
                unproven += self._judge(state, candidate, program, compared)
        if self.verified:
            return []
        return unproven[:MOST_UNPROVEN] or (self._followed(state, left) if not self.found else [])

    def _new(self, candidate: Candidate) -> bool:
        """Whether these texts have not been tried yet."""
        key = repr(sorted((str(p), t) for p, t in candidate.texts.items()))
        known = key in self.seen
        self.seen.add(key)
        return not known

    def _other(self, state: State, compared: Difference) -> bool:
        """Whether what fails after a change may be another defect than the one that was to be mended."""
        if len(keys(state.report)) > 1 or compared.failing is None or compared.failing.error:
            return not (compared.failing and compared.failing.error)
        before = self.origin.points[compared.first_failing]
        return signature(before.run) != signature(compared.failing)

    def _followed(self, state: State, left: Sequence[tuple[Candidate, Program]]) -> list[State]:
        """What a change leaves to mend, for changes that mend the defect but not all."""
        out: list[State] = []
        strong = [pair for pair in left if any(s.op == "finfo_eps" for _, s in walk(pair[0].proposal.term))][:1]
        for candidate, program in [*left[:1], *strong, *(pair for pair in left[1:] if pair not in strong)]:
            if len(out) >= MOST_REPEATED or self.over() or len(state.titles) + 1 >= MOST_STEPS:
                break
            report = self.check(program)
            if report is None or report.verdict != UNSAFE:
                continue
            here = keys(self.at_home(report))
            if key_of(first(state.report)) not in here:
                out.append(
                    State(
                        candidate.texts,
                        self.at_home(report),
                        (*state.titles, candidate.proposal.title),
                        (*state.proposals, candidate.proposal),
                        state.notes,
                    )
                )
        return out

    def _judge(self, state: State, candidate: Candidate, program: Program, compared: Difference) -> list[State]:
        """Keep a change after which nothing fails. If it keeps the value and is only not proven, the answer is the state it leads to."""
        report = self.check(program)
        if report is None or report.verdict == UNSAFE:
            return []
        proposals = (*state.proposals, candidate.proposal)
        titles = (*state.titles, candidate.proposal.title)
        evidence = replace(evidence_of(report, compared, proposals, self.cost(program)), notes=state.notes)
        same = not compared.changed and not compared.bent and not compared.missed
        applicability = VERIFIED if report.verdict == SAFE and same else REVIEW
        changes = tuple(self._change(path, text) for path, text in candidate.texts.items())
        fix = Fix("; then ".join(dict.fromkeys(titles)), applicability, "".join(diff(c) for c in changes), evidence, changes)
        moved, dead = len(compared.changed) + len(compared.bent), len(compared.dead) + len(compared.lost)
        rank = (applicability != VERIFIED, moved, bool(compared.away), dead, len(titles), candidate.rank)
        self.found.append((rank, fix))
        self.first = self.first or (self.checks if self.verified else 0)
        again = same and report.verdict == UNDECIDED and len(titles) < MOST_STEPS
        return [State(candidate.texts, self.at_home(report), titles, proposals, state.notes)] if again else []

    def _change(self, path: Path, text: str) -> FileChange:
        old, encoding, digest = read_file(path)
        return FileChange(path, old, text, encoding, digest)

    # ------------------------------------------------------------ runs

    def program(self, texts: Mapping[Path, str]) -> Program | None:
        """The program with these texts in place of files; None if it cannot be made."""
        job = self.job
        try:
            loss = self.isolated.changed(job.target, job.expression, texts)
            return job.remake(loss) if job.model is None else job.remake(loss, self._model(texts))
        except (PatchError, TargetError, FrameworkMissing):
            return None

    def _model(self, texts: Mapping[Path, str]) -> Any:
        """The changed model; as it is where it stands in no file."""
        home = self.job.model_home
        if home is None or not getattr(home, "__file__", None):
            return self.job.model
        return self.isolated.changed(self.job.model, self.job.model_expression, texts, home)

    def run(self, program: Program, inputs: Inputs) -> Run:
        """One run, with the gradients that the check looks at, in the first mode."""
        return program.run(inputs, tuple(n for n, d in self.job.domains.items() if d.grad), self.mode)

    def check(self, program: Program) -> Report | None:
        """The check of a changed program; None if it cannot be checked."""
        self.checks += 1
        try:
            return self.job.check(program)
        except WhynanError:
            return None

    def cost(self, program: Program) -> float:
        """The time of the changed loss relative to the original, both run on one ordinary input."""
        inputs = self.origin.points[-1].inputs
        return _seconds(lambda: self.run(program, inputs)) / max(_seconds(lambda: self.run(self.job.program, inputs)), 1e-9)

    def at_home(self, report: Report) -> Report:
        """The report with the user's files in place of the temporary ones."""
        homes = self.isolated.homes
        moved = [replace(f, site=_moved(f.site, homes)) for f in report.findings]
        left = [replace(o, site=_moved(o.site, homes)) for o in report.undecided]
        return replace(report, findings=tuple(moved), undecided=tuple(left))


def _moved(site: Site | None, homes: Mapping[str, Path]) -> Site | None:
    return site if site is None or site.file not in homes else replace(site, file=str(homes[site.file]))


def _seconds(act: Callable[[], object], times: int = 5) -> float:
    taken = []
    for _ in range(times):
        start = time.perf_counter()
        act()
        taken.append(time.perf_counter() - start)
    return float(np.median(taken))
