"""Inputs at which a proof would break if it were false, from a loss's domains, its source and its graph.

Mosaics of special values, ulp neighbours of the constants in the source, coincidences between inputs, tiny common scales, and points
at which an intermediate value meets 0, 1 or a constant of the graph.
"""

import inspect
import re
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from typing import Any

import numpy as np

from whynan.analysis.evaluate import evaluate
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.errors import OpError
from whynan.ir.dtype import Array, nearest, next_down, next_up

Inputs = dict[str, Array]


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


def proposals(domains: Mapping[str, Domain], pools: Mapping[str, np.ndarray], rng: np.random.Generator) -> Iterator[Inputs]:
    """Members of the domains without end: first each value of the pools alone, then all that mixes them."""
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


def crossings(
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
    proposed = proposals(domains, pools, rng)
    for _ in range(40):
        a, b = ({n: sample.draw(d, rng) for n, d in domains.items()} if rng.random() < 0.5 else next(proposed) for _ in range(2))
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
