"""Bounds as sets of floats: what join, meet, settle and the rest keep, and what they must not lose."""

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whynan.domain.interval import (
    Bounds,
    any_finite,
    between,
    collapse,
    contains,
    join,
    join_axes,
    make,
    meet,
    of_array,
    reshape,
    settle,
    spread,
    top,
    with_nan,
    without_nan,
)
from whynan.ir.dtype import BOOL, FLOAT16, FLOAT32, FLOATS, INT32, Format, nearest

formats = st.sampled_from(FLOATS)
special = st.sampled_from([0.0, -0.0, 1.0, -1.0, 0.5, 5e-324, -5e-324, 1e-40, 1e-310, np.inf, -np.inf, np.nan, 1e300])
floats = special | st.floats()
arrays = st.lists(floats, min_size=1, max_size=6).map(np.array)
pairs = st.lists(st.tuples(floats, floats), min_size=1, max_size=6).map(lambda rows: tuple(np.array(rows).T))


@given(arrays)
def test_an_array_is_in_its_own_bounds_and_alone(x: np.ndarray) -> None:
    b = of_array(x)
    assert contains(b, x).all()
    other = np.where(np.isnan(x), 0.0, np.where(x == 0, -x, np.nan))
    assert not contains(b, other).any()


@given(pairs)
def test_join_holds_both(xy: tuple[np.ndarray, np.ndarray]) -> None:
    x, y = xy
    b = join(of_array(x), of_array(y))
    assert contains(b, x).all()
    assert contains(b, y).all()


@given(pairs, arrays)
def test_meet_holds_what_both_hold(xy: tuple[np.ndarray, np.ndarray], z: np.ndarray) -> None:
    n = min(len(xy[0]), len(z))
    x, y, z = xy[0][:n], xy[1][:n], z[:n]
    a, b = join(of_array(x), of_array(z)), join(of_array(y), of_array(z))
    both = meet(a, b)
    assert contains(both, z).all()
    for v in (x, y):
        assert (contains(both, v) == (contains(a, v) & contains(b, v))).all()


def test_meet_of_disjoint_bounds_is_empty() -> None:
    assert meet(of_array(np.array(1.0)), of_array(np.array(2.0))).empty


@given(formats, arrays)
def test_settle_holds_the_rounded_numbers(fmt: Format, x: np.ndarray) -> None:
    assert contains(settle(of_array(x), fmt), nearest(fmt, x)).all()


@given(formats, pairs)
def test_settle_holds_the_rounded_numbers_between(fmt: Format, xy: tuple[np.ndarray, np.ndarray]) -> None:
    b = join(of_array(xy[0]), of_array(xy[1]))
    with np.errstate(all="ignore"):
        middle = xy[0] / 2 + xy[1] / 2
    inside = np.where(contains(b, middle), middle, xy[0])
    assert contains(settle(b, fmt), nearest(fmt, inside)).all()


def test_settle_flushes_where_the_format_does() -> None:
    flushing = replace(FLOAT32, flush=True)
    b = settle(make(1e-40, 1.0, neg_zero=False, pos_zero=False), flushing)
    assert contains(b, np.array(0.0))
    assert not contains(b, np.array(-0.0))
    assert not contains(settle(make(1e-40, 1.0), FLOAT32), np.array(0.0))


def test_zero_flags_are_cut_to_what_the_interval_holds() -> None:
    assert not make(1.0, 2.0).may_zero
    assert make(0.0, 2.0, neg_zero=False).may_pos_zero
    assert not make(0.0, 2.0, neg_zero=False).may_neg_zero


def test_an_excluded_zero_moves_the_end() -> None:
    b = make(0.0, 2.0, pos_zero=False, neg_zero=False, fmt=FLOAT32)
    assert b.lo == FLOAT32.smallest
    assert make(-2.0, 0.0, pos_zero=False, neg_zero=False, fraction=False, fmt=FLOAT32).hi == -1.0
    flushing = replace(FLOAT16, flush=True)
    assert make(0.0, 2.0, pos_zero=False, neg_zero=False, fmt=flushing).lo == FLOAT16.tiny


def test_undefined_ends_mean_anything() -> None:
    b = make(np.nan, 1.0, pos_zero=False)
    assert contains(b, np.array([np.nan, np.inf, -np.inf, 0.0, -0.0])).all()


def test_whole_numbers() -> None:
    b = between(0, 9, INT32)
    assert b.integral
    assert contains(b, np.array([0, 9])).all()
    assert not contains(b, np.array([0.5, -1.0, -0.0])).any()


def test_top_and_any_finite() -> None:
    everything = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e30])
    assert contains(top(FLOAT32), everything).all()
    assert contains(any_finite(FLOAT32), everything).tolist() == [False, False, False, True, True, True]
    assert any_finite(FLOAT32).finite
    assert not top(FLOAT32).finite
    assert contains(top(BOOL), np.array([True, False])).all()


@given(arrays)
def test_one_group_for_all_holds_each(x: np.ndarray) -> None:
    b = of_array(x)
    assert contains(join_axes(b, (0,)), x).all()
    assert contains(collapse(b, 1), x).all()
    assert collapse(b, 3).shape == (1, 1, 1)


def test_joining_an_empty_axis_gives_nothing() -> None:
    assert join_axes(of_array(np.zeros((2, 0))), (1,)).empty.all()


def test_layouts() -> None:
    b = of_array(np.arange(6.0))
    assert reshape(b, (2, 3)).lo[1, 0] == 3.0
    assert spread(of_array(np.zeros((1, 3))), (2, 3)).shape == (2, 3)


def test_nan_is_put_in_and_taken_out() -> None:
    b = with_nan(of_array(np.ones((1, 2))), np.array([[True], [False]]))
    assert b.shape == (2, 2)
    assert b.may_nan.tolist() == [[True, True], [False, False]]
    assert not without_nan(b).may_nan.any()


@pytest.mark.parametrize(("value", "infinite"), [(1.0, False), (np.inf, True), (-np.inf, True), (np.nan, False)])
def test_what_is_not_finite(value: float, infinite: bool) -> None:
    b: Bounds = of_array(np.array(value))
    assert bool(b.may_inf) is infinite
    assert b.finite == bool(np.isfinite(value))
    assert bool(b.empty) == bool(np.isnan(value))
