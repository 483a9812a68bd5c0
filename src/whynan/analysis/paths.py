"""All paths that the code takes on the domain, each recorded as a graph of its own.

Where Python code looks at a value, a recording shows one path. The looks of all recordings form a tree: recordings whose looks had the same
outcomes so far look at the same value next. `explore` asks at each look of that tree which outcomes are possible on the inputs that come to
it. For each that no recording has it records the path while the code is told that outcome, and is content if all is finite there: then it
does not matter which inputs take it. Else it looks for an input (`reach`) and records the loss on it, or shows that there is none. If
nothing is left over, every input of the domain takes one of the recorded paths. Each path's graph is proven for the inputs that take it:
what its outcomes imply (`conditions`) is known there.
"""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whynan.analysis.arrays import is_read, possible, value_of
from whynan.analysis.cases import Problem, by_cases
from whynan.analysis.combinations import cases_of, fixed_in
from whynan.analysis.conditions import contradictory, implied
from whynan.analysis.coverage import PATH, covered, uncovered, varying
from whynan.analysis.discrete import outcomes
from whynan.analysis.finding import Open
from whynan.analysis.forecast import Forecast, Forecaster, on_its_path
from whynan.analysis.looks import Look, between, countable, inside, looks_of
from whynan.analysis.propagate import Proof
from whynan.analysis.reach import Outcome, followers, following, neighbours, reach, readable
from whynan.analysis.recordings import Gap, Recorded, closes, complaint, text_of
from whynan.analysis.view import View
from whynan.domain.interval import Bounds, collapse
from whynan.domain.spec import Domain
from whynan.errors import WhynanError
from whynan.ir.dtype import Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import FORWARD, Assumption, Graph

Inputs = Mapping[str, Array]

MOST_PATHS = 20  # for which an input is needed
MOST_LED = 64  # with those that the code is led along
FEW_PATHS = 6  # once it is known that not all can be covered, so many are recorded for the search
LEAST_BOXES = 2000  # of branch and prune in each case
MOST_LEFT = 4  # outcomes that are neither reached nor excluded: beyond, no others are looked at
MOST_TRIED = 3  # recordings made for one wanted outcome
VARIED = 12  # inputs of each path that the search tries
PARTNERS = 24  # inputs among which a second one for the same path is looked for


@dataclass(frozen=True, slots=True, eq=False)
class Path:
    """One way through the code: its recording, an input that takes it, and what is proven for all inputs that do."""

    trace: Trace
    proof: Proof
    inputs: Inputs


@dataclass(frozen=True, slots=True, eq=False)
class Covered:
    """The recorded paths, the one of the first input first, and why they may not be all."""

    paths: tuple[Path, ...]
    unproven: tuple[Open, ...]


def explore(problem: Problem, trace: Trace, proof: Proof, first: Inputs, second: Inputs) -> Covered:
    """All paths, from two ordinary inputs, the recording on the first of them and its proof on the whole domain."""
    other = problem.capture(second)
    look = uncovered(trace.graph, proof)
    if look is None:
        return Covered((Path(trace, by_cases(problem, trace.graph, proof), first),), tuple(varying(trace.graph, other.graph)))
    cases = cases_of(trace.graph, look, problem.domains)
    if cases:
        return _by_cases(problem, look, cases, first, second)
    explorer = _Explorer(problem, second)
    explorer.add(trace, first, proof)
    explorer.add(other, second)
    explorer.run()
    cases = _later_cases(problem, trace.graph, proof) if explorer.left else []
    if cases:
        return _by_cases(problem, look, cases, first, second)
    return Covered(tuple(explorer.proven()), tuple(dict.fromkeys(explorer.left)))


def _later_cases(problem: Problem, graph: Graph, proof: Proof) -> list[dict[str, Domain]]:
    """Cases of a look that is not the first."""
    later = (a for a in graph.assumptions if not covered(a, proof))
    return next((cases for a in later if (cases := cases_of(graph, a, problem.domains))), [])


def _by_cases(problem: Problem, look: Assumption, cases: Sequence[Mapping[str, Domain]], first: Inputs, second: Inputs) -> Covered:
    """The paths of all cases; once a few are not proven no others are looked at."""
    paths: list[Path] = []
    left: list[Open] = []
    for done, case in enumerate(cases):
        fixed = fixed_in(case, problem.domains)
        part = replace(problem, domains=case, boxes=max(problem.boxes // len(cases), LEAST_BOXES))
        one, two = ({**inputs, **fixed} for inputs in (first, second))
        try:
            trace = problem.capture(one)
            found = explore(part, trace, part.prove(trace.graph), one, two)
        except WhynanError as error:
            said = ", ".join(f"{n} = {v.tolist()}" for n, v in fixed.items())
            left.append(complaint(look, f": for {said} {error.message.rstrip('.')}"))
            continue
        paths += found.paths
        left += found.unproven
        if len(left) + sum(not p.proof.finite for p in paths) >= MOST_LEFT and done + 1 < len(cases):
            left.append(complaint(look, f": {done + 1} of {len(cases)} cases were looked at"))
            break
    return Covered(tuple(paths), tuple(dict.fromkeys(left)))


def varied(paths: Sequence[Path], domains: Mapping[str, Domain], seed: int) -> Iterator[Inputs]:
    """For each path but a single one: its input, and others that take it."""
    for path in paths if len(paths) > 1 else ():
        yield path.inputs
        looks = path.trace.graph.assumptions
        if readable(path.trace.graph, looks):
            yield from followers(path.trace.graph, looks, neighbours(domains, path.inputs, PARTNERS, seed))[:VARIED]


def foreseeing(paths: Sequence[Path]) -> Forecaster | None:
    """A function that foresees the outputs on many inputs by the graph of the path that each takes; an input that takes none may fail.

    None where a graph cannot be evaluated or is not worth it.
    """
    graphs = [p.trace.graph for p in paths]
    plain = [on_its_path(g) for g in graphs]
    if len(graphs) == 1 and not graphs[0].assumptions:
        return plain[0]
    if any(f is None for f in plain) or not all(readable(g, g.assumptions) for g in graphs):
        return None

    def foresee(candidates: Sequence[Inputs]) -> Forecast:
        fails, steepness = np.ones(len(candidates), bool), np.zeros(len(candidates))
        for graph, forecast in zip(graphs, plain, strict=True):
            rows = following(graph, graph.assumptions, candidates)
            if rows and forecast is not None:
                found = forecast([candidates[k] for k in rows])
                fails[rows], steepness[rows] = found.fails, found.steepness
        return Forecast(fails, steepness)

    return foresee


# ---------------------------------------------------------------- the tree of looks


class _Explorer:
    """The recordings so far, and what was tried."""

    def __init__(self, problem: Problem, second: Inputs) -> None:
        self.problem = problem
        self.second = second
        self.recorded: list[Recorded] = []
        self.left: list[Open] = []
        self._tried: set[object] = set()
        self._interned: dict[object, int] = {}
        self._possible: dict[object, Bounds] = {}
        self._listed: dict[object, Mapping[float, Inputs] | None] = {}

    def add(self, trace: Trace, inputs: Inputs, proof: Proof | None = None) -> bool:
        """Take a recording in; returns whether its path is new. A second one of a path must be the same as the first."""
        looks = tuple(looks_of(trace.graph, self._interned))
        for known in self.recorded:
            if known.looks == looks:
                known.partnered = True
                self.left += varying(known.graph, trace.graph)
                return False
        self.recorded.append(Recorded(trace, inputs, looks, proof))
        return True

    def run(self) -> None:
        """Close one gap after the other."""
        while len(self.left) < MOST_LEFT and (gap := next(self._gaps(0, self.recorded), None)) is not None:
            self._tried.add(gap.name)
            self._close(gap)
        for r in list(self.recorded):
            if not self.left:  # else there is nothing to be sure of
                self._partner(r)

    def proven(self) -> Iterator[Path]:
        """Each path with what is proven on the inputs that take it."""
        for r in self.recorded:
            yield Path(r.trace, self._final(r), r.inputs)

    # ------------------------------------------------------------ gaps

    def _gaps(self, at: int, members: Sequence[Recorded]) -> Iterator[Gap]:
        """What is missing at look number `at` of recordings that are alike before it, and after it."""
        going = [r for r in members if len(r.looks) > at]
        if not going:
            return
        if len(going) < len(members) or len({r.looks[at].key for r in going}) > 1:
            self._complain(Open(PATH, None, FORWARD, "which operations are done changes with the input's values"))
            return
        groups: dict[Look, list[Recorded]] = {}
        for r in going:
            groups.setdefault(r.looks[at], []).append(r)
        first_of = [group[0] for group in groups.values()]
        missing = self._missing(going[0], at, first_of)
        if missing is None:
            self.left += [o for other in first_of[1:] for o in varying(first_of[0].graph, other.graph)]
        for gap in missing or ():
            if gap.name not in self._tried:
                yield gap
        for group in groups.values():
            yield from self._gaps(at + 1, group)

    def _missing(self, r: Recorded, at: int, recorded: Sequence[Recorded]) -> list[Gap] | None:
        """The possible outcomes that none of the recordings has; None if they are too many to be gone through."""
        node, seen = r.graph.nodes[r.graph.assumptions[at].node], [other.looks[at].outcome for other in recorded]
        if is_read(r.graph, r.graph.assumptions[at]) and (unread := self._unread(r, at, recorded)) is not None:
            return unread
        b = self._outcomes(r, at)
        if inside(b, seen):
            return []
        if not countable(node, b, seen):
            self._complain(complaint(r.graph.assumptions[at], ""))
            return None
        lo, hi = float(b.lo), float(b.hi)
        if b.integral:
            whole = [v for v in self._all(r, at) or map(float, range(int(lo), int(hi) + 1)) if lo <= v <= hi]
            return [Gap(r, at, v, v) for v in whole if not any(low <= v <= high for low, high in seen)]
        return [Gap(r, at, low, high) for low, high in between(node, lo, hi, seen)]

    def _unread(self, r: Recorded, at: int, recorded: Sequence[Recorded]) -> list[Gap] | None:
        """The arrays that may be read and that no recording has; None if they are too many."""
        looks = r.graph.assumptions
        every = possible(r.graph, self._plain(r)[0].bounds, looks[:at], looks[at])
        seen = [value_of(other.graph, other.graph.assumptions[at]) for other in recorded]
        return None if every is None else [Gap(r, at, 1.0, 1.0, v) for v in every if not any(np.array_equal(v, w) for w in seen)]

    def _all(self, r: Recorded, at: int) -> Mapping[float, Inputs] | None:
        """All values that a look at whole numbers can see, each with inputs that give it, if they can be gone through."""
        name = r.looks[:at]
        if name not in self._listed:
            looks = r.graph.assumptions
            self._listed[name] = outcomes(r.graph, self._plain(r)[0].bounds, looks[:at], looks[at], self.problem.domains)
        return self._listed[name]

    def _outcomes(self, r: Recorded, at: int) -> Bounds:
        """What a look can see on the inputs that come to it."""
        node = r.graph.assumptions[at].node
        proof, _ = self._plain(r)
        whole = collapse(proof.bounds[node], 0)
        if at == 0 or inside(whole, [r.looks[at].outcome]):
            return whole
        name = r.looks[:at]
        if name not in self._possible:
            self._possible[name] = collapse(self._before(r, at)[0].bounds[node], 0)
        return self._possible[name]

    def _before(self, r: Recorded, at: int, wanted: Assumption | None = None) -> tuple[Proof, Mapping[int, Bounds]]:
        """The proof of what runs up to a look, on the inputs that come to it (and have the wanted outcome); what was known beforehand."""
        looks = r.graph.assumptions
        last = max(a.node for a in looks[: at + 1])
        graph = Graph(r.graph.nodes[: last + 1], {n: i for n, i in r.graph.inputs.items() if i <= last}, (), looks[: at + 1])
        proof, _ = self._plain(r)
        given = implied(View(graph), proof.bounds, [*looks[:at], *([wanted] if wanted else [])])
        return self.problem.prove(graph, given), given

    def _plain(self, r: Recorded) -> tuple[Proof, View]:
        """The proof of a recording's graph on the whole domain."""
        if r.plain is None:
            r.plain = self.problem.prove(r.graph)
        if r.view is None:
            r.view = View(r.graph)
        return r.plain, r.view

    def _final(self, r: Recorded) -> Proof:
        """The proof of a recording's graph for the inputs that take its path."""
        if r.final is None:
            proof, view = self._plain(r)
            if not proof.finite:
                given = implied(view, proof.bounds, r.graph.assumptions)
                proof = self.problem.prove(r.graph, given) if given else proof
            r.final = by_cases(self.problem, r.graph, proof)
        return r.final

    # ------------------------------------------------------------ closing them

    def _close(self, gap: Gap) -> None:
        """Record the loss on an input with the missing outcome, or show that there is none; else complain."""
        look = gap.wanted[1]
        if len(self.recorded) < MOST_LED and not self.left and self._led(gap):
            return
        if len(self.recorded) >= (FEW_PATHS if self.left else MOST_PATHS):
            self._complain(complaint(look, f" than the {len(self.recorded)} that were recorded"))
            return
        said = ""
        reached = self._reached(gap)[:MOST_TRIED]
        for k, inputs in enumerate(reached):
            try:
                trace = self.problem.capture(inputs)
            except WhynanError as error:
                said = f": where it is {text_of(gap)}, {error.message.rstrip('.')}"
                continue
            if self.add(trace, inputs) and closes(self.recorded[-1], gap):
                self.recorded[-1].also = reached[k + 1 :]
                return
        if not self._impossible(gap):
            neither = f", the one for {text_of(gap)}: no input was found that takes it, and no proof that there is none"
            self._complain(complaint(look, said or neither))

    def _led(self, gap: Gap) -> bool:
        """Whether the path is proven on a recording in which the code was told the missing outcome; the recording is taken in then."""
        if gap.array is not None or gap.low != gap.high:
            return False
        told = [*(look.outcome[0] for look in gap.member.looks[: gap.at]), gap.low]
        r = self._along(told, gap.member.inputs)
        if r is None or not closes(r, gap) or not self._final(r).finite:
            return False
        self.recorded.append(r)
        return True

    def _along(self, told: Sequence[float], inputs: Inputs) -> Recorded | None:
        """The recording of the code that is told these outcomes; None if it cannot be led there."""
        try:
            trace = self.problem.lead(inputs, told) if self.problem.lead is not None else None
        except WhynanError:
            return None
        return Recorded(trace, inputs, tuple(looks_of(trace.graph, self._interned)), led=True) if trace is not None else None

    def _reached(self, gap: Gap) -> list[Inputs]:
        (graph, look), before = gap.wanted, gap.member.graph.assumptions[: gap.at]
        if not readable(graph, (*before, look)):
            return []
        starts = self._arriving(gap.member, gap.at)
        if not starts:
            return []
        listed = self._all(gap.member, gap.at) or {}
        starts += [{**starts[0], **whole} for v, whole in listed.items() if gap.low <= v <= gap.high]
        return reach(Outcome(graph, before, look), self.problem.domains, starts, self.problem.seed)

    def _arriving(self, r: Recorded, at: int) -> list[Inputs]:
        """Inputs that come to a look of a recording. Where the code was led so far, and no input is known to come, they are looked for."""
        known = [other.inputs for other in self.recorded if other.looks[:at] == r.looks[:at] and not other.led]
        if known or not at:
            return known
        looks, starts = r.graph.assumptions, self._arriving(r, at - 1)
        if not starts or not readable(r.graph, looks[:at]):
            return []
        return reach(Outcome(r.graph, looks[: at - 1], looks[at - 1]), self.problem.domains, starts, self.problem.seed)[:MOST_TRIED]

    def _impossible(self, gap: Gap) -> bool:
        """Whether no input has the outcome: then some value that it implies something about can have none."""
        if gap.array is not None:
            return False
        proof, given = self._before(gap.member, gap.at, gap.wanted[1])
        graph = gap.member.graph
        return contradictory(graph, proof.bounds, given)

    def _partner(self, r: Recorded) -> None:
        """A number that changes although the path is the same was computed out of sight: a second recording shows it."""
        if r.led and (other := self._along([look.outcome[0] for look in r.looks], self.second)) is not None:
            self.add(other.trace, self.second)
        if r.partnered:
            return
        looks = r.graph.assumptions
        tried = neighbours(self.problem.domains, r.inputs, PARTNERS, self.problem.seed) if readable(r.graph, looks) else []
        for inputs in [*r.also, *followers(r.graph, looks, tried)][: 2 * MOST_TRIED]:
            if all(np.array_equal(v, r.inputs[n]) for n, v in inputs.items()):
                continue
            try:
                self.add(self.problem.capture(inputs), inputs)
            except WhynanError:
                continue
            if r.partnered:
                return
        site = looks[-1].site
        reason = f"only one input is known that takes the path of {looks[-1].what} here: there is none to compare it with"
        self._complain(Open(PATH, site, FORWARD, reason))

    def _complain(self, what: Open) -> None:
        self.left.append(what)
