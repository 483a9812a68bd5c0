"""Sums over fixed numbers: the weights of soft bins are never all small, wherever the number is that falls into them."""

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

CENTRES = np.linspace(0, 1, 23)


def weights(s: Small, x: int, centres: np.ndarray, sharp: float) -> int:
    """exp(-sharp (x - c)^2) along a new last axis."""
    return s.op("exp", s.op("mul", s.const(-sharp), s.op("square", s.op("sub", x, s.const(centres)))))


def evaluated(x: np.ndarray, centres: np.ndarray, sharp: float) -> np.ndarray:
    w = np.exp(np.float32(-sharp) * np.square(x[..., None] - centres.astype(np.float32)))
    assert w.dtype == np.float32
    return w.sum(-1)


def tried(low: float, high: float) -> np.ndarray:
    """Numbers of a range: random ones, its ends, and those next to equally spaced points."""
    points = np.linspace(low, high, 500).astype(np.float32)
    near = [points, np.nextafter(points, np.float32(-9)), np.nextafter(points, np.float32(9))]
    rng = np.random.default_rng(0)
    return np.clip(np.concatenate([*near, rng.uniform(low, high, 20000).astype(np.float32)]), np.float32(low), np.float32(high))


@pytest.mark.parametrize(("low", "high", "sharp"), [(0.0, 1.0, 968.0), (0.0, 1.0, 100.0), (-0.125, 1.125, 968.0), (0.3, 0.3, 968.0)])
def test_the_weights_of_soft_bins(low: float, high: float, sharp: float):
    s = Small()
    x = s.input("x", 2, 5, 1)
    total = s.reduce("sum", weights(s, x, CENTRES, sharp), -1)
    lo, hi = ends(proven(s, total, x=interval(low, high, 3)).bounds[total])
    value = evaluated(tried(low, high), CENTRES, sharp)
    assert 0 < lo <= value.min() and value.max() <= hi
    assert lo > value.min() / 4


def test_a_row_of_centres_for_each_place():
    s = Small()
    x = s.input("x", 5, 1, 1)
    centres = np.stack([CENTRES, CENTRES[::-1], CENTRES / 2 + 0.25])
    total = s.reduce("sum", weights(s, x, centres, 968.0), -1)
    b = proven(s, total, x=interval(0.2, 0.8, 3)).bounds[total]
    for k in range(3):
        value = evaluated(tried(0.2, 0.8), centres[k], 968.0)
        lo = np.broadcast_to(b.lo, (5, 3, 1))[:, k].min()
        assert 0 < lo <= value.min()
        assert value.max() <= np.broadcast_to(b.hi, (5, 3, 1))[:, k].max()


def test_axes_in_another_order():
    s = Small()
    x = s.input("x", 5)
    turned = s.op("permute", weights(s, s.reshape(x, 5, 1), CENTRES, 968.0), shape=(23, 5), axes=(-1, -2))
    total = s.reduce("sum", turned, 0)
    lo, _ = ends(proven(s, total, x=interval(0, 1)).bounds[total])
    assert 0.5 < lo <= evaluated(tried(0, 1), CENTRES, 968.0).min()


def test_a_gap_between_the_centres_is_seen():
    s = Small()
    x = s.input("x", 5, 1)
    apart = np.array([0.0, 0.1, 0.2, 0.9, 1.0])
    total = s.reduce("sum", weights(s, x, apart, 3000.0), -1)
    lo, _ = ends(proven(s, total, x=interval(0, 1, 2)).bounds[total])
    assert lo <= evaluated(tried(0, 1), apart, 3000.0).min() < 1e-30


def test_numbers_that_run_along_the_sum_are_not_one_number():
    s = Small()
    x = s.input("x", 5, 23)
    total = s.reduce("sum", weights(s, x, CENTRES, 968.0), -1)
    lo, _ = ends(proven(s, total, x=interval(0, 1, 2)).bounds[total])
    far = np.where(CENTRES < 0.5, 1.0, 0.0).astype(np.float32)
    assert lo <= np.exp(np.float32(-968) * np.square(far - CENTRES.astype(np.float32))).sum()
