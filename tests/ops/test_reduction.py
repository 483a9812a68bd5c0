"""Reductions, norms, softmax and scans: exact and tight expectations."""

from typing import Any

import numpy as np
import pytest

import whynan.ops  # noqa: F401  (registers the ops)
from whynan.domain.interval import Bounds, between, make, of_array
from whynan.ir.dtype import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, FLOATS, INT64, Format
from whynan.ir.graph import Call, Shape
from whynan.ops._opdef import bound


def reduced(op: str, b: Bounds, shape: Shape, fmt: Format = FLOAT32, result: Format | None = None, **attrs: Any) -> Bounds:
    dims = attrs.pop("dims", tuple(range(-len(shape), 0)))
    kept = tuple(1 if i - len(shape) in dims else n for i, n in enumerate(shape))
    return bound(Call(op, {"dims": dims, **attrs}, (shape,), (fmt,), kept, result or fmt), [b])


def rows(op: str, b: Bounds, shape: Shape, fmt: Format = FLOAT32, **attrs: Any) -> Bounds:
    return bound(Call(op, {"dim": -1, **attrs}, (shape,), (fmt,), shape, fmt), [b])


def ends(b: Bounds) -> tuple[float, float]:
    assert b.lo.size == 1
    return float(b.lo.ravel()[0]), float(b.hi.ravel()[0])


def test_sum_of_a_uniform_value_costs_the_same_for_any_size() -> None:
    b = reduced("sum", between(0, 1, FLOAT32, 2, neg_zero=False), (1000, 1000))
    assert b.shape == (1, 1)
    assert ends(b) == (0.0, 1e6)  # whole ends: no order of summation rounds them
    assert not b.may_neg_zero.any()
    assert b.finite


def test_sum_keeps_groups_on_other_axes() -> None:
    b = make(np.array([[1.0], [2.0]]), np.array([[1.0], [4.0]]))
    total = reduced("sum", b, (2, 10), dims=(-1,))
    assert total.lo.tolist() == [[10.0], [20.0]]
    assert total.hi.tolist() == [[10.0], [40.0]]


def test_sum_widens_by_rounding_only_where_it_rounds() -> None:
    low, high = ends(reduced("sum", make([0.1], [0.1]), (100,)))
    assert low < 10 < high
    assert high - low < 1e-3


def test_sum_of_positive_terms_is_at_least_each() -> None:
    for fmt in FLOATS:
        b = reduced("sum", between(fmt.smallest, 1, fmt, 1, pos_zero=False, neg_zero=False), (5000,), fmt)
        assert b.lo[0] >= fmt.smallest
        assert not b.may_zero.any()


def test_sum_overflows_by_sign() -> None:
    up = reduced("sum", between(0, 3e38, FLOAT32, 1), (2,))
    assert ends(up) == (0.0, np.inf)
    assert not up.may_nan.any()
    both = reduced("sum", between(-3e38, 3e38, FLOAT32, 1), (4,))
    assert both.may_nan.all()
    assert ends(both) == (-np.inf, np.inf)


def test_sum_of_infinities() -> None:
    assert reduced("sum", of_array(np.array([np.inf, -np.inf])), (2,)).may_nan.all()
    assert not reduced("sum", of_array(np.array([np.inf, 1.0])), (2,)).may_nan.any()
    assert not reduced("sum", between(-np.inf, np.inf, FLOAT32, 1), (1,)).may_nan.any()


def test_sum_of_nothing_is_zero() -> None:
    b = reduced("sum", between(1, 2, FLOAT32, 1), (0,))
    assert ends(b) == (0.0, 0.0)
    assert b.may_pos_zero.all()


def test_whole_numbers_stay_whole() -> None:
    b = reduced("sum", between(0, 3, FLOAT32, 1, fraction=False), (7,))
    assert b.integral.all()
    assert ends(reduced("sum", between(0, 1, BOOL, 1), (7,), BOOL, INT64)) == (0.0, 7.0)


def test_an_integer_sum_may_wrap() -> None:
    low, high = ends(reduced("sum", between(0, INT64.max, INT64, 1), (2,), INT64))
    assert low < 0 < high


def test_mean_of_probabilities_is_one_at_most() -> None:
    for n in (3, 49, 1000):
        assert ends(reduced("mean", between(0, 1, FLOAT32, 1), (n,))) == (0.0, 1.0)


def test_mean_of_half_precision_does_not_overflow_in_torch() -> None:
    assert reduced("mean", between(0, 60000, FLOAT16, 1), (100,), FLOAT16).finite
    assert not reduced("mean", between(0, 60000, FLOAT16, 1), (100,), FLOAT16, accumulate="format").finite
    assert not reduced("mean", between(0, 3e38, BFLOAT16, 1), (100,), BFLOAT16).finite


def test_mean_of_nothing_is_nan() -> None:
    b = reduced("mean", between(1, 2, FLOAT32, 1), (0,))
    assert b.may_nan.all()
    assert b.empty.all()


def test_variance() -> None:
    low, high = ends(reduced("var", between(-1, 1, FLOAT32, 1), (100,), correction=0))
    assert low == 0
    assert 1 <= high < 1.001
    assert reduced("var", between(-1, 1, FLOAT32, 1), (1,), correction=1).may_nan.all()
    assert not reduced("var", between(-1, 1, FLOAT32, 1), (2,), correction=1).may_nan.any()


def test_product() -> None:
    assert ends(reduced("prod", between(0, 1, FLOAT32, 1), (50,))) == (0.0, 1.0)
    assert ends(reduced("prod", of_array(np.array([-2.0, 4.0, -0.5])), (3,)))[0] == pytest.approx(4, rel=1e-5)
    assert reduced("prod", between(0, 1e30, FLOAT32, 1), (3,)).may_nan.all()  # inf * 0
    assert not reduced("prod", between(1, 1e30, FLOAT32, 1), (3,)).may_nan.any()


def test_extremes_and_their_positions() -> None:
    b = make([0.0, 2.0, -1.0], [1.0, 3.0, 5.0])
    assert ends(reduced("amax", b, (3,))) == (2.0, 5.0)
    assert ends(reduced("amin", b, (3,))) == (-1.0, 1.0)
    assert ends(reduced("argmax", b, (3,), result=INT64)) == (1.0, 2.0)
    assert ends(reduced("argmax", between(0, 1, FLOAT32, 1), (9,), result=INT64)) == (0.0, 8.0)


def test_truth() -> None:
    some = make([0.0, 1.0], [0.0, 2.0])
    assert ends(reduced("any", some, (2,), result=BOOL)) == (1.0, 1.0)
    assert ends(reduced("all", some, (2,), result=BOOL)) == (0.0, 0.0)
    assert ends(reduced("count_nonzero", between(0, 1, FLOAT32, 1), (9,), result=INT64)) == (0.0, 9.0)


def test_norm_underflows_and_overflows() -> None:
    assert ends(reduced("norm", between(1e-30, 1e-25, FLOAT32, 1), (4,), ord=2.0))[0] == 0.0
    assert ends(reduced("norm", between(0, 1e20, FLOAT32, 1), (4,), ord=2.0))[1] == np.inf
    assert reduced("norm", between(0, 1e4, FLOAT16, 1), (4,), FLOAT16, ord=2.0).finite  # the squares are float32
    assert reduced("norm", between(0, 1e20, FLOAT32, 1), (4,), ord=1.0).finite


def test_norm_is_tight() -> None:
    assert ends(reduced("norm", between(-1, 1, FLOAT32, 1), (4,), ord=2.0)) == (0.0, 2.0)
    low, high = ends(reduced("norm", between(1, 2, FLOAT32, 1), (100,), ord=2.0))
    assert 9.999 < low <= 10
    assert 20 <= high < 20.001
    assert not reduced("norm", between(1e-10, 1, FLOAT32, 1), (4,), ord=2.0).may_zero.any()


def test_softmax_of_bounded_logits_is_positive() -> None:
    b = rows("softmax", between(-10, 10, FLOAT32, 2), (8, 5))
    assert b.shape == (1, 1)
    low, high = ends(b)
    assert low == pytest.approx(np.exp(-20) / (np.exp(-20) + 4), rel=1e-4)
    assert high == pytest.approx(1 / (1 + 4 * np.exp(-20)), rel=1e-4)
    assert not b.may_nan.any()
    assert not b.may_zero.any()


def test_softmax_of_far_logits_may_be_zero() -> None:
    b = rows("softmax", between(-100, 100, FLOAT32, 2), (8, 5))
    assert ends(b) == (0.0, 1.0)
    assert b.finite


def test_softmax_under_a_mask() -> None:
    masked = make([[-np.inf, -np.inf, 0.0]], [[5.0, 5.0, 5.0]])
    assert not rows("softmax", masked, (4, 3)).may_nan.any()
    assert rows("softmax", between(-np.inf, 5, FLOAT32, 2), (4, 3)).may_nan.all()
    assert rows("softmax", make([[0.0, 0.0]], [[np.inf, 1.0]]), (1, 2)).may_nan.all()


def test_log_softmax() -> None:
    b = rows("log_softmax", between(-100, 100, FLOAT32, 2), (8, 5))
    low, high = ends(b)
    assert low == pytest.approx(-200 - np.log(4), rel=1e-4)
    assert high == 0.0
    assert b.finite
    assert not rows("log_softmax", between(-3e38, 3e38, FLOAT32, 2), (8, 5)).finite  # x - max overflows
    assert ends(rows("log_softmax", between(-3, 3, FLOAT32, 2), (8, 1))) == (0.0, 0.0)


def test_logsumexp() -> None:
    low, high = ends(reduced("logsumexp", between(-5, 7, FLOAT32, 1), (10,)))
    assert low == pytest.approx(-5 + np.log(10), abs=1e-4)
    assert high == pytest.approx(7 + np.log(10), abs=1e-4)
    assert ends(reduced("logsumexp", make([-np.inf], [-np.inf]), (3,))) == (-np.inf, -np.inf)
    assert not reduced("logsumexp", between(-np.inf, np.inf, FLOAT32, 1), (3,)).may_nan.any()
    assert reduced("logsumexp", between(-1e38, 1e38, FLOAT32, 1), (3,)).finite


def test_scans() -> None:
    total = rows("cumsum", between(0, 1, FLOAT32, 1), (4,))
    assert total.hi.tolist() == [1.0, 2.0, 3.0, 4.0]
    long = rows("cumsum", between(-1, 1, FLOAT32, 1), (100_000,))
    assert ends(long) == (-1e5, 1e5)
    assert rows("cummax", of_array(np.array([1.0, 3.0, 2.0])), (3,)).lo.tolist() == [1.0, 3.0, 3.0]
    assert not rows("cumprod", between(0, 2, FLOAT32, 1), (100_000,)).finite


def test_order() -> None:
    b = make([3.0, 0.0, 1.0], [4.0, 9.0, 2.0])
    ordered = rows("sort_values", b, (3,))
    assert ordered.lo.tolist() == [0.0, 1.0, 3.0]
    assert ordered.hi.tolist() == [2.0, 4.0, 9.0]
    best = bound(Call("topk_values", {"dim": -1, "k": 1, "largest": True}, ((3,),), (FLOAT64,), (1,), FLOAT64), [b])
    assert ends(best) == (3.0, 9.0)
    assert ends(bound(Call("kth", {"dim": -1, "k": 2}, ((3,),), (FLOAT64,), (1,), FLOAT64), [b])) == (1.0, 4.0)


def test_softmax_beside_a_huge_negative_number() -> None:
    """What is masked by the lowest number of the format makes the rest no less exact."""
    low, high = [[-12.0, -3.4e38, -12.0]], [[0.0, -3.4e38, 0.0]]
    b, logs = (rows(op, make(low, high), (4, 3)) for op in ("softmax", "log_softmax"))
    assert b.lo[0, 0] == pytest.approx(np.exp(-12) / (1 + np.exp(-12)), rel=1e-4)
    assert logs.lo[0, 0] == pytest.approx(-12, abs=1e-4)
    rng = np.random.default_rng(0)
    for _ in range(2000):
        x = np.array([rng.choice([-12.0, 0.0, rng.uniform(-12, 0)]), -3.4e38, rng.choice([-12.0, 0.0, rng.uniform(-12, 0)])], np.float32)
        e = np.exp(x - x.max())
        value = e / e.sum()
        assert ((b.lo[0] <= value) & (value <= b.hi[0])).all()
        assert (logs.lo[0] <= x - x.max() - np.log(e.sum())).all()


def test_softmax_of_large_numbers_close_together() -> None:
    """Rounding in float64 grows with the numbers: bounds that are points still hold what long double finds."""
    rng = np.random.default_rng(1)
    for _ in range(300):
        x = (rng.choice([1e6, -1e6, 1e12, 30.0]) + rng.uniform(-5, 5, (1, 6))).astype(np.float64)
        exact = x.astype(np.longdouble) - x.max()
        exact = exact - np.log(np.exp(exact).sum())
        b = rows("log_softmax", make(x, x), (1, 6), FLOAT64)
        assert ((b.lo <= exact) & (exact <= b.hi)).all()
