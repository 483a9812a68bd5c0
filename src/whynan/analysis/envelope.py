"""Safe ranges: how large an input may be while everything is proven finite, and an input just beyond on which the loss fails.

One input is varied, the others keep their domains. Only inputs of an unbounded kind have a range to speak of: that a probability lies
in [0, 1] is what it means. The range is bisected over the numbers that the dtype has, with a proof below and a failing run of the real
function above; where the two do not meet, both ends are told. Ranges are nested, so that a proof holds for every smaller range and a
failing input lies in every larger one.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.coverage import uncovered, varying
from whynan.analysis.effort import Effort
from whynan.analysis.finding import SafeRange
from whynan.analysis.forecast import Forecaster, forecaster
from whynan.analysis.health import Patient
from whynan.analysis.propagate import Proof, propagate
from whynan.analysis.search import Failure, Inputs, search, signature
from whynan.domain import sample
from whynan.domain.abstract import bounds_of
from whynan.domain.spec import Domain
from whynan.errors import WhynanError
from whynan.ir.dtype import Array, Format, from_ordinal, ordinal
from whynan.ir.frontend import Trace

UNBOUNDED = ("real", "logit", "positive", "nonnegative")
CLOSER_LOOKS = 12  # proofs by branch and prune, where the plain bounds do not reach the failing input
FEWER = 4  # by so much fewer boxes than the check itself has
FORESEEN = 3  # of the candidates that the graph foresees to fail, so many are run
UNFORESEEN = 2  # the graph's arithmetic is not the library's to the last bit: of the others, so many are run
SEARCHED = 160  # candidates of the one full search, where no plain candidate fails anywhere
SECONDS = 4.0  # of work per range, for a loss that takes long to run or a graph that takes long to bound


def safe_ranges(patient: Patient, trace: Trace) -> Iterator[SafeRange]:
    """The range of each input of an unbounded kind; where one has none since the others' domains are too wide, that of all together."""
    names = [n for n, d in patient.domains.items() if d.value is None and d.kind in UNBOUNDED and n in trace.graph.inputs]
    alone = [_range(patient, trace, (name,)) for name in names]
    yield from alone
    formats = {patient.domains[n].dtype for n in names}
    if len(names) > 1 and len(formats) == 1 and any(r.proven is None for r in alone):
        together = _range(patient, trace, tuple(names))
        if together.proven is not None:
            yield together


def without_graph(patient: Patient, reason: str) -> Iterator[SafeRange]:
    """What is known of a dtype in which the loss cannot be recorded: nothing."""
    for name, d in patient.domains.items():
        if d.value is None and d.kind in UNBOUNDED:
            yield SafeRange((name,), d.dtype, patient.mode, None, reason=reason)


def envelope_of(ranges: tuple[SafeRange, ...]) -> dict[str, dict[str, float]]:
    """By input and dtype the largest magnitude that is proven in every mode; what is not proven in some mode is left out."""
    found: dict[tuple[str, str], list[float | None]] = {}
    for r in ranges:
        if len(r.inputs) == 1:
            found.setdefault((r.inputs[0], r.dtype), []).append(r.proven)
    out: dict[str, dict[str, float]] = {}
    for (name, dtype), proven in found.items():
        least = [p for p in proven if p is not None]
        if len(least) == len(proven):
            out.setdefault(name, {})[dtype] = min(least)
    return out


# ---------------------------------------------------------------- one range


@dataclass(frozen=True, slots=True, eq=False)
class _Question:
    """Which inputs are varied, over which numbers, and what is needed to prove and to run."""

    patient: Patient
    trace: Trace
    names: tuple[str, ...]
    fmt: Format
    forecast: Forecaster | None
    effort: Effort

    @property
    def first(self) -> int:
        """The ordinal of the smallest range: of the input's own lower end, or of 0 where it lies on both sides of it."""
        inner = [max(d.low, -d.high, 0.0) for d in (self.patient.domains[n] for n in self.names)]
        return int(ordinal(self.fmt, max(inner)))

    @property
    def last(self) -> int:
        """The ordinal of the dtype's largest number."""
        return int(ordinal(self.fmt, self.fmt.max))

    @property
    def late(self) -> bool:
        """Whether the time for this range is spent."""
        return self.effort.seconds > SECONDS

    def domains(self, place: int) -> dict[str, Domain]:
        """All domains, those of the varied inputs reaching up to the magnitude of that ordinal."""
        size = self.size(place)
        return {n: _reaching(d, size) if n in self.names else d for n, d in self.patient.domains.items()}

    def size(self, place: int) -> float:
        """The magnitude of an ordinal."""
        return float(from_ordinal(self.fmt, np.asarray(place)))


def _reaching(d: Domain, size: float) -> Domain:
    """The domain with |x| up to `size`: on both sides of 0, or on the side on which it lies."""
    if d.low >= 0:
        return d.but(low=min(d.low, size), high=size)
    return d.but(low=-size, high=max(d.high, -size) if d.high <= 0 else size)


def _range(patient: Patient, trace: Trace, names: tuple[str, ...]) -> SafeRange:
    dtype = patient.domains[names[0]].format
    q = _Question(patient, trace, names, dtype, forecaster(trace.graph), Effort())
    proven = _bisected(q, lambda place: _proof(q, place, refine=False) is not None, q.first - 1, q.last + 1)[0]
    if proven == q.last:
        return _told(q, proven, None)
    failing, failure = _failing_above(q, proven)
    if failing > proven + 1:
        looks = itertools.count()
        proven, _ = _bisected(q, lambda place: next(looks) < CLOSER_LOOKS and _proof(q, place, refine=True) is not None, proven, failing)
        failing, failure = _lowered(q, proven, failing, failure)
    return _told(q, proven, failure)


def _told(q: _Question, proven: int, failure: Failure | None) -> SafeRange:
    """The record, after a look whether the recorded program is that of the whole range."""
    mode, witness, failing = q.patient.mode, None, None
    if failure is not None:
        failing, witness = _largest(q, failure.inputs), q.patient.witness(failure.inputs, failure.run)
    if proven < q.first:
        return SafeRange(q.names, q.fmt.name, mode, None, failing, witness, reason=_why_not(q))
    changed = _changes(q, proven)
    if changed:
        return SafeRange(q.names, q.fmt.name, mode, None, failing, witness, reason=changed)
    return SafeRange(q.names, q.fmt.name, mode, q.size(proven), failing, witness, whole=proven == q.last)


def _bisected(q: _Question, holds: Callable[[int], bool], low: int, high: int) -> tuple[int, int]:
    """The last ordinal at which it holds and the first at which it was seen not to, given that it holds at `low` and not at `high`."""
    if high - low > 1 and not q.late and high > q.last and holds(q.last):  # mostly asked first: no limit at all
        return q.last, high
    while high - low > 1 and not q.late:
        middle = (low + high) // 2
        low, high = (middle, high) if holds(middle) else (low, middle)
    return low, high


# ---------------------------------------------------------------- below: proofs


def _proof(q: _Question, place: int, refine: bool) -> Proof | None:
    """A proof that all is finite on every path of the range; None if there is none."""
    proof = _bounded(q, place, refine)
    return proof if proof.finite and uncovered(q.trace.graph, proof) is None else None


def _bounded(q: _Question, place: int, refine: bool) -> Proof:
    graph, domains = q.trace.graph, q.domains(place)
    bounds = {name: bounds_of(domains[name]) for name in graph.inputs}
    simplexes = [name for name in graph.inputs if domains[name].kind in ("simplex", "onehot")]
    return propagate(graph, bounds, q.patient.settings.boxes // FEWER, refine, simplexes)


def _why_not(q: _Question) -> str:
    """What stands in the way of a proof already on the smallest range."""
    proof = _bounded(q, q.first, refine=False)
    look = uncovered(q.trace.graph, proof)
    if look is not None:
        return f"{look.what} looks at a value: on other inputs the code may take another path"
    return next(iter(proof.open.values()), "nothing could be proven")


def _changes(q: _Question, place: int) -> str:
    """Whether the program recorded at the ends of the range is another one; in words, empty if not."""
    domains = q.domains(place)
    rng = np.random.default_rng(q.patient.settings.seed)
    for high in (True, False):
        inputs = {n: sample.full(d, d.high if high else d.low) if n in q.names else sample.ordinary(d, rng) for n, d in domains.items()}
        try:
            other = varying(q.trace.graph, q.patient.capture(inputs).graph)
        except WhynanError as error:
            return f"it raises at the end of the range: {error.message}"
        if other:
            return other[0].reason
    return ""


# ---------------------------------------------------------------- above: failures


def _failing_above(q: _Question, proven: int) -> tuple[int, Failure | None]:
    """A failure as close above the proven range as plain candidates show it; beyond the last ordinal if there is none."""
    stride, below = 1, proven
    while below < q.last and not q.late:
        place = min(max(below + stride, q.first), q.last)
        failure = _fails(q, place, None)
        if failure is not None:
            return _lowered(q, below, int(ordinal(q.fmt, _largest(q, failure.inputs))), failure)
        below, stride = place, stride * 8
    found = _searched(q)
    if found is None:
        return q.last + 1, None
    return _lowered(q, proven, int(ordinal(q.fmt, _largest(q, found.inputs))), found)


def _lowered(q: _Question, low: int, high: int, failure: Failure | None) -> tuple[int, Failure | None]:
    """A failure at a smaller magnitude above `low`, where candidates of the same pattern show one."""
    if failure is None:
        return high, None
    while high - low > 1 and not q.late:
        middle = (low + high) // 2
        smaller = _fails(q, middle, failure)
        if smaller is None:
            low = middle
        else:
            high, failure = min(middle, int(ordinal(q.fmt, _largest(q, smaller.inputs)))), smaller
    return high, failure


def _fails(q: _Question, place: int, like: Failure | None) -> Failure | None:
    """A candidate of that range on which the real function fails, twice."""
    candidates = list(_candidates(q, place, like))
    foreseen = q.forecast(candidates).fails if q.forecast is not None else np.ones(len(candidates), bool)
    expected = [candidates[k] for k in np.flatnonzero(foreseen)]
    others = [candidates[k] for k in np.flatnonzero(~foreseen)]
    most = FORESEEN if q.forecast is not None else len(candidates)
    for inputs in [*expected[:most], *others[:UNFORESEEN]]:
        run = q.patient.execute(inputs)
        failed = () if run.error else signature(run)
        if failed and signature(q.patient.execute(inputs)) == failed:
            return Failure(inputs, run, failed)
        if q.late:
            break
    return None


def _candidates(q: _Question, place: int, like: Failure | None) -> Iterator[Inputs]:
    """The varied inputs at the extremes of the range, the others at theirs, plain, and ordinary; a failure seen further out, moved in."""
    domains, size = q.domains(place), q.size(place)
    if like is not None:
        outer = _largest(q, like.inputs)
        factor = size / outer if outer else 1.0
        moved = {n: sample.project(domains[n], like.inputs[n].astype(np.float64) * factor) for n in q.names}
        yield {**like.inputs, **moved}
        yield {**like.inputs, **{n: sample.project(domains[n], like.inputs[n]) for n in q.names}}
    rng = np.random.default_rng(q.patient.settings.seed)
    fixed = {n: d for n, d in domains.items() if n not in q.names}
    surroundings = [{n: sample.plain(d) for n, d in fixed.items()}, {n: sample.ordinary(d, rng) for n, d in fixed.items()}]
    surroundings += _in_step({n: sample.corners(d) for n, d in fixed.items()})
    varied = _in_step({n: sample.corners(domains[n]) for n in q.names})
    for own, rest in itertools.product(varied, surroundings if fixed else [{}]):
        yield {n: own[n] if n in own else rest[n] for n in domains}


def _in_step(choices: Mapping[str, Sequence[Array]]) -> list[dict[str, Array]]:
    """Each input's first choice, each one's second, and so on; then each one a choice further than the one before it."""
    longest = max((len(c) for c in choices.values()), default=0)
    shifts = (0, 1) if len(choices) > 1 else (0,)
    return [{n: c[(k + shift * i) % len(c)] for i, (n, c) in enumerate(choices.items())} for shift in shifts for k in range(longest)]


def _searched(q: _Question) -> Failure | None:
    """A failure that the full search finds among all numbers of the dtype."""
    if q.late:
        return None
    settings = q.patient.settings
    names = {i: name for name, i in q.trace.graph.inputs.items()}
    hints: list[Mapping[str, tuple[float, float]]] = [
        {names[i]: r for i, r in box.items()} for box in _bounded(q, q.last, refine=True).hints
    ]
    found = search(
        q.patient.execute,
        q.domains(q.last),
        hints=hints,
        seed=settings.seed,
        evaluations=SEARCHED,
        seconds=max(SECONDS - q.effort.seconds, 0.1),
        forecast=q.forecast,
    )
    failing = [f for f in found.failures if signature(q.patient.execute(f.inputs)) == f.signature]
    return min(failing, key=lambda f: _largest(q, f.inputs), default=None)


def _largest(q: _Question, inputs: Inputs) -> float:
    """The largest magnitude among the elements of the varied inputs."""
    return max(float(np.abs(inputs[n].astype(np.float64)).max(initial=0.0)) for n in q.names)
