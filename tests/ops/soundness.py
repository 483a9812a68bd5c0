"""The test of an op's bounds: what a run gives on inputs that the bounds allow must be allowed by the bounds of the result."""

from itertools import product

import numpy as np
from tests.ops.cases import Inputs

from whynan.domain.interval import Bounds, contains, join, join_axes, of_array, spread
from whynan.ir.dtype import Array, Format, from_ordinal, nearest, ordinal
from whynan.ir.graph import Call, Shape
from whynan.ops._opdef import bound, run

Drawn = list[tuple[Bounds, list[Array]]]


def special_values(fmt: Format) -> Array:
    """The values of the format at which something happens."""
    if fmt.kind == "bool":
        return np.array([False, True])
    if not fmt.is_float:
        info = np.iinfo(fmt.numpy)
        values = [info.min, info.min + 1, 0, 1, 2, 3, 7, info.max - 1, info.max]
        return np.array([v for v in values if abs(v) < 2**53], fmt.numpy)  # larger ones are not exact in bounds
    near_one = [1 - fmt.eps / 2, 1.0, 1 + fmt.eps, 0.5, 2.0, 3.0, 0.3, 1.4616, 7.7, np.pi / 2, 20.0, 88.8, 100.0]
    extreme = [fmt.smallest, 5 * fmt.smallest, fmt.tiny, fmt.max**0.5, fmt.max]
    positive = np.array([0.0, *near_one, *extreme, np.inf])
    return nearest(fmt, np.concatenate([positive, -positive, [np.nan]])).astype(fmt.numpy)


def draw(rng: np.random.Generator, fmt: Format, shape: Shape, few: bool = False) -> Array:
    """A random array: special values, moderate ones and any at all; or (`few`) one or two special values only."""
    if few:
        pool = special_values(fmt)
        if fmt.is_float and rng.random() < 0.7:
            pool = np.array([0.0, 1.0, fmt.max, -fmt.max, np.inf, -np.inf]).astype(fmt.numpy)
        return rng.choice(rng.choice(pool, int(rng.integers(1, 3))), size=shape)
    special = rng.choice(special_values(fmt), size=shape)
    if fmt.kind == "bool":
        return special
    if not fmt.is_float:
        return np.where(rng.random(shape) < 0.5, special, rng.integers(0, 9, shape).astype(fmt.numpy))
    scale = 10.0 ** rng.integers(-3, 3)
    moderate = nearest(fmt, rng.normal(size=shape) * scale).astype(fmt.numpy)
    reach = int(ordinal(fmt, fmt.max))
    anything = from_ordinal(fmt, rng.integers(-reach, reach, shape)).astype(fmt.numpy)
    kind = rng.random(shape)
    return np.where(kind < 0.4, special, np.where(kind < 0.85, moderate, anything))


def _between(rng: np.random.Generator, b: Bounds, fmt: Format) -> Array:
    """A random array that the bounds allow, or one that nearly is."""
    lo, hi = np.where(b.empty, 0.0, b.lo), np.where(b.empty, 0.0, b.hi)
    if fmt.is_float and rng.random() < 0.5:
        share = rng.random(lo.shape)
        first, last = ordinal(fmt, lo), ordinal(fmt, hi)
        return from_ordinal(fmt, first + np.floor((last - first) * share).astype(np.int64)).astype(fmt.numpy)
    with np.errstate(all="ignore"):
        inside = nearest(fmt, lo + (hi - lo) * rng.random(lo.shape))
        return np.where(np.isnan(inside), hi, np.floor(inside) if not fmt.is_float else inside).astype(fmt.numpy)


def _ends(b: Bounds, fmt: Format) -> list[Array]:
    """The ends of the bounds, zeros of both signs, NaN: each where it is allowed (the caller replaces the rest)."""
    with np.errstate(invalid="ignore"):
        return [np.asarray(v, np.float64).astype(fmt.numpy) for v in (b.lo, b.hi, 0 * b.lo, -0.0 * np.abs(b.lo), np.full(b.shape, np.nan))]


def grouped(rng: np.random.Generator, arrays: list[Array]) -> Bounds:
    """Bounds around the arrays, at random with one group for all elements along some axes."""
    b = join(*[of_array(a) for a in arrays])
    axes = [axis for axis in range(arrays[0].ndim) if rng.random() < 0.25]
    return join_axes(b, axes) if axes else b


def draw_inputs(rng: np.random.Generator, call: Call, special: Inputs | None) -> Drawn:
    """For each input of the call bounds, and sample arrays that they allow."""
    count = int(rng.integers(1, 4))
    if special is not None:
        rows = [special(call, rng) for _ in range(count)]
        return [(grouped(rng, list(arrays)), list(arrays)) for arrays in zip(*rows, strict=True)]
    out: Drawn = []
    for fmt, shape in zip(call.formats, call.shapes, strict=True):
        arrays = [draw(rng, fmt, shape) for _ in range(count)]
        b = grouped(rng, arrays)
        full = spread(b, shape)
        candidates = [_between(rng, full, fmt) for _ in range(4)]
        if fmt.is_float:
            candidates += _ends(full, fmt)
        arrays += [np.where(contains(b, c), c, arrays[0]) for c in candidates]
        out.append((b, arrays))
    return out


def violations(rng: np.random.Generator, call: Call, special: Inputs | None = None) -> list[str]:
    """Draw bounds and inputs for the call; describe each result that lies outside of its bounds (at most a few)."""
    drawn = draw_inputs(rng, call, special)
    result = bound(call, [b for b, _ in drawn])
    found = []
    for row in _rows(rng, call, [arrays for _, arrays in drawn], special is not None):
        value = run(call, row)
        assert value.shape == call.shape, f"{call.op}: a run gives shape {value.shape}, not {call.shape}"
        if call.format.flush:
            value = np.where(np.abs(value) < call.format.tiny, np.copysign(0, value), value)
        outside = ~contains(result, value)
        if outside.any():
            where = tuple(int(i[0]) for i in np.nonzero(outside))
            found.append(_describe(call, drawn, row, value, result, where))
    return found[:2]


def _rows(rng: np.random.Generator, call: Call, choices: list[list[Array]], together: bool) -> list[list[Array]]:
    """Combinations of the inputs' samples: all if there are few, else some; those of special generators stay together."""
    if together:
        return [list(row) for row in zip(*choices, strict=True)]
    combinations = list(product(*choices))
    if len(combinations) > 24:
        combinations = [combinations[i] for i in rng.choice(len(combinations), 24, replace=False)]
    return [list(row) for row in combinations]


def _describe(call: Call, drawn: Drawn, row: list[Array], value: Array, result: Bounds, where: tuple[int, ...]) -> str:
    r = spread(result, call.shape)
    text = f"{call.op} {dict(call.attrs)} {[str(f) for f in call.formats]} -> {call.format}: {value[where]!r} at {where}"
    text += f" outside of [{r.lo[where]!r}, {r.hi[where]!r}] flags {r.flags[where]}"
    for (b, _), x in zip(drawn, row, strict=True):
        if x.shape == call.shape:
            g = spread(b, x.shape)
            text += f"; input {x[where]!r} of [{g.lo[where]!r}, {g.hi[where]!r}] flags {g.flags[where]}"
    return text
