"""Which inequalities between values are proven, and which, close to them, are not."""

from collections.abc import Callable

import pytest
from tests.analysis.small import Small, facts_of, interval

from whynan.analysis.relations import Relations
from whynan.analysis.slack import EXACT, Slack
from whynan.analysis.view import Vertex
from whynan.ir.dtype import FLOAT16, FLOAT32

WIDE = interval(-10, 10, 2)
POSITIVE = interval(0, 10, 2)


def along(small: Small, i: int) -> Vertex:
    """A node of two dimensions along its own axes."""
    return i, tuple(d if n > 1 else -1 for d, n in enumerate(small.builder.shape(i)))


def of_x(build: Callable[[Small, int], int], x: object = WIDE) -> tuple[Relations, Vertex, Vertex]:
    """Facts about a value built from one input x of shape (3, 4), the vertex of x, that of the value."""
    s = Small()
    node = s.input("x", 3, 4)
    made = build(s, node)
    return facts_of(s, (made,), x=x), along(s, node), along(s, made)


def test_a_value_is_at_most_itself() -> None:
    facts, x, _ = of_x(lambda s, x: s.op("exp", x))
    assert facts.at_most(x, x) == EXACT


def test_a_magnitude_is_at_most_a_value_only_where_that_is_not_negative() -> None:
    facts, x, _ = of_x(lambda s, x: s.op("exp", x))
    assert facts.magnitude_at_most(x, x) is None
    facts, x, _ = of_x(lambda s, x: s.op("exp", x), POSITIVE)
    assert facts.magnitude_at_most(x, x) == EXACT


ABOVE = {
    "abs": lambda s, x: s.op("abs", x),
    "maximum": lambda s, x: s.op("maximum", x, s.const(1.0)),
    "maximum, other side": lambda s, x: s.op("maximum", s.const(1.0), x),
    "clamp from below": lambda s, x: s.op("clamp", x, low=1e-8, high=None),
    "relu": lambda s, x: s.op("relu", x),
    "plus a positive number": lambda s, x: s.op("add", x, s.const(1e-8)),
    "a positive number plus": lambda s, x: s.op("add", s.const(1e-8), x),
    "minus a negative number": lambda s, x: s.op("sub", x, s.const(-1.0)),
    "maximum of its row": lambda s, x: s.reduce("amax", x, -1),
    "maximum of all": lambda s, x: s.reduce("amax", x, -1, -2),
    "log-sum-exp of its row": lambda s, x: s.reduce("logsumexp", x, -1),
    "clamp of a maximum": lambda s, x: s.op("clamp", s.reduce("amax", x, -1), low=0.0, high=None),
}


@pytest.mark.parametrize("build", ABOVE.values(), ids=ABOVE)
def test_x_is_exactly_at_most(build: Callable[[Small, int], int]) -> None:
    facts, x, larger = of_x(build)
    assert facts.at_most(x, larger) == EXACT


@pytest.mark.parametrize("build", ABOVE.values(), ids=ABOVE)
def test_flipped_sides_are_not_proven(build: Callable[[Small, int], int]) -> None:
    facts, x, larger = of_x(build)
    assert facts.at_most(larger, x) is None


NOT_ABOVE = {
    "clamp from both sides": lambda s, x: s.op("clamp", x, low=-1.0, high=1.0),
    "minimum": lambda s, x: s.op("minimum", x, s.const(1.0)),
    "plus a negative number": lambda s, x: s.op("add", x, s.const(-1e-8)),
    "minus a positive number": lambda s, x: s.op("sub", x, s.const(1e-8)),
    "sum of terms of both signs": lambda s, x: s.reduce("sum", x, -1),
    "mean of its row": lambda s, x: s.reduce("mean", x, -1),
    "minimum of its row": lambda s, x: s.reduce("amin", x, -1),
    "twice, if negative": lambda s, x: s.op("mul", x, s.const(2.0)),
    "negated": lambda s, x: s.op("neg", x),
}


@pytest.mark.parametrize("build", NOT_ABOVE.values(), ids=NOT_ABOVE)
def test_x_is_not_proven_to_be_at_most(build: Callable[[Small, int], int]) -> None:
    facts, x, other = of_x(build)
    assert facts.at_most(x, other) is None


BELOW = {
    "minimum": lambda s, x: s.op("minimum", x, s.const(1.0)),
    "clamp from above": lambda s, x: s.op("clamp", x, low=None, high=1.0),
    "minus a positive number": lambda s, x: s.op("sub", x, s.const(1e-8)),
    "plus a negative number": lambda s, x: s.op("add", x, s.const(-1.0)),
}


@pytest.mark.parametrize("build", BELOW.values(), ids=BELOW)
def test_x_is_exactly_at_least(build: Callable[[Small, int], int]) -> None:
    facts, x, smaller = of_x(build)
    assert facts.at_most(smaller, x) == EXACT and facts.at_most(x, smaller) is None


def test_a_product_with_a_factor_up_to_one_is_smaller_only_without_negative_numbers() -> None:
    def half(s: Small, x: int) -> int:
        return s.op("mul", x, s.const(0.5))

    facts, x, product = of_x(half, POSITIVE)
    assert facts.at_most(product, x) == EXACT
    facts, x, product = of_x(half)
    assert facts.at_most(product, x) is None
    assert facts.magnitude_at_most(product, x) is None


def test_the_magnitude_of_a_damped_value_is_at_most_its_norm_up_to_rounding() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    norm, damped = s.reduce("norm", x, -1, ord=2.0), s.op("mul", s.const(-0.5), x)
    facts = facts_of(s, (norm, damped), x=WIDE)
    slack = facts.magnitude_at_most(along(s, damped), along(s, norm))
    assert slack is not None and 0 < slack.relative < 1e-5


def test_a_sum_of_positive_terms_is_at_least_each_of_them_along_its_own_axis_only() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    rows, columns = s.reduce("sum", x, -1), s.reduce("sum", x, -2)
    facts = facts_of(s, (rows, columns), x=POSITIVE)
    assert facts.at_most((x, (0, 1)), (rows, (0, -1))) == EXACT
    assert facts.at_most((x, (0, 1)), (columns, (-1, 1))) == EXACT
    assert facts.at_most((x, (1, 0)), (rows, (0, -1))) is None  # another row's element


def test_a_square_matrix_seen_transposed_is_not_below_the_row_sums() -> None:
    s = Small()
    x = s.input("x", 4, 4)
    rows = s.reduce("sum", x, -1)
    facts = facts_of(s, (rows,), x=POSITIVE)
    assert facts.at_most((x, (0, 1)), (rows, (0, -1))) == EXACT
    assert facts.at_most((x, (1, 0)), (rows, (0, -1))) is None
    assert facts.at_most((x, (1, 0)), (rows, (1, -1))) == EXACT


def test_the_maximum_of_another_value_says_nothing() -> None:
    s = Small()
    x, y = s.input("x", 3, 4), s.input("y", 3, 4)
    top = s.reduce("amax", y, -1)
    facts = facts_of(s, (s.op("sub", x, top),), x=WIDE, y=WIDE)
    assert facts.at_most((x, (0, 1)), (top, (0, -1))) is None


def test_the_maximum_of_a_slice_along_a_broadcast_axis_says_nothing() -> None:
    """x[i] against max over j of z[j, i]: x does not run along j."""
    s = Small()
    x, z = s.input("x", 4), s.input("z", 3, 4)
    top = s.reduce("amax", z, -2)
    facts = facts_of(s, (s.op("sub", x, top),), x=interval(-10, 10), z=WIDE)
    assert facts.at_most((x, (1,)), (top, (-1, 1))) is None


def test_a_norm_is_at_least_each_entry_up_to_rounding() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    norm = s.reduce("norm", x, -1, ord=2.0)
    facts = facts_of(s, (norm,), x=WIDE)
    slack = facts.magnitude_at_most((x, (0, 1)), (norm, (0, -1)))
    assert slack is not None
    assert slack.relative == 16 * FLOAT32.eps and slack.absolute == 4 * FLOAT32.tiny**0.5 and slack.positive == 0.5
    assert facts.magnitude_at_most((norm, (0, -1)), (x, (0, 1))) is None


def test_a_largest_magnitude_has_no_absolute_slack() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    norm = s.reduce("norm", x, -1, ord=float("inf"))
    facts = facts_of(s, (norm,), x=WIDE)
    assert facts.magnitude_at_most((x, (0, 1)), (norm, (0, -1))) == Slack(16 * FLOAT32.eps)


def test_a_norm_of_an_order_below_one_bounds_nothing() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    norm = s.reduce("norm", x, -1, ord=0.5)
    facts = facts_of(s, (norm,), x=WIDE)
    assert facts.magnitude_at_most((x, (0, 1)), (norm, (0, -1))) is None


def written_norm(s: Small, x: int, *, power: str = "square", eps: float | None = None) -> int:
    squares = s.op("square", x) if power == "square" else s.op("mul", x, x)
    total = s.reduce("sum", squares, -1)
    return s.op("sqrt", total if eps is None else s.op("add", total, s.const(eps)))


@pytest.mark.parametrize("power", ["square", "product"])
@pytest.mark.parametrize("eps", [None, 1e-8])
def test_the_root_of_a_sum_of_squares_is_at_least_each_entry(power: str, eps: float | None) -> None:
    facts, x, norm = of_x(lambda s, x: written_norm(s, x, power=power, eps=eps))
    slack = facts.magnitude_at_most(x, norm)
    assert slack is not None and 0 < slack.relative < 1e-5 and slack.positive == 0.5


def test_a_root_of_something_minus_an_epsilon_is_not_at_least_each_entry() -> None:
    facts, x, norm = of_x(lambda s, x: written_norm(s, x, eps=-1e-8))
    assert facts.magnitude_at_most(x, norm) is None


def test_the_root_of_a_value_is_not_at_least_the_value() -> None:
    facts, x, root = of_x(lambda s, x: s.op("sqrt", x), POSITIVE)
    assert facts.at_most(x, root) is None and facts.at_most(root, x) is None


def test_roots_keep_an_order_up_to_a_few_ulps() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    small, large = s.op("sqrt", x), s.op("sqrt", s.op("add", x, s.const(1.0)))
    facts = facts_of(s, (small, large), x=POSITIVE)
    assert facts.at_most(along(s, small), along(s, large)) == Slack(4 * FLOAT32.eps)
    assert facts.at_most(along(s, large), along(s, small)) is None


def test_sums_over_the_same_axes_keep_an_order_up_to_rounding() -> None:
    s = Small()
    x, y = s.input("x", 3, 4), s.input("y", 3, 4)
    part, whole = s.reduce("sum", x, -1), s.reduce("sum", s.op("add", x, y), -1)
    other = s.reduce("sum", s.op("add", x, y), -2)
    facts = facts_of(s, (part, whole, other), x=POSITIVE, y=POSITIVE)
    assert facts.at_most((part, (0, -1)), (whole, (0, -1))) == Slack(2 * 4 * FLOAT32.eps)
    assert facts.at_most((part, (0, -1)), (other, (-1, 0))) is None
    assert facts.at_most((whole, (0, -1)), (part, (0, -1))) is None


def test_sums_so_long_that_rounding_could_eat_them_keep_no_order() -> None:
    s = Small()
    x, y = s.input("x", 2, 4000, fmt=FLOAT16), s.input("y", 2, 4000, fmt=FLOAT16)
    part, whole = s.reduce("sum", x, -1), s.reduce("sum", s.op("add", x, y), -1)
    b = interval(0, 1, 2, FLOAT16)
    facts = facts_of(s, (part, whole), x=b, y=b)
    assert facts.at_most((part, (0, -1)), (whole, (0, -1))) is None


def test_sums_of_numbers_of_both_signs_keep_no_order() -> None:
    s = Small()
    x, y = s.input("x", 3, 4), s.input("y", 3, 4)
    part, whole = s.reduce("sum", x, -1), s.reduce("sum", s.op("add", x, y), -1)
    facts = facts_of(s, (part, whole), x=WIDE, y=POSITIVE)
    assert facts.at_most((part, (0, -1)), (whole, (0, -1))) is None


def test_an_intersection_is_at_most_a_union() -> None:
    """sum(p * t) <= sum(p + t) for p, t in [0, 1]: the Dice quotient stays below 1."""
    s = Small()
    p, t = s.input("p", 3, 4), s.input("t", 3, 4)
    both, either = s.reduce("sum", s.op("mul", p, t), -1), s.reduce("sum", s.op("add", p, t), -1)
    unit = interval(0, 1, 2)
    facts = facts_of(s, (both, either), p=unit, t=unit)
    assert facts.at_most((both, (0, -1)), (either, (0, -1))) is not None
    facts = facts_of(s, (both, either), p=unit, t=interval(-1, 1, 2))
    assert facts.at_most((both, (0, -1)), (either, (0, -1))) is None


def test_where_nan_is_possible_no_bound_is_used() -> None:
    nan = interval(0, 10, 2, nan=True)
    facts, x, total = of_x(lambda s, x: s.reduce("sum", x, -1), nan)
    assert facts.at_most(x, total) is None


def test_one_failed_search_does_not_hide_a_later_proof() -> None:
    """A question asked deep inside another one, where depth ran out, is answered when asked by itself."""
    s = Small()
    x = s.input("x", 3, 4)
    chain, steps = x, []
    for k in range(12):
        chain = s.op("add", chain, s.const(float(k + 1)))
        steps.append(chain)
    facts = facts_of(s, (chain,), x=WIDE)
    far = facts.at_most((x, (0, 1)), (chain, (0, 1)))
    near = facts.at_most((x, (0, 1)), (steps[4], (0, 1)))
    assert near == EXACT and far in (None, EXACT)


def test_slacks_add_up() -> None:
    both = Slack(0.5, 1.0) + Slack(0.5, 2.0)
    assert both == Slack(1.25, 3.0) and EXACT + EXACT == EXACT
