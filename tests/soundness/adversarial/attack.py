"""Real evaluations aimed at a loss that a check calls safe.

`python -m tests.soundness.adversarial.attack [NAME…] [--framework jax --mode jit] [--dtypes float32,float16] [--runs 10000]` checks the
framework's gallery and collection and attacks every proof. A proof is false if any output is not finite on an input of the domain.
With `--audit DIR` it takes the losses that an audit (`whynan audit MODULE --output DIR`) calls safe, in the modes that it checked; the
command's exit code is 1 if a proof is false.

Inputs are mosaics of special values, ulp neighbours of the constants in the source, coincidences between inputs, tiny common scales,
and points at which an intermediate value meets 0, 1 or a constant of the graph. Losses that work row by row are run on many
rows at once; what fails there must fail again on rows cut to the domain's own shape.
"""

import argparse
import inspect
import re
import sys
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

import whynan
from whynan.analysis.evaluate import evaluate
from whynan.audits.store import load_all
from whynan.domain import sample
from whynan.domain.names import with_grad_by_name
from whynan.domain.parse import parse
from whynan.domain.spec import Domain, retyped
from whynan.errors import OpError
from whynan.frontends import FRAMEWORKS, load
from whynan.ir.dtype import Array, nearest, next_down, next_up
from whynan.target import arguments_of, load_target

Inputs = dict[str, Array]
ROWS = 64  # copies of the batch in one run
DTYPES = ("float32", "float16", "bfloat16", "float64")


@dataclass
class Attack:
    """What an attack found: the number of rows run, and failing inputs in the domain's own shape."""

    runs: int = 0
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
    """Run the loss on at least `runs` inputs (rows, where many are run at once), until something fails or the time is up."""
    program = program_of(loss, framework, mode)
    rng = np.random.default_rng(seed)
    found, start = Attack(), time.perf_counter()
    wrt = tuple(n for n, d in domains.items() if d.grad)
    rows = _rows(program, domains, wrt, rng)
    pools = {n: pool(d, constants_in(loss)) for n, d in domains.items()}
    stages = (
        (_proposals(domains, pools, rng), runs // 3, None),
        (_proposals(_taller(domains, rows), pools, rng) if rows else iter(()), runs, rows),
        (_crossings(program, domains, wrt, pools, rng), runs // 20, None),
        (_proposals(domains, pools, rng), 0 if rows else runs, None),
    )
    for candidates, budget, batch in stages:
        done = 0
        for inputs in candidates:
            if found.failures or done >= budget or time.perf_counter() - start > seconds:
                break
            done += ROWS if batch else 1
            bad = failing(program.run(inputs, wrt))
            if bad and batch:
                found.failures += _cut_down(program, domains, inputs, batch, wrt)
            elif bad:
                found.failures.append((inputs, bad))
        found.runs += done
    return found


def failing(run: Any) -> tuple[str, ...]:
    """Names of the outputs that are not finite."""
    outputs = {"loss": run.loss, **run.gradients} if not run.error else {}
    return tuple(n for n, v in outputs.items() if not np.isfinite(v.astype(np.float64)).all())


# ---------------------------------------------------------------- many rows at once


def _rows(program: Any, domains: Mapping[str, Domain], wrt: tuple[str, ...], rng: np.random.Generator) -> int:
    """The size of the first axis that all inputs share, if the loss also runs on taller inputs; else 0."""
    sizes = {d.shape[0] for d in domains.values() if d.value is None and len(d.shape) > 1}
    if len(sizes) != 1:
        return 0
    (rows,) = sizes
    tall = _taller(domains, rows)
    run = program.run({n: sample.ordinary(d, rng) for n, d in tall.items()}, wrt)
    return rows if not run.error else 0


def _taller(domains: Mapping[str, Domain], rows: int) -> dict[str, Domain]:
    return {n: d.but(shape=(ROWS * rows, *d.shape[1:])) if d.value is None and d.shape[:1] == (rows,) else d for n, d in domains.items()}


def _cut_down(program: Any, domains: Mapping[str, Domain], inputs: Inputs, rows: int, wrt: tuple[str, ...]) -> list[Any]:
    """Pieces of a tall failing input that fail in the domain's own shape."""
    out = []
    for k in range(ROWS):
        part = {n: x[k * rows : (k + 1) * rows] if x.shape[:1] == (rows * ROWS,) else x for n, x in inputs.items()}
        bad = failing(program.run(part, wrt))
        if bad:
            out.append((part, bad))
            break
    return out


# ---------------------------------------------------------------- values


def constants_in(loss: Callable[..., Any]) -> list[float]:
    """The numbers written in the source of a loss."""
    try:
        text = inspect.getsource(loss if inspect.isroutine(loss) else type(loss))
    except (OSError, TypeError):
        return []
    return [float(t) for t in re.findall(r"(?<![\w.])\d+\.?\d*(?:e[+-]?\d+)?", text)]


def pool(domain: Domain, constants: list[float]) -> np.ndarray:
    """Values of the domain worth trying: specials, constants, their neighbours, and what sits near them."""
    if domain.value is not None or not domain.format.is_float or domain.kind in ("binary", "onehot"):
        return np.asarray(sample.special_values(domain))
    fmt = domain.format
    base = [*sample.special_values(domain), *constants, *(1 - c for c in constants), *(1 / c for c in constants if c)]
    base += [c / 2 for c in constants] + [c**0.5 for c in constants] + [c * c for c in constants]
    base += [float(np.exp(-c)) for c in constants if c < 700] + [float(np.log(c)) for c in constants if c > 0]
    x = nearest(fmt, np.asarray(base + [-b for b in base]))
    x = np.concatenate([x, *(step(fmt, x, k) for step in (next_up, next_down) for k in (1, 2))])
    x = np.unique(x[(x >= domain.low) & (x <= domain.high)])
    return np.concatenate([x, [-0.0]]) if domain.low <= 0 <= domain.high else x


def _proposals(domains: Mapping[str, Domain], pools: Mapping[str, np.ndarray], rng: np.random.Generator) -> Iterator[Inputs]:
    for made in _simple(domains, pools):
        yield {n: sample.project(d, made[n]) for n, d in domains.items()}
    while True:
        style = rng.choice(len(_STYLES))
        raw = {n: _STYLES[style if rng.random() < 0.7 else rng.choice(len(_STYLES))](d, pools[n], rng) for n, d in domains.items()}
        if rng.random() < 0.3:
            _coincide(domains, raw, rng)
        yield {n: sample.project(d, raw[n]) for n, d in domains.items()}


def _simple(domains: Mapping[str, Domain], pools: Mapping[str, np.ndarray]) -> Iterator[dict[str, np.ndarray]]:
    """One value for a whole input, the others at one of three plain values."""
    plain = {n: sample.plain(d).astype(np.float64) for n, d in domains.items()}
    for n, d in domains.items():
        if d.value is None:
            for x in pools[n]:
                yield {**plain, n: np.full(d.shape, x)}
    for x in pools[next(iter(pools))][:200]:
        yield {m: np.full(e.shape, x) for m, e in domains.items()}


def _mosaic(d: Domain, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    few = rng.choice(values, size=rng.integers(1, 4))
    return rng.choice(few, size=d.shape)


def _any_mosaic(d: Domain, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return rng.choice(values, size=d.shape)


def _ulps(d: Domain, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = np.full(d.shape, rng.choice(values))
    steps = rng.integers(-2, 3, size=d.shape)
    for k in (1, 2):
        x = np.where(steps >= k, next_up(d.format, x), np.where(steps <= -k, next_down(d.format, x), x))
    return x


def _scaled(d: Domain, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Ordinary numbers times a common power of two, small or large."""
    lo, hi = np.log2(d.format.smallest), np.log2(min(d.format.max, max(abs(d.low), abs(d.high), 1e-300)))
    return rng.normal(size=d.shape) * 2.0 ** rng.uniform(lo, hi)


def _one_row(d: Domain, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """An ordinary array in which one row is one special value."""
    x = sample.ordinary(d, rng).astype(np.float64)
    if x.ndim:
        x[rng.integers(len(x))] = rng.choice(values)
    return x


def _one_element(d: Domain, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    x = np.full(d.shape, rng.choice(values)).reshape(-1)
    if x.size:
        x[rng.integers(x.size)] = rng.choice(values)
    return x.reshape(d.shape)


def _any_draw(d: Domain, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    return sample.draw(d, rng).astype(np.float64)


def _progression(d: Domain, values: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    a, b = rng.choice(values, 2)
    return np.linspace(a, b, max(int(np.prod(d.shape)), 1)).reshape(d.shape)


_STYLES = (_mosaic, _any_mosaic, _ulps, _scaled, _one_row, _one_element, _any_draw, _progression, _mosaic)


def _coincide(domains: Mapping[str, Domain], raw: dict[str, np.ndarray], rng: np.random.Generator) -> None:
    """Let two inputs of one shape agree, wholly or in places, up to sign or an ulp."""
    names = list(raw)
    a, b = rng.choice(len(names), 2)
    x, y, d = raw[names[a]], raw[names[b]], domains[names[b]]
    if x.shape != y.shape or not d.format.is_float:
        return
    copy = x * rng.choice([1.0, 1.0, -1.0])
    if rng.random() < 0.4:
        copy = next_up(d.format, nearest(d.format, copy))
    raw[names[b]] = np.where(rng.random(x.shape) < rng.choice([0.5, 1.0]), copy, y)


# ---------------------------------------------------------------- where an intermediate value meets a threshold


def _crossings(
    program: Any, domains: Mapping[str, Domain], wrt: tuple[str, ...], pools: Mapping[str, np.ndarray], rng: np.random.Generator
) -> Iterator[Inputs]:
    """Inputs between two others, next to the place where an element of an intermediate value crosses 0, 1, -1 or a constant."""
    first = {n: sample.ordinary(d, rng) for n, d in domains.items()}
    try:
        graph = program.capture(first, wrt).graph
    except Exception:
        return
    floats = [n.id for n in graph.nodes if n.format.is_float and n.op not in ("const", "input") and int(np.prod(n.shape)) > 0]
    if not floats or len(graph.nodes) > 400:
        return
    marks = [0.0, 1.0, -1.0] + [
        float(n.attrs["value"].reshape(-1)[0]) for n in graph.nodes if n.op == "const" and n.attrs["value"].size == 1
    ]
    marks = [m for m in dict.fromkeys(marks) if np.isfinite(m)]
    proposals = _proposals(domains, pools, rng)
    for _ in range(40):
        a, b = ({n: sample.draw(d, rng) for n, d in domains.items()} if rng.random() < 0.5 else next(proposals) for _ in range(2))
        b = {n: b[n] if domains[n].format.is_float and rng.random() < 0.7 else a[n] for n in a}
        rng.shuffle(floats)
        with suppress(OpError):  # on these inputs the loss takes another path than the graph
            va, vb = evaluate(graph, a), evaluate(graph, b)
            for node in floats[:30]:
                xa, xb = (np.asarray(v[node], np.float64).reshape(-1) for v in (va, vb))
                mark = rng.choice(marks)
                k = rng.integers(xa.size)
                if (xa[k] < mark) != (xb[k] < mark):
                    yield from _bisect(graph, domains, a, b, node, k, mark)
                    break


def _bisect(graph: Any, domains: Mapping[str, Domain], a: Inputs, b: Inputs, node: int, k: int, mark: float) -> Iterator[Inputs]:
    def below(inputs: Inputs) -> bool:
        return bool(np.asarray(evaluate(graph, inputs)[node], np.float64).reshape(-1)[k] < mark)

    lo, hi, side = 0.0, 1.0, below(a)
    for _ in range(40):
        middle = (lo + hi) / 2
        if below(_between(domains, a, b, middle)) == side:
            lo = middle
        else:
            hi = middle
        if hi - lo < 1e-12:
            break
    yield _between(domains, a, b, lo)
    yield _between(domains, a, b, hi)


def _between(domains: Mapping[str, Domain], a: Inputs, b: Inputs, t: float) -> Inputs:
    def mix(d: Domain, x: Array, y: Array) -> Array:
        return sample.project(d, x.astype(np.float64) * (1 - t) + y.astype(np.float64) * t) if d.format.is_float and d.value is None else x

    return {n: mix(d, a[n], b[n]) for n, d in domains.items()}


# ---------------------------------------------------------------- the command


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
    """Check a loss in a dtype; attack the verdict unless it is unsafe, else run the witness again on its own."""
    typed = {n: retyped(d, dtype) for n, d in domains.items()}
    mode = mode or FRAMEWORKS[framework].default[0]
    report = whynan.check(loss, domains=typed, name=name, framework=framework, modes=(mode,))
    if report.verdict == "unsafe":
        return Result(name, dtype, report.verdict, None, report)
    attacked = attack(loss, report.domain, runs, seconds=seconds, framework=framework, mode=mode)
    return Result(name, dtype, report.verdict, attacked, report)


def confirmed(result: Result, loss: Callable[..., Any], framework: str = "torch", mode: str = "") -> bool:
    """Whether the first finding's witness lies in the domain and fails when the loss is run afresh."""
    finding = next(f for f in result.report.findings if f.kind == "non-finite")
    domains = {n: d for n, d in result.report.domain.items() if n in finding.witness.inputs}
    inside = all(sample.contains(d, finding.witness.inputs[n]) for n, d in domains.items())
    wrt = tuple(n for n, d in domains.items() if d.grad)
    return inside and bool(failing(program_of(loss, framework, mode).run(finding.witness.inputs, wrt)))


@dataclass(frozen=True)
class Target:
    """A loss to judge: in which framework and mode, on which domains."""

    name: str
    loss: Callable[..., Any]
    domains: Mapping[str, Domain]
    framework: str
    mode: str


def proven(folder: Path) -> Iterator[Target]:
    """The losses that an audit calls safe, once for each mode, made anew with the domains that the audit says."""
    for record in load_all(folder):
        if record.report is None or record.verdict != "safe":
            continue
        loss = load_target(record.target).callable
        takes = arguments_of(loss)
        stated = {n: text for n, text in {**record.key["domains"], **record.key["own_domains"]}.items() if text and n in takes}
        domains = {n: parse(stated.get(n, text)) for n, text in record.domains.items() if n in takes or not takes}
        for mode in record.report["modes"]:
            yield Target(f"{record.target} ({mode})", loss, with_grad_by_name(domains), record.report["framework"], mode)


def _targets(options: argparse.Namespace) -> Iterator[Target]:
    from tests.soundness.adversarial.collection import cases, gallery, suite

    if options.audit:
        if not (options.audit / "losses").is_dir():
            sys.exit(f"{options.audit} is no output folder of an audit: it has no folder losses.")
        yield from proven(options.audit)
        return
    for case in [*cases(options.framework), *suite(options.framework), *gallery(options.framework)]:
        yield Target(case.name, case.loss, case.domains, options.framework, options.mode)


def main() -> int:
    """Check and attack all losses, or those whose names contain one of the words given; 1 if a proof was false, else 0."""
    parser = argparse.ArgumentParser()
    parser.add_argument("words", nargs="*")
    parser.add_argument("--framework", default="torch", choices=tuple(FRAMEWORKS))
    parser.add_argument("--mode", default="", help="the framework's default mode if none is given")
    parser.add_argument("--dtypes", help=f"{','.join(DTYPES)}; of an audit float32")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=20.0)
    parser.add_argument("--audit", type=Path, metavar="DIR", help="the output folder of an audit, whose proofs are attacked")
    options = parser.parse_args()
    counts: dict[tuple[str, str], int] = {}
    false = 0
    for target in _targets(options):
        if options.words and not any(w in target.name for w in options.words):
            continue
        for dtype in (options.dtypes or ("float32" if options.audit else ",".join(DTYPES))).split(","):
            where = {"framework": target.framework, "mode": target.mode}
            try:
                result = judge(target.name, target.loss, target.domains, dtype, options.runs, options.seconds, **where)
            except Exception as error:  # one broken case must not end the run
                print(f"ERROR {target.name} {dtype}: {type(error).__name__} {str(error)[:150]}", flush=True)
                continue
            counts[result.verdict, dtype] = counts.get((result.verdict, dtype), 0) + 1
            false += result.verdict == "safe" and result.attacked is not None and bool(result.attacked.failures)
            print(_line(result, target.loss, **where), flush=True)
    print(counts, f"{false} false proofs")
    return 1 if false else 0


def _line(result: Result, loss: Callable[..., Any], framework: str, mode: str) -> str:
    head = f"{result.verdict:9} {result.name} {result.dtype} {result.report.seconds:.2f}s"
    if result.verdict == "unsafe":
        f = next(f for f in result.report.findings if f.kind == "non-finite")
        where = f"{f.site.line}: {f.site.text}" if f.site else "?"
        return f"{head} {f.cause} {f.phase} {f.op} [{where}]" + ("" if confirmed(result, loss, framework, mode) else " UNCONFIRMED")
    assert result.attacked is not None
    told = f" {result.attacked.runs} runs"
    if result.attacked.failures:
        inputs, bad = result.attacked.failures[0]
        word = "FALSE PROOF" if result.verdict == "safe" else "MISSED"
        told += f" {word} {bad} on { ({n: x.tolist() for n, x in inputs.items()}) }"[:1500]
    if result.verdict == "undecided":
        told += "".join(
            f"\n            {o.op} {o.phase} [{o.site.line if o.site else '?'}: {o.site.text if o.site else ''}] {o.reason}"
            for o in result.report.undecided[:4]
        )
    return head + told


if __name__ == "__main__":
    sys.exit(main())
