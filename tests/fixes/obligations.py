"""What each row of a table must keep: equal values, finite wherever the old form is, and its cause cured. Failures name the point."""

from collections.abc import Iterator
from typing import Any

import mpmath
import numpy as np
from tests.fixes.evaluate import exactly, in_floats

from whynan.fixes._cost import dangerous
from whynan.fixes._pattern import LITERALS, Guard, Rule, variables
from whynan.ir.dtype import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, Format
from whynan.ir.term import Term, walk

ROW = 3
SPECIAL = (
    0.9998,
    -0.9998,
    0.0,
    -0.0,
    1.0,
    -1.0,
    0.5,
    -0.5,
    2.0,
    1e-8,
    -1e-8,
    3e-8,
    1e-4,
    1e-7,
    -1e-7,
    1e-30,
    -1e-30,
    20.0,
    -20.0,
    50.0,
    -50.0,
    95.0,
    -95.0,
)
FAR: tuple[float, ...] = (120.0, -120.0, 800.0, -800.0, 1e4, -1e4, 1e20, -1e20, 1e-45, -1e-45, 3e38, -3e38, 1e-160, 1e160)
SQUARED = {
    "norm-sqrt",
    "norm-sqrt-eps",
    "norm-two-sqrt",
    "norm-two-sqrt-eps",
    "hypot-sqrt",
    "pow-plus-eps",
}  # may overflow where the old form does not quite
BASES = {"pow-floor-tiny", "pow-floor-eps"}  # for bases that only rounding makes negative
FORMATS = (FLOAT32, FLOAT64, FLOAT16, BFLOAT16)


def points(row: Rule | Guard, rng: np.random.Generator, n: int, *, wild: bool) -> Iterator[dict[str, Any]]:
    """Values for a row's variables that its conditions allow."""
    names = variables(row.left, row.right)
    for k in range(n):
        scale = (0.3, 1.0, 4.0)[k % 3]
        found: dict[str, Any] = {}
        for name in names:
            values = (rng.normal(0, scale, ROW), rng.uniform(0.02, 0.98, ROW), rng.uniform(1, 6, ROW), rng.uniform(0.02, 0.98, ROW))[k % 4]
            if wild and rng.random() < 0.8:
                far = () if row.name in SQUARED else FAR
                values = rng.choice((*SPECIAL, *far), ROW) if rng.random() < 0.5 else np.full(ROW, rng.choice((*SPECIAL, *far)))
            found[name] = _allowed(row, name, values, rng)
        yield found


def _allowed(row: Rule | Guard, name: str, values: Any, rng: np.random.Generator) -> Any:
    if name in getattr(row, "binary", "") or name == "M":
        return rng.integers(0, 2, ROW).astype(float)
    if name in getattr(row, "positive", ""):
        return np.abs(values) + (values == 0)
    if name == "I":
        return rng.integers(0, ROW, ROW).astype(float)
    if name == "T":
        return rng.integers(0, 2, ROW).astype(float) if rng.random() < 0.5 else rng.uniform(0.02, 0.98, ROW)
    if name in LITERALS:
        return np.full(ROW, values[0])
    return np.abs(values) if name in row.nonnegative or (row.name in BASES and name == "X") else values


def unequal(rule: Rule, seed: int = 0, n: int = 48) -> str:
    """A point where the sides have different real values, as text; "" if none was found. At least five points must have a value."""
    rng = np.random.default_rng(seed)
    seen = 0
    for at in points(rule, rng, n, wild=False):
        left, right = exactly(rule.left, at, FLOAT32), exactly(rule.right, at, FLOAT32)
        if _undefined(left):
            continue
        seen += 1
        left, right = np.broadcast_arrays(left, right)
        for x, y in zip(left, right, strict=True):
            if mpmath.isnan(y) or abs(x - y) > mpmath.mpf("1e-13") * (abs(x) + abs(y)) + mpmath.mpf("1e-14"):
                return f"{rule.name}: {rule.left} is {mpmath.nstr(x, 8)}, {rule.right} is {mpmath.nstr(y, 8)} at {at}"
    return "" if seen >= 5 else f"{rule.name}: only {seen} points have a value"


def less_finite(row: Rule | Guard, seed: int = 0, n: int = 80) -> str:
    """A point, in some format, where the left side is finite and the right one is not."""
    rng = np.random.default_rng(seed)
    for fmt in FORMATS:
        for at in points(row, rng, n, wild=True):
            at = _held(at, fmt, row)
            left, right = in_floats(row.left, at, fmt), in_floats(row.right, at, fmt)
            if _inputs_finite(at) and _finite(left) and not _finite(right):
                return f"{row.name} in {fmt}: {row.left} is {left}, {row.right} is {right} at {at}"
    return ""


def cured(row: Rule | Guard, seed: int = 0, n: int = 700) -> bool:
    """Whether some point that breaks the left side (value, slope, or digits) leaves the right one whole."""
    rng = np.random.default_rng(seed)
    for at in points(row, rng, n, wild=True):
        for fmt in (FLOAT32, FLOAT16):
            held = _held(at, fmt, row)
            if _inputs_finite(held) and _mended(row, held, fmt):
                return True
    return False


def _mended(row: Rule | Guard, at: dict[str, Any], fmt: Format) -> bool:
    left, right = in_floats(row.left, at, fmt), in_floats(row.right, at, fmt)
    if not _finite(right):
        return False
    ranges = {name: (float(np.min(v)), float(np.max(v))) for name, v in at.items()}
    if not _finite(left) or _steep(row.left, ranges, fmt) > _steep(row.right, ranges, fmt):
        return True
    if getattr(row, "cures", "") != "cancellation":
        return False
    true = exactly(row.right, at, fmt)
    return not _undefined(true) and _error(left, true) > 100 * max(_error(right, true), fmt.eps)


def _steep(t: Term, ranges: dict[str, tuple[float, float]], fmt: Format) -> int:
    return sum(dangerous(s, ranges, fmt) for _, s in walk(t))


def _error(value: Any, true: Any) -> float:
    value, true = np.broadcast_arrays(value, true)
    return max(float(abs(mpmath.mpf(float(v)) - x) / (abs(x) + mpmath.mpf("1e-300"))) for v, x in zip(value, true, strict=True))


def _held(at: dict[str, Any], fmt: Format, row: Rule | Guard) -> dict[str, Any]:
    """The point in the format; what must be positive stays so."""
    out = {}
    with np.errstate(all="ignore"):
        for name, v in at.items():
            held = np.asarray(v, np.float64).astype(fmt.numpy).astype(np.float64)
            out[name] = np.maximum(held, fmt.smallest) if name in getattr(row, "positive", "") else held
    return out


def _inputs_finite(at: dict[str, Any]) -> bool:
    return all(np.isfinite(v).all() for v in at.values())


def _finite(v: Any) -> bool:
    return bool(np.isfinite(np.asarray(v, np.float64)).all())


def _undefined(values: Any) -> bool:
    return any(not isinstance(v, mpmath.mpf | int) or not mpmath.isfinite(v) for v in values)
