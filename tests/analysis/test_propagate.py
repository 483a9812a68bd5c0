"""The abstract run: what is proven finite, what is left open and why, and the bounds that pairs of values give."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

from whynan.analysis.propagate import propagate
from whynan.domain.interval import Bounds
from whynan.ir.dtype import BOOL, FLOAT16, FLOAT32, FLOAT64
from whynan.ir.graph import Builder, Graph, Output

UNIT, REAL, NONNEGATIVE, LOGIT = interval(0, 1), interval(-1e4, 1e4), interval(0, 1e4), interval(-100, 100)


def of_x(build: Callable[[Small, int], int]) -> tuple[Small, int]:
    s = Small()
    return s, build(s, s.input("x", 4))


def double_where(s: Small, x: int) -> int:
    """sqrt where x > 0, with the root's own input made harmless too."""
    positive = s.op("gt", x, s.const(0.0))
    root = s.op("sqrt", s.op("where", positive, x, s.const(1.0)))
    return s.op("where", positive, s.op("div", s.const(0.5), root), s.const(0.0))


SAFE = {
    "log(p + eps)": (lambda s, x: s.op("log", s.op("add", x, s.const(1e-8))), UNIT),
    "log(clamp(p, eps))": (lambda s, x: s.op("log", s.op("clamp", x, low=1e-12, high=None)), UNIT),
    "1 / (1 + x^2)": (lambda s, x: s.op("div", s.const(1.0), s.op("add", s.const(1.0), s.op("square", x))), REAL),
    "p / (p + (1 - p))": (lambda s, p: s.op("div", p, s.op("add", p, s.op("sub", s.const(1.0), p))), UNIT),
    "where(p > 0, log p, 0)": (lambda s, p: s.op("where", s.op("gt", p, s.const(0.0)), s.op("log", p), s.const(0.0)), UNIT),
    "where(p == 0, 0, 1 / p)": (
        lambda s, p: s.op("where", s.op("lt", p, s.const(1e-30)), s.const(0.0), s.op("reciprocal", p)),
        UNIT,
    ),
    "double where": (double_where, NONNEGATIVE),
    "sqrt(relu(x))": (lambda s, x: s.op("sqrt", s.op("relu", x)), REAL),
    "log(1 + exp(-|x|))": (lambda s, x: s.op("log", s.op("add", s.const(1.0), s.op("exp", s.op("neg", s.op("abs", x))))), REAL),
    "exp(min(x, 80))": (lambda s, x: s.op("exp", s.op("minimum", x, s.const(80.0))), REAL),
}


@pytest.mark.parametrize(("build", "domain"), SAFE.values(), ids=SAFE)
def test_proven_finite(build: Callable[[Small, int], int], domain: Bounds) -> None:
    s, loss = of_x(build)
    proof = proven(s, loss, x=domain)
    assert proof.finite and proof.outputs == (True,) and proof.open == {}


UNSAFE = {
    "log(p)": (lambda s, x: s.op("log", x), UNIT, "log"),
    "log(1 - p)": (lambda s, x: s.op("log", s.op("sub", s.const(1.0), x)), UNIT, "log"),
    "1 / x": (lambda s, x: s.op("reciprocal", x), REAL, "reciprocal"),
    "exp(x)": (lambda s, x: s.op("exp", x), LOGIT, "exp"),
    "x / x": (lambda s, x: s.op("div", x, x), REAL, "div"),
    "sqrt(x)": (lambda s, x: s.op("sqrt", x), REAL, "sqrt"),
    "where on the wrong side": (
        lambda s, p: s.op("where", s.op("ge", p, s.const(0.0)), s.op("log", p), s.const(0.0)),
        UNIT,
        "log",
    ),
    "log(clamp(p, 1e-50))": (lambda s, x: s.op("log", s.op("clamp", x, low=0.0, high=1.0)), UNIT, "log"),
    "acos of more than 1": (lambda s, x: s.op("acos", s.op("mul", x, s.const(1.1))), UNIT, "acos"),
}


@pytest.mark.parametrize(("build", "domain", "op"), UNSAFE.values(), ids=UNSAFE)
def test_left_open_where_it_can_fail(build: Callable[[Small, int], int], domain: Bounds, op: str) -> None:
    s, loss = of_x(build)
    proof = proven(s, loss, x=domain)
    assert not proof.finite
    assert {s.builder.nodes[i].op for i in proof.open} == {op}


def test_an_infinity_that_never_reaches_an_output_leaves_nothing_open() -> None:
    s = Small()
    x = s.input("x", 4)
    s.op("log", x)
    proof = proven(s, s.op("exp", x), x=UNIT)
    assert proof.finite and proof.open == {}


def test_each_output_is_judged_by_itself() -> None:
    s = Small()
    x = s.input("x", 4)
    root, slope = s.op("sqrt", x), s.op("div", s.const(0.5), s.op("sqrt", x))
    proof = propagate(s.graph(root, x=slope), {"x": UNIT})
    assert proof.outputs == (True, False) and list(proof.open) == [slope]


def test_an_unknown_operation_means_anything_and_is_named() -> None:
    s = Small()
    x = s.input("x", 4)
    s.place(spelling="aten.mystery.default")
    u = s.op("unknown.mystery", x)
    proof = proven(s, s.op("exp", u), x=UNIT)
    assert not proof.finite and "aten.mystery.default" in proof.open[u]


def test_a_bounded_operation_on_an_unknown_one_is_still_open() -> None:
    """Clamping does not remove NaN."""
    s = Small()
    u = s.op("unknown.mystery", s.input("x", 4))
    assert not proven(s, s.op("clamp", u, low=0.0, high=1.0), x=UNIT).finite


def test_a_domain_that_holds_nan_is_named_as_the_reason() -> None:
    s = Small()
    x = s.input("x", 4)
    proof = proven(s, s.op("exp", x), x=interval(0, 1, nan=True))
    assert proof.open[x] == "the domain itself holds NaN or Inf"


def test_reasons_say_the_ranges() -> None:
    s = Small()
    x = s.input("x", 4)
    proof = proven(s, y := s.op("log", x), x=UNIT)
    assert proof.open[y] == "log of [0, 1] could not be shown to stay finite; left open for x in [0, 1] (all of its range), after 3 boxes"


# ---------------------------------------------------------------- pairs of values


def test_a_difference_of_equal_values_is_zero_and_a_quotient_one() -> None:
    s = Small()
    x = s.input("x", 4)
    zero, one = s.op("sub", x, x), s.op("div", x, x)
    b = proven(s, s.op("add", zero, one), x=interval(1, 9)).bounds
    assert ends(b[zero]) == (0.0, 0.0) and ends(b[one]) == (1.0, 1.0)


def test_a_difference_of_equal_infinities_is_not_zero() -> None:
    s = Small()
    x = s.input("x", 4)
    zero = s.op("sub", x, x)
    assert not proven(s, zero, x=interval(0, np.inf)).finite


def test_a_difference_of_rows_and_columns_is_not_zero() -> None:
    s = Small()
    x = s.input("x", 4)
    pairs = s.op("sub", s.reshape(x, 4, 1), s.reshape(x, 1, 4))
    assert ends(proven(s, pairs, x=UNIT).bounds[pairs]) == (-1.0, 1.0)


def test_a_product_with_itself_is_not_negative() -> None:
    s = Small()
    x = s.input("x", 4)
    square = s.op("mul", x, x)
    assert ends(proven(s, square, x=LOGIT).bounds[square]) == (0.0, 1e4)


def test_a_value_divided_by_its_norm_is_at_most_about_one() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    norm = s.op("clamp", s.reduce("norm", x, -1, ord=2.0), low=1e-12, high=None)
    y = s.op("div", x, norm)
    low, high = ends(proven(s, y, x=interval(-1e4, 1e4, 2)).bounds[y])
    assert -1.01 < low < 0 < high < 1.01


def test_a_share_of_a_sum_with_an_epsilon_is_at_most_one() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    share = s.op("div", x, s.op("add", s.reduce("sum", x, -1), s.const(1e-8)))
    low, high = ends(proven(s, share, x=interval(0, 1e4, 2)).bounds[share])
    assert low == 0.0 and high == 1.0


def test_a_share_of_a_sum_without_epsilon_is_open() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    share = s.op("div", x, s.reduce("sum", x, -1))
    assert not proven(s, share, x=interval(0, 1e4, 2)).finite


def test_a_share_of_a_signed_sum_is_open() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    share = s.op("div", x, s.op("add", s.reduce("sum", x, -1), s.const(1e-8)))
    assert not proven(s, share, x=interval(-1, 1, 2)).finite


def test_a_value_less_than_its_maximum_never_overflows_an_exponential() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    e = s.op("exp", s.op("sub", x, s.reduce("amax", x, -1)))
    assert proven(s, e, x=interval(-3e38, 3e38, 2)).bounds[e].hi.max() == 1.0


def test_relations_hold_through_a_rounding_to_a_wider_format() -> None:
    s = Small()
    x = s.input("x", 3, 4, fmt=FLOAT16)
    wide = s.op("cast", x, fmt=FLOAT32)
    share = s.op("div", wide, s.op("add", s.reduce("sum", wide, -1), s.const(1e-3)))
    assert ends(proven(s, share, x=interval(0, 10, 2, FLOAT16)).bounds[share])[1] == 1.0


# ---------------------------------------------------------------- formats


@pytest.mark.parametrize(("fmt", "finite"), [(FLOAT32, False), (FLOAT64, True), (FLOAT16, False)])
def test_an_exponential_overflows_in_some_formats(fmt: object, finite: bool) -> None:
    s = Small()
    y = s.op("exp", s.input("x", 4, fmt=fmt))
    assert proven(s, y, x=interval(-100, 100, 1, fmt)).finite is finite


def test_an_epsilon_that_the_format_cannot_hold_is_no_help() -> None:
    for fmt, finite in ((FLOAT32, True), (FLOAT16, False)):
        s = Small()
        y = s.op("log", s.op("add", s.input("x", 4, fmt=fmt), s.const(1e-8, fmt)))
        assert proven(s, y, x=interval(0, 1, 1, fmt)).finite is finite


def test_one_minus_an_epsilon_rounds_to_one() -> None:
    for eps, finite in ((1e-8, False), (1e-6, True)):
        s = Small()
        top = float(np.float32(1 - eps))
        y = s.op("log", s.op("sub", s.const(1.0), s.op("clamp", s.input("x", 4), low=0.0, high=top)))
        assert proven(s, y, x=UNIT).finite is finite


# ---------------------------------------------------------------- how much is done


def test_without_refinement_nothing_is_split() -> None:
    s, loss = of_x(double_where)
    proof = propagate(s.graph(loss), {"x": NONNEGATIVE}, refine=False)
    assert proof.boxes == 0 and not proof.finite


def test_the_budget_of_boxes_is_kept_up_to_one_round() -> None:
    s, loss = of_x(lambda s, x: s.op("reciprocal", s.op("sub", s.op("square", x), s.op("mul", x, s.const(0.37)))))
    small = proven(s, loss, budget=100, x=REAL)
    assert not small.finite and small.boxes <= 100 + 16 * 64 * 4


def test_a_real_danger_costs_few_boxes() -> None:
    s, loss = of_x(lambda s, x: s.op("log", x))
    assert proven(s, loss, x=UNIT).boxes <= 50


def test_what_is_finite_anyway_costs_no_boxes() -> None:
    s, loss = of_x(lambda s, x: s.op("exp", s.op("neg", s.op("square", x))))
    assert proven(s, loss, x=LOGIT).boxes == 0


def test_equal_computations_are_bounded_once_and_dead_ones_not_at_all() -> None:
    s = Small()
    x = s.input("x", 4)
    first, second, dead = s.op("exp", x), s.op("exp", x), s.op("log", x)
    proof = proven(s, s.op("add", first, second), x=UNIT)
    assert proof.bounds[second] is proof.bounds[first] and proof.bounds[dead].nonfinite.all()


def test_hints_name_inputs_and_ranges_around_the_danger() -> None:
    s = Small()
    x, y = s.input("x", 4), s.input("y", 4)
    proof = proven(s, s.op("reciprocal", s.op("sub", x, s.const(0.25))), x=UNIT, y=UNIT)
    assert proof.hints and all(set(h) == {x} for h in proof.hints)
    assert any(h[x][0] <= 0.25 <= h[x][1] for h in proof.hints) and y not in set().union(*proof.hints)


def test_a_mask_that_multiplies_does_not_hide_an_infinity_and_where_does() -> None:
    s = Small()
    p = s.input("p", 4)
    safe = s.op("where", s.op("gt", p, s.const(0.0)), s.op("log", p), s.const(0.0))
    assert proven(s, safe, p=UNIT).finite
    s = Small()
    p = s.input("p", 4)
    factor = s.op("cast", s.op("gt", p, s.const(0.0)), fmt=FLOAT32)
    assert not proven(s, s.op("mul", factor, s.op("log", p)), p=UNIT).finite


def test_a_factor_that_is_zero_at_the_danger_makes_it_worse() -> None:
    """p * log(p) is NaN at 0; xlogy is not."""
    s, loss = of_x(lambda s, x: s.op("mul", x, s.op("log", x)))
    assert not proven(s, loss, x=UNIT).finite
    s, loss = of_x(lambda s, x: s.op("xlogy", x, x))
    assert proven(s, loss, x=UNIT).finite


def test_the_rows_of_a_simplex_sum_to_one():
    graph = normalised_rows()
    loose, tight = (propagate(graph, {"p": UNIT}, simplexes=names) for names in ((), ("p",)))
    assert not loose.finite and tight.finite
    total = tight.bounds[1]
    assert 1 - 1e-5 < total.lo.min() <= 1 <= total.hi.max() < 1 + 1e-5


def test_columns_of_a_simplex_do_not():
    assert not propagate(normalised_rows(dims=(-2,)), {"p": UNIT}, simplexes=("p",)).finite


def test_a_choice_that_is_always_the_same_hides_no_maximum():
    def shifted(s: Small, x: int) -> int:
        top = s.reduce("amax", x, -1)
        kept = s.op("where", s.op("isfinite", top, fmt=BOOL), top, s.const(0.0))
        return s.op("log", s.reduce("sum", s.op("exp", s.op("sub", x, kept)), -1))

    s, root = of_x(shifted)
    assert propagate(s.graph(root), {"x": LOGIT}).finite


def normalised_rows(dims=(-1,)):
    b = Builder()
    p = b.add("input", (), (4, 3), FLOAT32, name="p")
    total = b.add("sum", (p,), (4, 1) if dims == (-1,) else (1, 3), FLOAT32, dims=dims)
    inverse = b.add("reciprocal", (total,), b.shape(total), FLOAT32)
    return Graph(tuple(b.nodes), {"p": p}, (Output("loss", "loss", inverse),))
