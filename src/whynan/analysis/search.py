"""Look for an input on which the real function fails: special values, corners, coincidences, hints of the prover, descent, chance.

Every failure is judged by the real framework; nothing else makes a witness.
"""

import itertools
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.effort import Effort
from whynan.analysis.evaluate import finite
from whynan.analysis.forecast import Forecaster
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.ir.dtype import Array, from_ordinal, nearest, ordinal
from whynan.ir.frontend import Run

Inputs = Mapping[str, Array]
Hint = Mapping[str, tuple[float, float]]  # input name -> range in which an element may make trouble
Signature = tuple[str, ...]

PER_FINGERPRINT, FIRST = 5, 3  # the plainest inputs that fail in one way and the latest: two defects may show in the same outputs
HUGE_MOSAICS = 3
DESCENT, CHANCE = 2, 3  # stages of the search
LEAST = 8  # candidates that are tried, however long a run takes, until one fails
BATCH = 32  # candidates that are foreseen together
ALWAYS = 8  # the first candidates of a search are run whatever is foreseen
EVERY = 5  # of the candidates that are foreseen to be finite, one in so many is run
WHOLE_FILLS = 24  # how many special values are tried as the value of a whole input


@dataclass(frozen=True, slots=True, eq=False)
class Failure:
    """An input on which an output is not finite: the run, and which outputs failed ("loss", or input names for gradients)."""

    inputs: Inputs
    run: Run
    signature: Signature


@dataclass(frozen=True, slots=True, eq=False)
class Seen:
    """One finite run worth remembering: its input and the number that made it so."""

    inputs: Inputs
    run: Run
    size: float


@dataclass(frozen=True, slots=True, eq=False)
class Searched:
    """What the search did: failures (a few per combination of failing outputs), evaluations, seconds.

    `evaluations` are runs of the real function, `screened` the candidates that were only looked at through the graph.
    `steepest` is the finite run with the largest gradient element, `detached` a run in which a gradient was missing that other runs had.
    """

    failures: tuple[Failure, ...]
    evaluations: int
    seconds: float
    steepest: Seen | None = None
    detached: Seen | None = None
    screened: int = 0


def signature(run: Run) -> Signature:
    """Which outputs are not finite."""
    bad = [] if finite(run.loss) else ["loss"]
    return (*bad, *(name for name, g in run.gradients.items() if not finite(g)))


def fingerprint(run: Run) -> object:
    """How each output failed: with NaN, +inf, -inf or not. Different defects tend to differ here."""
    outputs = {"loss": run.loss, **run.gradients}
    wide = {name: v.astype(np.float64) for name, v in outputs.items()}
    return tuple((n, bool(np.isnan(v).any()), bool((v == np.inf).any()), bool((v == -np.inf).any())) for n, v in wide.items())


def search(
    execute: Callable[[Inputs], Run],
    domains: Mapping[str, Domain],
    *,
    starts: Callable[[], Iterator[Inputs]] = lambda: iter(()),
    hints: Sequence[Hint] = (),
    proposals: Callable[[], Iterator[Inputs]] = lambda: iter(()),
    seed: int = 0,
    evaluations: int = 600,
    seconds: float = 4.0,
    forecast: Forecaster | None = None,
) -> Searched:
    """Try candidates in order of plainness until a budget is spent.

    `execute` runs the real function; with a `forecast` it is run on the candidates that are foreseen to fail or to have the steepest
    gradients, and on a sample of the others. `starts` are tried first (inputs that take paths of their own). `proposals` yields further
    candidates (descent towards open dangers) and is asked after the fixed ones if none of them failed. Chance fills what is left of
    `evaluations`; `seconds` ends the search of a slow loss earlier.
    """
    rng = np.random.default_rng(seed)
    log = _Log()
    stages = (itertools.chain(starts(), _fixed(domains, rng)), _hinted(domains, hints, rng), proposals(), _random(domains, rng))
    for stage, candidates in enumerate(stages):
        for inputs, worth_it in _screened(candidates, forecast):
            late = log.effort.seconds > seconds and (log.count >= LEAST or bool(log.kept))
            if log.seen >= evaluations or late or (stage == CHANCE and _enough(log.kept, log.seen)) or (stage == DESCENT and log.kept):
                break
            if worth_it or log.seen < ALWAYS:
                log.note(inputs, execute(inputs))
            else:
                log.screened += 1
    return log.result()


def _screened(candidates: Iterator[Inputs], forecast: Forecaster | None) -> Iterator[tuple[Inputs, bool]]:
    """The candidates in order, each with whether the real function is to be run on it."""
    if forecast is None:
        yield from ((c, True) for c in candidates)
        return
    steepest, fine = 0.0, 0
    while batch := list(itertools.islice(candidates, BATCH)):
        foreseen = forecast(batch)
        for inputs, fails, steepness in zip(batch, foreseen.fails, foreseen.steepness, strict=True):
            news = fails or steepness > steepest
            steepest = max(steepest, float(steepness))
            fine += not news
            yield inputs, bool(news) or fine % EVERY == 0


class _Log:
    """What has been seen so far."""

    def __init__(self) -> None:
        self.effort = Effort()
        self.count = 0
        self.screened = 0
        self.kept: dict[object, list[Failure]] = {}
        self.steepest: Seen | None = None
        self.fewest: Seen | None = None
        self.most_gradients = 0

    @property
    def seen(self) -> int:
        """Candidates looked at, run or not."""
        return self.count + self.screened

    def note(self, inputs: Inputs, run: Run) -> None:
        """Keep a run if it says something new."""
        self.count += 1
        if run.error:
            return
        failed = signature(run)
        if failed:
            group = self.kept.setdefault(fingerprint(run), [])
            group[FIRST:] = [*group[FIRST:], Failure(inputs, run, failed)][FIRST - PER_FINGERPRINT :]
            return
        size = max((float(np.abs(g.astype(np.float64)).max(initial=0.0)) for g in run.gradients.values()), default=0.0)
        if self.steepest is None or size > self.steepest.size:
            self.steepest = Seen(inputs, run, size)
        self.most_gradients = max(self.most_gradients, len(run.gradients))
        if self.fewest is None or len(run.gradients) < self.fewest.size:
            self.fewest = Seen(inputs, run, len(run.gradients))

    def result(self) -> Searched:
        """The record of the search."""
        failures = tuple(f for group in self.kept.values() for f in group)
        detached = self.fewest if self.fewest is not None and self.fewest.size < self.most_gradients else None
        return Searched(failures, self.count, self.effort.elapsed, self.steepest, detached, self.screened)


def _enough(kept: Mapping[object, Sequence[Failure]], count: int) -> bool:
    """Chance adds little once both a failing loss and a failing gradient alone were seen."""
    forward = any("loss" in group[0].signature for group in kept.values())
    backward = any("loss" not in group[0].signature for group in kept.values())
    return (forward and backward and count > 150) or ((forward or backward) and count > 350)


# ---------------------------------------------------------------- candidates


def _fixed(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    plain = {name: sample.plain(d) for name, d in domains.items()}
    yield plain
    if any(sample.huge(d) for d in domains.values()):  # few runs are affordable: those first that try most at once
        yield from _mosaics(domains, rng, HUGE_MOSAICS)
    yield from corner_products(domains)
    yield from _mosaics(domains, rng, 24)
    yield from _whole_fills(domains, plain)
    yield from _coincidences(domains, rng)
    yield from _common_scales(domains, rng)
    yield from _nearly_equal(domains, rng)
    yield from _single_specials(domains, plain, rng)


def candidates(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    """Inputs without end, in order of plainness: corners, special values, coincidences, then chance."""
    yield from _fixed(domains, rng)
    yield from _random(domains, rng)


def corner_products(domains: Mapping[str, Domain], most: int = 64) -> Iterator[Inputs]:
    """Every input at one of its extremes, in all combinations while they are few."""
    corners = {name: sample.corners(d) for name, d in domains.items()}
    names = list(domains)
    yield from (dict(zip(names, made, strict=True)) for made in itertools.islice(itertools.product(*corners.values()), most))
    longest = max((len(c) for c in corners.values()), default=0)
    for k in range(longest):
        yield {name: c[k % len(c)] for name, c in corners.items()}


def _mosaics(domains: Mapping[str, Domain], rng: np.random.Generator, count: int) -> Iterator[Inputs]:
    """Each element a special value of its own: one evaluation tries as many combinations as there are elements."""
    for _ in range(count):
        yield {name: sample.mosaic(d, rng) for name, d in domains.items()}


def _whole_fills(domains: Mapping[str, Domain], plain: Inputs) -> Iterator[Inputs]:
    """One input filled with one special value, the others plain; then all inputs with the same value."""
    for name, d in domains.items():
        if d.value is None:
            for v in sample.special_values(d)[:WHOLE_FILLS]:
                yield {**plain, name: sample.full(d, v)}
    values = dict.fromkeys(v for d in domains.values() for v in sample.special_values(d)[:8])
    for v in list(values)[:12]:
        yield {name: sample.full(d, v) for name, d in domains.items()}


def _coincidences(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    """Inputs of one shape made equal, equal rows, a row of zeros, masks empty or full, one class only."""
    groups: dict[tuple[int, ...], list[str]] = {}
    for name, d in domains.items():
        if d.format.is_float:
            groups.setdefault(d.shape, []).append(name)
    for _ in range(6):
        base = {name: sample.draw(d, rng) for name, d in domains.items()}
        yield _equalised(domains, base, [pair for names in groups.values() for pair in itertools.combinations(names, 2)])
        halves = [p for names in groups.values() for p in zip(names[: len(names) // 2], names[len(names) // 2 :], strict=False)]
        yield _equalised(domains, base, halves)
        yield {n: sample.project(d, np.broadcast_to(base[n][:1], d.shape)) if d.shape else base[n] for n, d in domains.items()}
        yield {n: _zero_row(d, base[n]) for n, d in domains.items()}
        for name, d in domains.items():
            if d.kind in ("binary", "mask", "classes", "integers"):
                yield {**base, name: sample.full(d, d.low)}
                yield {**base, name: sample.full(d, d.high)}
                yield {**base, name: _first_row(d, base[name], d.low)}


def _equalised(domains: Mapping[str, Domain], base: Inputs, pairs: Sequence[tuple[str, str]]) -> Inputs:
    out = dict(base)
    for a, b in pairs:
        out[b] = sample.project(domains[b], out[a])
        out[a] = sample.project(domains[a], out[b])  # both inside: the common part of the two domains
    return out


def _zero_row(d: Domain, base: Array) -> Array:
    return _first_row(d, base, 0.0) if d.format.is_float else base


def _first_row(d: Domain, base: Array, value: float) -> Array:
    if not d.shape or not base.size:
        return sample.full(d, value)
    changed = base.astype(np.float64)
    changed[0] = value
    return sample.project(d, changed)


def _common_scales(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    """All elements of an input of one tiny size, the others ordinary: near-equal rows, vectors whose squares underflow."""
    for name, d in domains.items():
        if not d.format.is_float or d.value is not None or not d.low <= 0 <= d.high:
            continue
        for size in (d.format.smallest, 16 * d.format.smallest, d.format.tiny, d.format.tiny**0.75, d.format.tiny**0.5, d.format.eps):
            base = {n: sample.ordinary(e, rng) for n, e in domains.items()}
            yield {**base, name: sample.project(d, np.rint(rng.uniform(-8, 8, d.shape)) * size)}


def _nearly_equal(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    """All elements of an input within a few representable values of one number: spreads and differences of the smallest size."""
    for name, d in domains.items():
        if not d.format.is_float or d.value is not None:
            continue
        for center in dict.fromkeys((sample.plain_value(d), 1.0, d.high, float(rng.uniform(d.low / 2, d.high / 2)))):
            base = {n: sample.ordinary(e, rng) for n, e in domains.items()}
            steps = ordinal(d.format, nearest(d.format, center)) + rng.integers(-3, 4, d.shape)
            yield {**base, name: sample.project(d, from_ordinal(d.format, steps))}


def _single_specials(domains: Mapping[str, Domain], plain: Inputs, rng: np.random.Generator) -> Iterator[Inputs]:
    """A random base with one input's first element or row at a special value."""
    for name, d in domains.items():
        if d.value is not None:
            continue
        for v in sample.special_values(d)[:12]:
            base = {n: sample.draw(e, rng) for n, e in domains.items()}
            yield {**base, name: _first_row(d, base[name], v)}


def _hinted(domains: Mapping[str, Domain], hints: Sequence[Hint], rng: np.random.Generator) -> Iterator[Inputs]:
    """Values from the boxes that the prover left open, everywhere and in mosaics."""
    for hint in hints[:12]:
        for pick in (0.0, 1.0, 0.5):
            base = {name: sample.draw(d, rng) for name, d in domains.items()}
            for name, (low, high) in hint.items():
                base[name] = sample.full(domains[name], _between(low, high, pick))
            yield base
        mixed = {name: sample.draw(d, rng) for name, d in domains.items()}
        for name, (low, high) in hint.items():
            values = [_between(low, high, p) for p in (0.0, 0.5, 1.0)]
            mixed[name] = sample.project(
                domains[name], np.where(rng.random(mixed[name].shape) < 0.5, mixed[name].astype(np.float64), rng.choice(values))
            )
        yield mixed


def _between(low: float, high: float, share: float) -> float:
    low, high = max(low, -1e308), min(high, 1e308)
    return low if share == 0 else high if share == 1 else low / 2 + high / 2


def _random(domains: Mapping[str, Domain], rng: np.random.Generator) -> Iterator[Inputs]:
    while True:
        base = {name: sample.draw(d, rng) for name, d in domains.items()}
        yield base
        shapes: dict[tuple[int, ...], list[str]] = {}
        for name, d in domains.items():
            if d.format.is_float:
                shapes.setdefault(d.shape, []).append(name)
        pairs = [p for names in shapes.values() for p in itertools.combinations(names, 2)]
        if pairs:
            yield _equalised(domains, base, [pairs[int(rng.integers(len(pairs)))]])
