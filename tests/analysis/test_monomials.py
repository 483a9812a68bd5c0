"""Products of products: what cancels in them is not counted twice, and what is said holds for every rounding."""

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

from whynan.domain.interval import Bounds
from whynan.ir.dtype import FLOAT16, FLOAT32, Format

LOW = {FLOAT32: 1e-9, FLOAT16: 0.02}


def bounds(s: Small, node: int, **domains: Bounds) -> Bounds:
    return proven(s, node, **domains).bounds[node]


def gradient_of_log_of_ratio(s: Small, fmt: Format, guard: str) -> tuple[int, int, int]:
    """(1 / (e / t + tiny)) / t and ((e / t) / t) times 1 / (e / t + tiny) with t = e + f: both are about 1 / e."""
    e, f = s.input("e", 64, fmt=fmt), s.input("f", 64, fmt=fmt)
    total = s.op("add", e, f)
    ratio = s.op("div", e, total)
    tiny = s.const(float(fmt.tiny), fmt)
    inner = s.op("add", ratio, tiny) if guard == "add" else s.op("maximum", tiny, ratio)
    slope = s.op("div", s.const(1.0, fmt), inner)
    return s.op("div", slope, total), s.op("mul", s.op("neg", slope), s.op("div", ratio, total)), e


@pytest.mark.parametrize("fmt", [FLOAT32, FLOAT16])
@pytest.mark.parametrize("guard", ["add", "maximum"])
def test_the_gradient_of_the_logarithm_of_a_ratio(fmt: Format, guard: str):
    s = Small()
    one, two, _ = gradient_of_log_of_ratio(s, fmt, guard)
    low, number = LOW[fmt], fmt.numpy.type
    said = [ends(bounds(s, node, e=interval(low, 1, fmt=fmt), f=interval(low, 2, fmt=fmt))) for node in (one, two)]
    assert said[0][1] < 1.1 / low and said[1][0] > -1.1 / low
    rng = np.random.default_rng(0)
    for _ in range(400):
        e, f = (np.exp(rng.uniform(np.log(low), np.log(high), 64)).astype(fmt.numpy) for high in (1, 2))
        e[::3], f[::2] = number(low), rng.choice([number(low), number(2)])
        e, f = np.clip(e, number(low), number(1)), np.clip(f, number(low), number(2))
        t = e + f
        r = e / t
        slope = number(1) / (r + number(fmt.tiny))
        for values, (lo, hi) in zip((slope / t, -slope * (r / t)), said, strict=True):
            assert lo <= values.min() and values.max() <= hi


def test_powers_of_one_value_cancel_with_rounding_counted():
    s = Small()
    x, y = s.input("x", 64), s.input("y", 64)
    node = s.op("div", s.op("mul", s.op("div", s.op("square", x), y), y), s.op("mul", x, s.op("reciprocal", y)))  # x y
    lo, hi = ends(bounds(s, node, x=interval(0.5, 3), y=interval(0.1, 7)))
    assert hi < 21.001
    rng = np.random.default_rng(1)
    for _ in range(400):
        a, b = (rng.choice([v, w, rng.uniform(v, w)], 64).astype(np.float32) for v, w in ((0.5, 3.0), (0.1, 7.0)))
        a, b = np.clip(a, np.float32(0.5), 3), np.clip(b, np.float32(0.1), 7)
        value = (a * a / b * b) / (a * (np.float32(1) / b))
        assert lo <= value.min() and value.max() <= hi


@pytest.mark.parametrize(("low", "high"), [(0.0, 1.0), (-1.0, 1.0), (1e-45, 1.0), (1e-30, 1e30)])
def test_what_may_be_zero_subnormal_or_too_large_does_not_cancel(low: float, high: float):
    s = Small()
    x, y = s.input("x", 4), s.input("y", 4)
    node = s.op("mul", s.op("div", x, y), y)
    b = bounds(s, node, x=interval(0.5, 1e20), y=interval(low, high))
    for a in (0.5, 1e20):
        for v in (low, high):
            with np.errstate(all="ignore"):
                value = np.float32(a) / np.float32(v) * np.float32(v)
            assert not b.finite or b.lo.min() <= value <= b.hi.max()


def test_a_divisor_that_is_larger_by_something_negative_is_not_larger():
    s = Small()
    x, y, z = s.input("x", 4), s.input("y", 4), s.input("z", 4)
    ratio = s.op("div", x, y)
    node = s.op("div", s.op("div", s.const(1.0), s.op("add", ratio, z)), y)
    assert not bounds(s, node, x=interval(0.1, 1), y=interval(1, 2), z=interval(-0.2, 1)).finite
    _, hi = ends(bounds(s, node, x=interval(0.1, 1), y=interval(1, 2), z=interval(-0.01, 1)))
    assert hi >= 1 / 0.09


def test_a_number_and_its_permutation_are_two():
    s = Small()
    x = s.input("x", 4, 4)
    turned = s.op("permute", x, shape=(4, 4), axes=(-1, -2))
    _, hi = ends(bounds(s, s.op("mul", s.op("div", s.const(1.0), x), turned), x=interval(0.1, 10, 2)))
    assert hi >= 99
