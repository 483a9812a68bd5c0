"""Bounds that a proof stands on: what must not be lost to over-approximation."""

import math
from typing import Any

import numpy as np
import pytest

import whynan.ops
from whynan.domain.interval import Bounds, make, of_array
from whynan.ir.dtype import BFLOAT16, BOOL, FLOAT16, FLOAT32, INT8, Format
from whynan.ir.graph import Call
from whynan.ops._opdef import bound

assert whynan.ops


def between(lo: float, hi: float, **flags: Any) -> Bounds:
    """An interval with zeros of the positive sign only, unless flags say otherwise."""
    return make(lo, hi, **({"neg_zero": False} | flags))


def at(value: float) -> Bounds:
    return of_array(np.array(value, np.float64))


def result(op: str, *inputs: Bounds, fmt: Format = FLOAT32, to: Format | None = None, **attrs: Any) -> Bounds:
    return bound(Call(op, attrs, ((),) * len(inputs), (fmt,) * len(inputs), (), to or fmt), inputs)


EXACT = [
    ("exp", 0.0, 1.0),
    ("log", 1.0, 0.0),
    ("tanh", 0.0, 0.0),
    ("sigmoid", 0.0, 0.5),
    ("sqrt", 4.0, 2.0),
    ("sqrt", 0.0, 0.0),
    ("cosh", 0.0, 1.0),
    ("cos", 0.0, 1.0),
    ("sin", 0.0, 0.0),
    ("expm1", 0.0, 0.0),
    ("log1p", 0.0, 0.0),
    ("acosh", 1.0, 0.0),
    ("square", 3.0, 9.0),
    ("reciprocal", 2.0, 0.5),
    ("rsqrt", 1.0, 1.0),
    ("exp", -math.inf, 0.0),
    ("exp", math.inf, math.inf),
    ("log", 0.0, -math.inf),
]


@pytest.mark.parametrize(("op", "x", "y"), EXACT)
def test_exact_points(op: str, x: float, y: float) -> None:
    b = result(op, at(x))
    assert (float(b.lo), float(b.hi)) == (y, y)
    assert not b.may_nan
    assert not b.may_neg_zero


@pytest.mark.parametrize("fmt", [FLOAT32, FLOAT16, BFLOAT16], ids=str)
@pytest.mark.parametrize("op", ["exp", "log", "sigmoid", "tanh", "sin", "erfc", "log1p", "softplus", "atan"])
def test_results_are_a_few_values_wide(op: str, fmt: Format) -> None:
    b = result(op, at(0.75), fmt=fmt)
    ulps = 24 if fmt is FLOAT32 else 1.01
    assert float(b.hi - b.lo) <= ulps * fmt.eps * max(abs(float(b.hi)), 0.1)


def test_positive_stays_positive() -> None:
    assert not result("exp", between(-80, 10)).may_zero
    assert result("exp", between(-200, 10)).may_pos_zero
    assert not result("exp", between(-200, 10)).may_neg_zero
    assert not result("add", between(0, 1), at(float(np.float32(1e-8)))).may_zero
    assert not result("sqrt", between(FLOAT32.smallest, 1.0)).may_zero
    assert not result("sigmoid", between(-80, 80)).may_zero
    assert float(result("log", between(1.0, 5.0)).lo) == 0.0
    assert float(result("exp", between(0.0, 5.0)).lo) == 1.0


def test_ranges() -> None:
    for op, low, high in (("sigmoid", 0, 1), ("tanh", -1, 1), ("sin", -1, 1), ("cos", -1, 1), ("erf", -1, 1), ("erfc", 0, 2)):
        b = result(op, between(-1e4, 1e4, neg_zero=True))
        assert (float(b.lo), float(b.hi)) == (low, high)
        assert not b.may_nan


def test_waves_over_small_intervals() -> None:
    b = result("sin", between(0.1, 0.2))
    assert math.isclose(float(b.lo), math.sin(0.1), rel_tol=1e-6)
    assert math.isclose(float(b.hi), math.sin(0.2), rel_tol=1e-6)
    assert float(result("cos", between(-0.1, 0.2)).hi) == 1.0
    assert math.isclose(float(result("tan", between(-1.0, 1.0)).hi), math.tan(1.0), rel_tol=1e-6)
    assert float(result("sin", between(1.5, 1.6)).hi) == 1.0


POWERS = [
    ((-2.0, 3.0), 2.0, (0.0, 9.0), False),
    ((-2.0, 3.0), 3.0, (-8.0, 27.0), False),
    ((0.0, 4.0), 0.5, (0.0, 2.0), False),
    ((2.0, 4.0), -1.0, (0.25, 0.5), False),
    ((-2.0, 3.0), 0.0, (1.0, 1.0), False),
    ((-2.0, 3.0), 0.5, (0.0, math.sqrt(3)), True),
    ((0.0, 1.0), -1.0, (1.0, math.inf), False),
]


@pytest.mark.parametrize(("x", "y", "span", "nan"), POWERS)
def test_powers_with_one_exponent(x: tuple[float, float], y: float, span: tuple[float, float], nan: bool) -> None:
    b = result("pow", between(*x), at(y))
    assert np.allclose([float(b.lo), float(b.hi)], span, rtol=1e-6, atol=0)
    assert bool(b.may_nan) is nan


def test_powers_with_an_interval_of_exponents() -> None:
    b = result("pow", between(0.0, 1.0), between(0.5, 2.0))
    assert (float(b.lo), float(b.hi), bool(b.may_nan)) == (0.0, 1.0, False)
    assert float(result("pow", between(0.5, 2.0), between(-1.0, 3.0)).hi) == pytest.approx(8.0, rel=1e-6)


def test_division() -> None:
    assert float(result("div", between(1, 2), between(4, 8)).lo) == 0.125
    by_positive = result("div", between(1, 2), between(0, 8))
    assert (float(by_positive.lo), float(by_positive.hi), bool(by_positive.may_nan)) == (0.125, math.inf, False)
    either = result("div", at(1.0), between(-1, 1, neg_zero=True))
    assert (float(either.lo), float(either.hi)) == (-math.inf, math.inf)
    only_zero = result("div", at(1.0), at(-0.0))
    assert (float(only_zero.lo), float(only_zero.hi)) == (-math.inf, -math.inf)
    assert result("div", at(0.0), at(0.0)).may_nan
    assert result("div", at(0.0), at(0.0)).empty
    assert not result("div", between(0, 1), between(FLOAT32.smallest, 1)).may_nan
    assert result("div", at(1.0), at(math.inf)).may_pos_zero
    tiny = result("div", at(-1e-30), at(1e30))
    assert tiny.may_neg_zero
    assert not tiny.may_pos_zero


def test_clamps() -> None:
    b = result("clamp", between(-1, 1, neg_zero=True, nan=True), low=0.25, high=None)
    assert (float(b.lo), float(b.hi), bool(b.may_nan)) == (0.25, 1.0, True)
    contradicting = result("clamp", between(-1, 1), low=2.0, high=1.0)
    assert (float(contradicting.lo), float(contradicting.hi)) == (1.0, 1.0)
    assert result("relu", at(math.nan)).may_nan


def test_only_the_chosen_branch_counts() -> None:
    poison = at(math.nan)
    call = Call("where", {}, ((), (), ()), (BOOL, FLOAT32, FLOAT32), (), FLOAT32)
    assert not bound(call, [at(1.0), at(2.0), poison]).may_nan
    assert bound(call, [at(0.0), at(2.0), poison]).may_nan
    assert bound(call, [make(0, 1, neg_zero=False, fraction=False), at(2.0), poison]).may_nan


def test_comparisons_are_decided_where_they_can_be() -> None:
    def decided(op: str, a: Bounds, b: Bounds) -> tuple[float, float]:
        r = result(op, a, b, to=BOOL)
        return float(r.lo), float(r.hi)

    assert decided("lt", between(0, 1), between(2, 3)) == (1, 1)
    assert decided("lt", between(2, 3), between(0, 2)) == (0, 0)
    assert decided("lt", between(0, 1, nan=True), between(2, 3)) == (0, 1)
    assert decided("ne", at(math.nan), at(1.0)) == (1, 1)
    assert decided("eq", at(-0.0), at(0.0)) == (1, 1)
    assert decided("eq", make(-1, 1, pos_zero=False, neg_zero=False), at(0.0)) == (0, 0)


def test_xlogy_is_zero_at_zero() -> None:
    b = result("xlogy", at(0.0), between(-1, 1))
    assert (float(b.lo), float(b.hi), bool(b.may_nan)) == (0.0, 0.0, False)


def test_integers_wrap_around() -> None:
    b = result("mul", at(100.0), between(0, 2, fraction=False), fmt=INT8)
    assert float(b.lo) == -128
    assert float(result("add", at(100.0), at(27.0), fmt=INT8).hi) == 127


def test_casts() -> None:
    b = bound(Call("cast", {}, ((),), (FLOAT32,), (), FLOAT16), [between(0, 1e5)])
    assert float(b.hi) == math.inf
    b = bound(Call("cast", {}, ((),), (FLOAT32,), (), INT8), [between(-1.5, 2.7, neg_zero=True)])
    assert (float(b.lo), float(b.hi), bool(b.integral)) == (-1, 2, True)
    assert float(bound(Call("cast", {}, ((),), (FLOAT32,), (), INT8), [at(math.nan)]).lo) == -128
