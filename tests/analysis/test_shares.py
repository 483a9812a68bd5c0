"""Shares of a sum, products of a number and its logarithm, quotients that undo a product: what is said of them holds, and says enough."""

from collections.abc import Iterator

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

from whynan.domain.interval import Bounds
from whynan.ir.dtype import FLOAT16, FLOAT32, Format

FORMATS = (FLOAT32, FLOAT16)
POSITIVE = {FLOAT32: (1e-7, 8.0), FLOAT16: (1e-3, 8.0)}


def bounds(s: Small, node: int, **domains: Bounds) -> Bounds:
    return proven(s, node, **domains).bounds[node]


def samples(fmt: Format, low: float, high: float, *shape: int) -> Iterator[np.ndarray]:
    """Arrays of the format: log-uniform numbers, ends alone, and one large number among small ones."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        x = np.exp(rng.uniform(np.log(low), np.log(high), shape))
        ends_only = np.where(rng.random(shape) < 0.5, low, high)
        alone = np.where(rng.random(shape) < 1.5 / shape[-1], high, low)
        for one in (x, ends_only, alone):
            yield np.clip(one.astype(fmt.numpy), fmt.numpy.type(low), fmt.numpy.type(high))


def sums(x: np.ndarray) -> list[np.ndarray]:
    """The sum along the last axis, as computed one by one from either end, and pairwise."""
    return [np.cumsum(x[..., ::step], axis=-1, dtype=x.dtype)[..., -1:] for step in (1, -1)] + [x.sum(-1, keepdims=True)]


def shares(s: Small, *shape: int, fmt: Format = FLOAT32, dim: int = -1) -> int:
    x = s.input("x", *shape, fmt=fmt)
    return s.op("div", x, s.reduce("sum", x, dim))


# ---------------------------------------------------------------- entropy


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_number_times_its_logarithm_is_bounded_as_one_function(fmt: Format):
    s = Small()
    x = s.input("x", 64, fmt=fmt)
    low, high = POSITIVE[fmt]
    lo, hi = ends(bounds(s, s.op("mul", s.op("neg", x), s.op("log", x)), x=interval(low, high, fmt=fmt)))
    assert hi < 0.37 and lo > -16.8
    for v in samples(fmt, low, high, 64):
        y = (-v * np.log(v)).astype(np.float64)
        assert lo <= y.min() and y.max() <= hi


def test_the_logarithm_of_something_else_is_no_entropy():
    s = Small()
    x, y = s.input("x", 4), s.input("y", 4)
    lo, hi = ends(bounds(s, s.op("mul", x, s.op("log", y)), x=interval(0.1, 1), y=interval(0.1, 1)))
    assert lo < -2.3 and hi >= 0


def test_the_entropy_of_shares_is_above_zero():
    s = Small()
    p = shares(s, 3, 16)
    total = s.reduce("sum", s.op("mul", s.op("neg", p), s.op("log", p)), -1)
    low, high = POSITIVE[FLOAT32]
    lo, _ = ends(bounds(s, total, x=interval(low, high, 2)))
    assert lo > 1e-7
    for v in samples(FLOAT32, low, high, 3, 16):
        for t in sums(v):
            q = v / t
            assert min(float(e.min()) for e in sums(-q * np.log(q))) >= lo


# ---------------------------------------------------------------- shares


@pytest.mark.parametrize("fmt", FORMATS)
def test_shares_sum_to_one(fmt: Format):
    s = Small()
    low, high = POSITIVE[fmt]
    lo, hi = ends(bounds(s, s.reduce("sum", shares(s, 3, 16, fmt=fmt), -1), x=interval(low, high, 2, fmt)))
    assert 0.7 < lo <= 1 <= hi < 1.3
    for v in samples(fmt, low, high, 3, 16):
        for t in sums(v):
            for total in sums(v / t):
                assert lo <= total.min() and total.max() <= hi


def test_all_shares_but_one_are_at_most_a_half():
    s = Small()
    p = shares(s, 3, 16)
    # log(p) <= log(1/2) for 15 of them: the sum of -log(p) is at least 15 log 2
    lo, _ = ends(bounds(s, s.reduce("sum", s.op("neg", s.op("log", p)), -1), x=interval(1e-7, 8, 2)))
    assert 10.3 < lo <= 15 * np.log(2)
    for v in samples(FLOAT32, 1e-7, 8.0, 3, 16):
        assert min(float(e.min()) for t in sums(v) for e in sums(-np.log(v / t))) >= lo


def test_products_with_shares_are_weighted_means():
    s = Small()
    p, g = shares(s, 3, 16), s.input("g", 3, 16)
    node = s.reduce("sum", s.op("mul", s.op("neg", g), s.op("div", p, s.const(4.0))), -1)
    lo, hi = ends(bounds(s, node, x=interval(1e-7, 8, 2), g=interval(-10, 30, 2)))
    assert lo > -7.6 and hi < 7.6
    rng = np.random.default_rng(2)
    for v in samples(FLOAT32, 1e-7, 8.0, 3, 16):
        factor = rng.choice([-10.0, 30.0], size=v.shape).astype(np.float32)
        for t in sums(v):
            for total in sums(-factor * (v / t / np.float32(4))):
                assert lo <= total.min() and total.max() <= hi


def test_rows_of_other_axes_are_counted():
    s = Small()
    x = s.input("x", 4, 16)
    p = s.op("div", x, s.reduce("sum", x, -1))
    lo, hi = ends(bounds(s, s.reduce("sum", p, -2, -1), x=interval(1e-7, 8, 2)))
    assert lo <= 4 <= hi < 4.1
    _, hi = ends(bounds(s, s.reduce("sum", p, -2), x=interval(1e-7, 8, 2)))  # four shares of four rows
    assert hi >= 4 * (1 - 16e-7)


def test_a_share_that_is_repeated_counts_as_often_as_it_is():
    s = Small()
    x = s.input("x", 16)
    p = s.op("div", x, s.reduce("sum", x, -1))
    wide = s.op("mul", p, s.const(np.ones((5, 1))))
    _, hi = ends(bounds(s, s.reduce("sum", wide, -2, -1), x=interval(1e-7, 8)))
    assert hi >= 5


@pytest.mark.parametrize(("low", "divisor"), [(-1.0, "sum"), (1e-7, "amax"), (1e-7, "other")])
def test_quotients_that_are_no_shares_are_left_alone(low: float, divisor: str):
    s = Small()
    x, y = s.input("x", 3, 16), s.input("y", 3, 16)
    by = s.op("add", s.op("abs", s.reduce("amax" if divisor == "amax" else "sum", y if divisor == "other" else x, -1)), s.const(1e-3))
    _, hi = ends(bounds(s, s.reduce("sum", s.op("div", x, by), -1), x=interval(low, 8, 2), y=interval(1e-7, 8, 2)))
    assert hi > 4


# ---------------------------------------------------------------- quotients that undo a product


@pytest.mark.parametrize("fmt", FORMATS)
def test_a_product_divided_by_its_factor_is_the_other_one(fmt: Format):
    s = Small()
    x, y = s.input("x", 64, fmt=fmt), s.input("y", 64, fmt=fmt)
    low = 1e-30 if fmt is FLOAT32 else 1e-4
    node = s.op("div", s.op("mul", x, s.op("neg", y)), y)
    lo, hi = ends(bounds(s, node, x=interval(-3, 7, fmt=fmt), y=interval(low, 8, fmt=fmt)))
    assert -7.05 - 1e-7 / low * (fmt is FLOAT16) * 4e3 < lo and hi < 3.05 + 1e-7 / low * (fmt is FLOAT16) * 4e3
    rng = np.random.default_rng(3)
    for v in samples(fmt, low, 8.0, 64):
        w = (rng.choice([-3.0, 7.0, 1e-3, 1e-7], size=64) * rng.uniform(0.9, 1, 64)).astype(fmt.numpy)
        q = (w * -v) / v
        assert lo <= q.min() and q.max() <= hi


def test_a_product_that_may_overflow_or_vanish_is_no_number_again():
    s = Small()
    x, y = s.input("x", 4), s.input("y", 4)
    node = s.op("div", s.op("mul", x, y), y)
    assert not bounds(s, node, x=interval(1, 1e30), y=interval(1, 1e30)).finite
    lo, hi = ends(bounds(s, node, x=interval(1, 2), y=interval(1e-45, 1)))
    v = np.float32(1e-45)
    assert lo <= (np.float32(1.4) * v) / v <= hi


def test_rows_of_a_format_too_coarse_for_them_say_nothing():
    s = Small()
    p = s.op("softmax", s.input("x", 3, 300, fmt=FLOAT16), shape=(3, 300), dim=-1)
    assert ends(bounds(s, s.reduce("sum", p, -1), x=interval(-1, 1, 2, FLOAT16)))[1] > 1
