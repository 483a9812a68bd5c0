"""Real evaluations aimed at a loss that a check calls safe: the proof is false if an output is not finite on an input of the domain.

Losses that work row by row are run on many rows at once; what fails there must fail again on rows cut to the domain's own shape.
"""

import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from itertools import islice
from typing import Any

import numpy as np
from tests.soundness.adversarial.inputs import Inputs, constants_in, crossings, pool, proposals

import whynan
from whynan.domain import sample
from whynan.domain.spec import Domain, retyped
from whynan.frontends import FRAMEWORKS, load
from whynan.ir.dtype import Array

ROWS = 64  # copies of the batch in one run


@dataclass
class Attack:
    """What an attack found: the number of inputs run, of those on which the loss raised instead, and failing inputs of the domain.

    Each of the pieces of a taller input, on which a loss that works row by row is run at once, counts as an input.
    """

    runs: int = 0
    raised: int = 0
    failures: list[tuple[Inputs, tuple[str, ...]]] = field(default_factory=list)


@dataclass(frozen=True)
class Program:
    """A program of the front end, in one mode."""

    loss: Callable[..., Any]
    inner: Any
    mode: str

    def run(self, inputs: Inputs, wrt: tuple[str, ...]) -> Any:
        """The real function."""
        return self.inner.run(inputs, wrt, self.mode)

    def capture(self, inputs: Inputs, wrt: tuple[str, ...]) -> Any:
        """The real function, recorded."""
        return self.inner.capture(inputs, wrt, self.mode)


def program_of(loss: Callable[..., Any], framework: str, mode: str) -> Program:
    """The loss as a program of that framework and mode; the mode that is checked by default if none is given."""
    name = getattr(loss, "__name__", "loss")
    return Program(loss, load(loss, name, framework), mode or FRAMEWORKS[framework].default[0])


def attack(
    loss: Callable[..., Any],
    domains: Mapping[str, Domain],
    runs: int = 10_000,
    seed: int = 0,
    seconds: float = 20.0,
    framework: str = "torch",
    mode: str = "",
) -> Attack:
    """Run the loss on at least `runs` inputs, until something fails or the time is up."""
    program = program_of(loss, framework, mode)
    rng = np.random.default_rng(seed)
    found, start = Attack(), time.perf_counter()
    wrt = tuple(n for n, d in domains.items() if d.grad)
    rows = _rows(program, domains, wrt, rng)
    pools = {n: pool(d, constants_in(loss)) for n, d in domains.items()}
    single = proposals(domains, pools, rng)
    stages = (
        (single, 1 / 3, 0),
        (crossings(program, domains, wrt, pools, rng), 1 / 3 + 1 / 20, 0),
        (proposals(_taller(domains, rows), pools, rng) if rows else single, 1.0, rows),
    )
    for candidates, share, batch in stages:  # which end at a share of the runs and of the time
        for inputs in candidates:
            late = time.perf_counter() - start >= share * seconds
            if found.failures or late or max(found.runs, found.raised) >= share * runs:
                break
            run, many = program.run(inputs, wrt), ROWS if batch else 1
            if run.error:
                found.raised += many
            else:
                found.runs += many
            if bad := failing(run):
                found.failures += _cut_down(program, domains, inputs, batch, wrt) if batch else [(inputs, bad)]
    return found


def failing(run: Any) -> tuple[str, ...]:
    """Names of the outputs that are not finite."""
    outputs = {"loss": run.loss, **run.gradients} if not run.error else {}
    return tuple(n for n, v in outputs.items() if not np.isfinite(v.astype(np.float64)).all())


# ---------------------------------------------------------------- many rows at once


def _rows(program: Any, domains: Mapping[str, Domain], wrt: tuple[str, ...], rng: np.random.Generator) -> int:
    """The size of the first axis that all inputs share, if the loss works row by row along it; else 0.

    It does if on two batches, one below the other, it is the sum or the mean of what it is on each, and so are its gradients.
    """
    free = [d for d in domains.values() if d.value is None]
    sizes = {d.shape[0] for d in free if len(d.shape) > 1} or {d.shape[0] for d in free if d.shape}
    if len(sizes) != 1:
        return 0
    (rows,) = sizes
    both = {n: sample.ordinary(d, rng) for n, d in _taller(domains, rows, 2).items()}
    tall, *each = (program.run(i, wrt) for i in (both, *_pieces(domains, both, rows, 2)))
    if any(run.error for run in (tall, *each)):
        return 0
    pairs = [(tall.loss, [run.loss for run in each])] + [(g, [run.gradients.get(n) for run in each]) for n, g in tall.gradients.items()]
    return rows if any(all(_adds_up(whole * times, parts) for whole, parts in pairs) for times in (1, 2)) else 0


def _adds_up(whole: Array, parts: list[Any]) -> bool:
    """Whether an array is its parts, one below the other, or if these are no smaller their sum."""
    if any(part is None for part in parts):
        return False
    made = np.concatenate(parts) if whole.shape != parts[0].shape else sum(part.astype(np.float64) for part in parts)
    size = np.max(np.abs(made), initial=1e-30)
    return made.shape == whole.shape and bool(np.all(np.abs(whole.astype(np.float64) - made) <= 1e-3 * size))


def _taller(domains: Mapping[str, Domain], rows: int, times: int = ROWS) -> dict[str, Domain]:
    return {n: d.but(shape=(times * rows, *d.shape[1:])) if d.value is None and d.shape[:1] == (rows,) else d for n, d in domains.items()}


def _pieces(domains: Mapping[str, Domain], inputs: Inputs, rows: int, times: int) -> list[Inputs]:
    """A tall input cut into inputs of the domain's own shape."""
    tall = {n for n, d in domains.items() if inputs[n].shape != d.shape}
    return [{n: x[k * rows : (k + 1) * rows] if n in tall else x for n, x in inputs.items()} for k in range(times)]


def _cut_down(program: Any, domains: Mapping[str, Domain], inputs: Inputs, rows: int, wrt: tuple[str, ...]) -> list[Any]:
    """The first piece of a tall failing input that fails by itself."""
    judged = ((part, failing(program.run(part, wrt))) for part in _pieces(domains, inputs, rows, ROWS))
    return list(islice(((part, bad) for part, bad in judged if bad), 1))


# ---------------------------------------------------------------- a verdict and its attack


@dataclass(frozen=True)
class Result:
    """One loss in one dtype: the verdict, what the attack did to it, and the report."""

    name: str
    dtype: str
    verdict: str
    attacked: Attack | None
    report: Any


def judge(
    name: str,
    loss: Callable[..., Any],
    domains: Mapping[str, Domain],
    dtype: str,
    runs: int,
    seconds: float = 20.0,
    framework: str = "torch",
    mode: str = "",
) -> Result:
    """Check a loss in a dtype; attack the verdict unless it is unsafe."""
    typed = {n: retyped(d, dtype) for n, d in domains.items()} if dtype else domains
    mode = mode or FRAMEWORKS[framework].default[0]
    report = whynan.check(loss, domains=typed, name=name, framework=framework, modes=(mode,))
    attacked = attack(loss, report.domain, runs, seconds=seconds, framework=framework, mode=mode) if report.verdict != "unsafe" else None
    return Result(name, dtype, report.verdict, attacked, report)


def confirmed(result: Result, loss: Callable[..., Any], framework: str = "torch", mode: str = "") -> bool:
    """Whether the first finding's witness lies in the domain and fails when the loss is run afresh."""
    finding = next(f for f in result.report.findings if f.kind == "non-finite")
    domains = {n: d for n, d in result.report.domain.items() if n in finding.witness.inputs}
    inside = all(sample.contains(d, finding.witness.inputs[n]) for n, d in domains.items())
    wrt = tuple(n for n, d in domains.items() if d.grad)
    return inside and bool(failing(program_of(loss, framework, mode).run(finding.witness.inputs, wrt)))
