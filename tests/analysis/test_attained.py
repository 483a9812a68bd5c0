"""What slices are known to attain: maxima meet their own value, softmax rows hold at least 1/n, sums carry it on."""

import numpy as np
from tests.analysis.small import Small, ends, interval, proven

from whynan.domain.interval import Bounds
from whynan.ir.dtype import FLOAT32

ROW = interval(-1000, 1000, 2)


def shifted(s: Small, x: int, *dims: int) -> int:
    return s.op("sub", x, s.reduce("amax", x, *dims))


def test_a_value_less_its_maximum_is_not_positive() -> None:
    s = Small()
    d = shifted(s, s.input("x", 3, 4), -1)
    assert ends(proven(s, d, x=ROW).bounds[d]) == (-2000.0, 0.0)


def test_a_sum_of_exponentials_of_shifted_values_is_at_least_one() -> None:
    s = Small()
    e = s.op("exp", shifted(s, s.input("x", 3, 4), -1))
    total = s.reduce("sum", e, -1)
    b = proven(s, total, x=ROW).bounds
    assert ends(b[total]) == (1.0, 4.0) and ends(b[e]) == (0.0, 1.0)


def test_so_the_logarithm_of_the_sum_is_finite() -> None:
    s = Small()
    total = s.reduce("sum", s.op("exp", shifted(s, s.input("x", 3, 4), -1)), -1)
    loss = s.op("log", total)
    proof = proven(s, loss, x=ROW)
    assert proof.finite and ends(proof.bounds[loss])[0] >= -1e-6


def test_a_maximum_over_more_axes_is_met_somewhere_in_a_sum_over_all_of_them_only() -> None:
    s = Small()
    e = s.op("exp", shifted(s, s.input("x", 3, 4), -1, -2))
    rows, everything = s.reduce("sum", e, -1), s.reduce("sum", e, -1, -2)
    b = proven(s, s.op("add", rows, everything), x=ROW).bounds
    assert ends(b[everything])[0] == 1.0 and ends(b[rows])[0] == 0.0


def test_the_maximum_of_other_rows_is_not_met() -> None:
    s = Small()
    x, y = s.input("x", 3, 4), s.input("y", 3, 4)
    total = s.reduce("sum", s.op("exp", s.op("sub", x, s.reduce("amax", y, -1))), -1)
    assert ends(proven(s, total, x=ROW, y=ROW).bounds[total])[0] == 0.0


def test_the_maximum_along_one_axis_is_not_met_along_another() -> None:
    s = Small()
    x = s.input("x", 4, 4)
    other = s.op("permute", s.reduce("amax", x, -2), shape=(4, 1), axes=(-1, -2))  # column maxima, laid along the rows
    total = s.reduce("sum", s.op("exp", s.op("sub", x, other)), -1)
    assert ends(proven(s, total, x=ROW).bounds[total])[0] == 0.0


def test_a_maximum_that_may_be_infinite_or_nan_is_not_met() -> None:
    for b in (interval(-np.inf, 1000, 2), interval(-1000, 1000, 2, nan=True)):
        s = Small()
        total = s.reduce("sum", s.op("exp", shifted(s, s.input("x", 3, 4), -1)), -1)
        proof = proven(s, total, x=b)
        assert not proof.finite and ends(proof.bounds[total])[0] == 0.0


def test_an_extreme_equals_some_element_of_its_row() -> None:
    for extreme in ("amax", "amin"):
        for turned in (False, True):
            s = Small()
            x = s.input("x", 3, 4)
            pair = (s.reduce(extreme, x, -1), x)
            hit = s.op("cast", s.op("eq", *(pair if turned else pair[::-1])), fmt=FLOAT32)
            count = s.reduce("sum", hit, -1)
            assert ends(proven(s, count, x=ROW).bounds[count]) == (1.0, 4.0)


def test_so_dividing_by_the_number_of_ties_is_safe() -> None:
    """The derivative of a maximum shares the gradient among all elements that attain it."""
    s = Small()
    x = s.input("x", 3, 4)
    hit = s.op("cast", s.op("eq", x, s.reduce("amax", x, -1)), fmt=FLOAT32)
    assert proven(s, s.op("div", hit, s.reduce("sum", hit, -1)), x=ROW).finite


def test_a_softmax_row_holds_at_least_its_share() -> None:
    s = Small()
    p = s.op("softmax", s.input("x", 3, 4), shape=(3, 4), fmt=FLOAT32, dim=-1)
    top, other = s.reduce("amax", p, -1), s.reduce("amax", p, -2)
    b = proven(s, s.op("add", top, other), x=ROW).bounds
    assert 0.2499 < ends(b[top])[0] <= 0.25 and ends(b[other])[0] == 0.0


def test_a_sum_with_negative_terms_attains_nothing() -> None:
    s = Small()
    d = shifted(s, s.input("x", 3, 4), -1)
    total = s.reduce("sum", d, -1)
    assert ends(proven(s, total, x=ROW).bounds[total])[0] <= -6000.0


def test_a_maximum_of_shifted_values_is_zero() -> None:
    s = Small()
    top = s.reduce("amax", shifted(s, s.input("x", 3, 4), -1), -1)
    assert ends(proven(s, top, x=ROW).bounds[top]) == (0.0, 0.0)


def test_an_empty_axis_attains_nothing() -> None:
    s = Small()
    p = s.op("softmax", s.input("x", 3, 0), shape=(3, 0), fmt=FLOAT32, dim=-1)
    total = s.reduce("sum", p, -1)
    assert ends(proven(s, total, x=ROW).bounds[total]) == (0.0, 0.0)


def test_rows_that_are_not_there_do_not_make_a_sum_of_at_least_one() -> None:
    s = Small()
    x = s.input("x", 0, 4)
    total = s.reduce("sum", s.op("exp", shifted(s, x, -1)), -1, -2)
    b: Bounds = proven(s, total, x=ROW).bounds[total]
    assert ends(b) == (0.0, 0.0)


def test_the_largest_of_a_softmax_row_are_not_small() -> None:
    s = Small()
    p = s.op("softmax", s.input("x", 3, 4), dim=-1)
    top = s.op("topk_values", p, shape=(3, 2), dim=-1, k=2, largest=True)
    b = proven(s, s.reduce("sum", top, -1), x=ROW).bounds
    first, second = b[top].lo[..., 0], b[top].lo[..., 1]
    assert 0.24 < float(first.min()) <= 0.25 and float(second.min()) == 0
    assert 0.24 < ends(b[top + 1])[0] <= 0.25
    lowest = s.op("topk_values", p, shape=(3, 2), dim=-1, k=2, largest=False)
    assert ends(proven(s, s.reduce("sum", lowest, -1), x=ROW).bounds[lowest])[0] == 0


def test_a_sorted_row_holds_what_the_row_does_at_its_end() -> None:
    s = Small()
    p = s.op("softmax", s.input("x", 3, 4), dim=-1)
    for descending, last in ((False, -1), (True, 0)):
        row = s.op("sort_values", p, dim=-1, descending=descending)
        lo = proven(s, s.reduce("sum", row, -1), x=ROW).bounds[row].lo
        assert float(lo[..., last].min()) > 0.24 and float(lo[..., 1].min()) == 0


def test_where_a_row_may_hold_nan_its_largest_may_be_that() -> None:
    s = Small()
    p = s.op("softmax", s.input("x", 3, 4), dim=-1)
    top = s.op("topk_values", s.op("div", p, s.op("mul", p, s.const(0.0))), shape=(3, 1), dim=-1, k=1, largest=True)
    assert bool(proven(s, top, x=ROW).bounds[top].may_nan.any())
