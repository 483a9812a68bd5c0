"""Sums that may be contracted with a product: they stay near the plain sum, and what is known of that carries over."""

import numpy as np
from tests.analysis.small import Small, ends, interval, proven

from whynan.domain.interval import Bounds

ROW = interval(-1, 1, 2)


def scaled_and_shifted(s: Small, *, op: str = "fma") -> tuple[int, int]:
    """100 x - max(100 x), and the same as a compiler may compute it: a product that is not rounded."""
    x = s.input("x", 3, 4)
    y = s.op("mul", x, s.const(100.0))
    largest = s.reduce("amax", y, -1)
    plain = s.op("sub", y, largest)
    factors = (x, s.const(100.0)) if op == "fma" else (y,)
    return plain, s.op("either", s.op(op, *factors, s.op("neg", largest)), plain)


def bounds(s: Small, node: int, **domains: Bounds) -> Bounds:
    return proven(s, node, **(domains or {"x": ROW})).bounds[node]


def test_a_fused_difference_to_the_maximum_is_positive_by_no_more_than_a_rounding():
    s = Small()
    _, either = scaled_and_shifted(s)
    low, high = ends(bounds(s, either))
    assert low >= -200.001 and 0 < high < 1e-3


def test_the_bounds_hold_what_is_computed():
    s = Small()
    _, either = scaled_and_shifted(s)
    _, high = ends(bounds(s, either))
    x = np.random.default_rng(0).uniform(-1, 1, (4000, 4)).astype(np.float32)
    product = (x * np.float32(100)).astype(np.float64)  # float32 times 100, rounded
    fused = (x.astype(np.float64) * 100 - product.max(-1, keepdims=True)).astype(np.float32)
    assert 0 < fused.max() <= high


def test_the_logarithm_of_the_sum_of_exponentials_is_proven_finite():
    s = Small()
    _, either = scaled_and_shifted(s)
    log = s.op("log", s.reduce("sum", s.op("exp", either), -1))
    assert proven(s, log, x=ROW).outputs == (True,)


def test_without_a_plain_sum_or_with_an_infinite_one_nothing_is_said():
    s = Small()
    _, either = scaled_and_shifted(s, op="add")  # two plain sums
    assert ends(bounds(s, either)) == (-200.0, 200.0)
    s = Small()
    _, either = scaled_and_shifted(s)
    assert not bounds(s, either, x=interval(-1e38, 1e38, 2)).finite
