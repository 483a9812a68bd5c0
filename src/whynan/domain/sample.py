"""Concrete arrays of a domain: plain ones, extreme ones, random ones; membership, and the nearest member of an array.

Arrays have the domain's shape and its dtype (ml_dtypes for bfloat16). Random choices come from the generator that is passed in.
"""

import math
from collections.abc import Iterable, Sequence
from functools import lru_cache

import numpy as np

from whynan.domain.spec import CONTINUOUS, ROWS, Domain
from whynan.ir.dtype import FORMATS, Array, Float64, Format, from_ordinal, nearest, next_down, next_up, ordinal

# what a reader finds plainest, by kind: the first that lies inside the domain is taken
_PLAIN = {"prob": (0.5, 1.0, 0.0), "positive": (1.0, 0.5), "nonnegative": (1.0, 0.5, 0.0), "mask": (1.0, 0.0)}
_ZERO_FIRST = (0.0, 1.0, -1.0, 0.5, -0.5)

#: A larger array is a block of about so many elements, drawn and repeated: chance finds no more in a larger one.
BLOCK = 1 << 17
HUGE_CORNERS = 3  # of an input larger than a block


# ---------------------------------------------------------------- single values


def plain_value(domain: Domain) -> float:
    """The plainest value that an element can have; for rows (one-hot, simplex, unit) see `plain`."""
    for value in _PLAIN.get(domain.kind, _ZERO_FIRST):
        if domain.low <= value <= domain.high:
            return value
    return domain.low if domain.low > 0 else domain.high


def special_values(domain: Domain) -> list[float]:
    """Values inside the domain at which losses tend to fail, plain ones first, -0.0 and 0.0 told apart.

    Zeros and units, the domain's ends and the floats next to them, the neighbours of 1, the smallest and largest floats and their roots,
    epsilons that people write, and the arguments at which exp overflows or underflows. For whole numbers all of them if they are few.
    """
    if domain.kind not in CONTINUOUS:
        return _whole_values(domain)
    return list(_special_floats(domain.dtype, domain.low, domain.high))


@lru_cache(maxsize=256)
def _special_floats(dtype: str, low: float, high: float) -> tuple[float, ...]:
    return tuple(_distinct(_inside(FORMATS[dtype], low, high, _interesting(FORMATS[dtype], low, high))))


def _whole_values(domain: Domain) -> list[float]:
    if domain.value is not None:
        return _distinct(domain.value.astype(np.float64).reshape(-1)[:64].tolist())
    if domain.high - domain.low <= 16:
        return [float(n) for n in range(int(domain.low), int(domain.high) + 1)]
    middle = float((domain.low + domain.high) // 2)
    values = (0.0, 1.0, -1.0, domain.low, domain.high, domain.low + 1, domain.high - 1, middle)
    return _distinct(_inside(domain.format, domain.low, domain.high, values))


def _interesting(fmt: Format, low: float, high: float) -> list[float]:
    ends = [low, high, float(next_up(fmt, low)), float(next_down(fmt, high))]
    sizes = [1.0, 0.5, 2.0, 10.0, 1 + fmt.eps, 1 - fmt.eps / 2, fmt.eps, fmt.eps / 2, 1e-8, 1e-6, 1e-4]
    sizes += [fmt.tiny, fmt.smallest, math.sqrt(fmt.tiny), math.sqrt(fmt.smallest), math.sqrt(fmt.max), fmt.max, math.pi / 2, math.pi]
    limits = [math.log(fmt.max), -math.log(fmt.tiny), -math.log(fmt.smallest), -math.log(fmt.eps), math.log(fmt.max) / 2]
    sizes += limits + [x * 1.01 for x in limits]
    zeros = [0.0, -0.0] if low < 0 else [0.0]  # a domain such as [0, 1] holds -0.0 too, but nobody expects to read it in a witness
    return [*zeros, *ends, *(s for x in sizes for s in (x, -x))]


def _inside(fmt: Format, low: float, high: float, values: Sequence[float]) -> list[float]:
    """The values rounded to the format, those that lie between the ends."""
    rounded = nearest(fmt, values)
    return [float(v) for v in rounded[(low <= rounded) & (rounded <= high)]]


def _distinct(values: Iterable[float]) -> list[float]:
    return list({(v, math.copysign(1.0, v)): v for v in values}.values())


# ---------------------------------------------------------------- whole arrays


def full(domain: Domain, value: float) -> Array:
    """The domain's shape filled with one value, moved to the nearest member of the domain."""
    return project(domain, np.asarray(value))


def plain(domain: Domain) -> Array:
    """The array that a reader finds plainest: zeros, halves for probabilities, ones for masks, the uniform row of a simplex."""
    if domain.kind in ("onehot", "unit"):
        return project(domain, _axis(domain.shape, 0))
    return full(domain, plain_value(domain))


def corners(domain: Domain) -> list[Array]:
    """Extreme members: all elements at an end or at zero, ends in turn, one element apart from the rest, the vertices of rows."""
    if domain.value is not None:
        return [domain.value]
    if huge(domain):
        return [_repeated(a, domain.shape) for a in corners(_block(domain))[:HUGE_CORNERS]]
    shape = domain.shape
    if domain.kind in ROWS:
        width = shape[-1]
        vertices = [_axis(shape, k) for k in dict.fromkeys((0, width - 1, width // 2))]
        vertices += [-v for v in vertices] if domain.kind == "unit" else []
        middle = [np.full(shape, 1 / width)] if domain.kind != "onehot" else [_diagonal(shape)]
        return _unique([project(domain, v) for v in [*vertices, *middle, _diagonal(shape)]])
    low, high = domain.low, domain.high
    turns = np.arange(math.prod(shape)).reshape(shape) % 2
    first = np.arange(math.prod(shape)).reshape(shape) == 0
    made = [np.full(shape, x) for x in _distinct((low, high, *(_inside(domain.format, low, high, (0.0,)))))]
    made += [np.where(pick, a, b) for pick in (turns == 0, first) for a, b in ((low, high), (high, low))]
    return _unique([project(domain, a) for a in made])


def draw(domain: Domain, rng: np.random.Generator) -> Array:
    """A random member: uniform, or spread over all floats or over the decades, or of special values, or with repeated elements."""
    if domain.value is not None:
        return domain.value
    if huge(domain):
        return _repeated(draw(_block(domain), rng), domain.shape)
    if domain.kind in ROWS:
        return project(domain, _row_draw(domain, rng))
    if domain.kind not in CONTINUOUS:
        return project(domain, _whole_draw(domain, rng))
    fill = rng.choice(5, p=(0.35, 0.15, 0.2, 0.2, 0.1))
    return project(domain, (_uniform, _any_float, _decades, _specials, _repeats)[fill](domain, rng))


def ordinary(domain: Domain, rng: np.random.Generator) -> Array:
    """A generic member: uniform within the bounds (within [-3, 3] of wide ones), no ties or zeros but by chance."""
    if domain.value is not None:
        return domain.value
    if huge(domain):
        return _repeated(ordinary(_block(domain), rng), domain.shape)
    if domain.kind in ROWS:
        return project(domain, rng.random(domain.shape) + 0.1 if domain.kind != "onehot" else _row_draw(domain, rng))
    if domain.kind not in CONTINUOUS:
        return project(domain, rng.integers(int(domain.low), int(domain.high), domain.shape, endpoint=True).astype(np.float64))
    low, high = max(domain.low, -3.0), min(domain.high, 3.0)
    if low >= high:
        low, high = domain.low, domain.high
    return project(domain, 2 * rng.uniform(low / 2, high / 2, domain.shape))


def mosaic(domain: Domain, rng: np.random.Generator) -> Array:
    """Each element a special value of its own; a random member where the domain has none."""
    if huge(domain):
        return domain.value if domain.value is not None else _repeated(mosaic(_block(domain), rng), domain.shape)
    values = special_values(domain)
    return project(domain, rng.choice(np.array(values), domain.shape)) if values else draw(domain, rng)


def huge(domain: Domain) -> bool:
    """Whether arrays of the domain are larger than a block, so that they are made of repeated blocks."""
    return math.prod(domain.shape) > BLOCK and math.prod(_block(domain).shape) < math.prod(domain.shape)


def _block(domain: Domain) -> Domain:
    """The domain with its leading axes cut until its arrays are no larger than a block; rows stay whole."""
    shape = list(domain.shape)
    for axis in range(len(shape) - (domain.kind in ROWS)):
        inner = max(math.prod(shape[axis + 1 :]), 1)
        shape[axis] = min(shape[axis], max(BLOCK // inner, 1))
    return domain.but(shape=tuple(shape))


def _repeated(block: Array, shape: tuple[int, ...]) -> Array:
    return np.resize(block, shape)


def _uniform(domain: Domain, rng: np.random.Generator) -> Float64:
    # halves first: high - low may exceed the largest float64
    return 2 * rng.uniform(domain.low / 2, domain.high / 2, domain.shape)


def _any_float(domain: Domain, rng: np.random.Generator) -> Float64:
    first, last = (int(ordinal(domain.format, x)) for x in (domain.low, domain.high))
    return from_ordinal(domain.format, rng.integers(first, last, domain.shape, endpoint=True))


def _decades(domain: Domain, rng: np.random.Generator) -> Float64:
    largest = max(abs(domain.low), abs(domain.high), 1e-30)
    size = 10 ** rng.uniform(math.log10(largest) - 10, math.log10(largest), domain.shape)
    negative = domain.low < 0 and (domain.high <= 0 or rng.integers(2, size=domain.shape) == 1)
    return np.asarray(np.where(negative, -size, size))


def _specials(domain: Domain, rng: np.random.Generator) -> Float64:
    special = rng.choice(np.array(special_values(domain)), domain.shape)
    return np.asarray(np.where(rng.random(domain.shape) < rng.choice((0.1, 0.5, 1.0)), special, _uniform(domain, rng)))


def _repeats(domain: Domain, rng: np.random.Generator) -> Float64:
    """Equal rows, equal columns, or one value everywhere."""
    keep = rng.integers(2, size=len(domain.shape))
    small = domain.but(shape=tuple(n if k else min(n, 1) for n, k in zip(domain.shape, keep, strict=True)))
    return np.broadcast_to(_uniform(small, rng), domain.shape)


def _whole_draw(domain: Domain, rng: np.random.Generator) -> Float64:
    if domain.kind in ("binary", "mask"):
        return np.asarray(rng.random(domain.shape) < rng.choice((0.0, 0.1, 0.5, 0.9, 1.0)), np.float64)
    low, high = int(domain.low), int(domain.high)
    if rng.random() < 0.2:
        return np.full(domain.shape, rng.integers(low, high, endpoint=True), np.float64)
    return rng.integers(low, high, domain.shape, endpoint=True).astype(np.float64)


def _row_draw(domain: Domain, rng: np.random.Generator) -> Float64:
    width = domain.shape[-1]
    if domain.kind == "onehot" or rng.random() < 0.1:
        return np.asarray(np.eye(width)[rng.integers(width, size=domain.shape[:-1])])
    if domain.kind == "unit":
        return rng.normal(size=domain.shape)
    weights = rng.gamma(rng.choice((0.05, 0.5, 1.0, 10.0)), size=domain.shape)
    # a few exact zeros, as an underflowing softmax leaves them
    return np.asarray(np.where(rng.random(domain.shape) < rng.choice((0.0, 0.3)), 0.0, weights))


def _axis(shape: tuple[int, ...], k: int) -> Float64:
    """Rows that are 1 at element k and 0 elsewhere."""
    return np.array(np.broadcast_to(np.eye(shape[-1])[k], shape))


def _diagonal(shape: tuple[int, ...]) -> Float64:
    """Rows whose 1 moves on from row to row."""
    rows = math.prod(shape[:-1])
    return np.asarray(np.eye(shape[-1])[np.arange(rows) % shape[-1]].reshape(shape))


def _unique(arrays: list[Array]) -> list[Array]:
    return list({a.tobytes(): a for a in arrays}.values())


# ---------------------------------------------------------------- membership


def contains(domain: Domain, array: Array) -> bool:
    """Whether an array is a member: shape, values that the dtype represents, bounds, whole numbers, rows (up to 4 eps of the dtype)."""
    if np.shape(array) != domain.shape:
        return False
    x = np.asarray(array).astype(np.float64)
    if domain.value is not None:
        return bool(np.array_equal(x, domain.value.astype(np.float64), equal_nan=True))
    if x.size == 0:
        return True
    if not (np.isfinite(x).all() and (nearest(domain.format, x) == x).all() and x.min() >= domain.low and x.max() <= domain.high):
        return False
    if domain.kind not in CONTINUOUS and not (x == np.floor(x)).all():
        return False
    return domain.kind not in ROWS or _rows_fit(domain, x)


def _rows_fit(domain: Domain, x: Float64) -> bool:
    if domain.kind == "onehot":
        return bool((x.sum(-1) == 1).all())
    size = x.sum(-1) if domain.kind == "simplex" else np.sqrt((x * x).sum(-1))
    return bool((np.abs(size - 1) <= 4 * domain.format.eps).all())


def project(domain: Domain, array: Array) -> Array:
    """The nearest member of the domain, in its dtype: NaN becomes a plain value, elements are rounded and clipped, rows renormalised.

    Raises ValueError if the array does not broadcast to the domain's shape.
    """
    if domain.value is not None:
        return domain.value
    x = np.asarray(array).astype(np.float64)
    if np.count_nonzero(np.isnan(x)):
        x = np.where(np.isnan(x), plain_value(domain), x)
    x = np.asarray(np.clip(x, domain.low, domain.high))
    if domain.kind not in CONTINUOUS and domain.kind != "onehot":
        x = np.rint(x)
    if x.shape != domain.shape:  # after the work on each element: a single number stands for all
        x = np.broadcast_to(x, domain.shape)
    if domain.kind in ROWS and x.size:
        x = {"onehot": _to_onehot, "simplex": _to_simplex, "unit": _to_unit}[domain.kind](domain, x)
    # rounding to the dtype is monotone and the ends are values of it, so nothing leaves the bounds here
    return x.astype(domain.format.numpy, order="C")


def _to_onehot(domain: Domain, x: Float64) -> Float64:
    return np.asarray(np.eye(x.shape[-1])[x.argmax(-1)])


def _to_simplex(domain: Domain, x: Float64) -> Float64:
    """Rows divided by their sum, then mixed with the uniform row by as much as the bounds ask for."""
    width = x.shape[-1]
    total = x.sum(-1, keepdims=True)
    x = np.where(total > 0, x, 1.0)
    x = x / x.sum(-1, keepdims=True)
    low, high, middle = x.min(-1, keepdims=True), x.max(-1, keepdims=True), 1 / width
    with np.errstate(all="ignore"):
        mix = np.maximum((domain.low - low) / (middle - low), (high - domain.high) / (high - middle))
    mix = np.clip(np.where(high > low, mix, 0.0), 0.0, 1.0)
    return np.asarray(np.clip((1 - mix) * x + mix * middle, domain.low, domain.high))


def _to_unit(domain: Domain, x: Float64) -> Float64:
    """Rows divided by their norm; under tighter bounds by turns with clipping, until both hold."""
    for _ in range(200):
        x = np.clip(_normalised(domain, x), domain.low, domain.high)
        if (np.abs((x * x).sum(-1) - 1) <= domain.format.eps).all():
            break
    return x


def _normalised(domain: Domain, x: Float64) -> Float64:
    largest = np.abs(x).max(-1, keepdims=True)
    x = np.where(largest > 0, x / np.where(largest > 0, largest, 1.0), _fallback(domain, x.shape))  # squares neither overflow nor vanish
    return np.asarray(x / np.sqrt((x * x).sum(-1, keepdims=True)))


def _fallback(domain: Domain, shape: tuple[int, ...]) -> Float64:
    """A row of norm 1 for a row of zeros, whose nearest member is not determined."""
    return _axis(shape, 0) if domain.high >= 1 else np.full(shape, math.copysign(1.0, domain.high))
