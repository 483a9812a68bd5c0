"""Masks with a true element in each row: what is proven finite is finite for every mask, and guards that do not guard prove nothing."""

import itertools
from collections.abc import Callable

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

from whynan.analysis.evaluate import evaluate
from whynan.domain.interval import Bounds
from whynan.ir.dtype import BOOL, FLOAT32, INT64, Format, flushed

SCORES = interval(-1e4, 1e4, 2)
BITS = Bounds(*(np.full((1, 1), x) for x in (0.0, 1.0)), np.full((1, 1), 2, np.uint8))


def not_(s: Small, x: int) -> int:
    return s.op("logical_not", x)


def either(s: Small, a: int, b: int) -> int:
    return s.op("logical_or", a, b, fmt=BOOL)


def asked(s: Small, name: str, x: int, *dims: int) -> int:
    shape = tuple(1 if d - 2 in dims else n for d, n in enumerate(s.builder.shape(x)))
    return s.builder.add(name, (x,), shape, BOOL, dims=dims)


def as_it_is(s: Small, m: int) -> int:
    return s.op("cast", m, fmt=BOOL)


def or_all_where_empty(s: Small, m: int) -> int:
    mask = as_it_is(s, m)
    return either(s, mask, not_(s, asked(s, "any", mask, -1)))


def or_all_where_all_false(s: Small, m: int) -> int:
    empty = s.op("eq", m, s.const(0, INT64))
    return either(s, asked(s, "all", empty, -1), s.op("gt", m, s.const(0, INT64)))


def counted(s: Small, m: int) -> int:
    count = s.reduce("sum", m, -1)
    return s.op("where", s.op("gt", count, s.const(0, INT64)), s.op("ne", m, s.const(0, INT64)), s.const(True, BOOL), fmt=BOOL)


def or_a_constant(s: Small, m: int) -> int:
    return either(s, as_it_is(s, m), s.const([[True, False, False], [False, False, True]], BOOL))


GUARDS = [or_all_where_empty, or_all_where_all_false, counted, or_a_constant]


def any_of_columns(s: Small, m: int) -> int:
    mask = as_it_is(s, m)
    return either(s, mask, not_(s, asked(s, "any", mask, -2)))


def any_of_all(s: Small, m: int) -> int:
    mask = as_it_is(s, m)
    return either(s, mask, not_(s, asked(s, "any", mask, -1, -2)))


def or_where_there_is_one(s: Small, m: int) -> int:
    mask = as_it_is(s, m)
    return s.op("logical_and", mask, asked(s, "any", mask, -1), fmt=BOOL)


def any_of_the_opposite(s: Small, m: int) -> int:
    mask = as_it_is(s, m)
    return either(s, mask, not_(s, asked(s, "any", not_(s, mask), -1)))


def one_row_is_empty(s: Small, m: int) -> int:
    return either(s, as_it_is(s, m), s.const([[True, False, False], [False, False, False]], BOOL))


FALSE_GUARDS = [as_it_is, any_of_columns, any_of_all, or_where_there_is_one, any_of_the_opposite, one_row_is_empty]


def masked(guard: Callable[[Small, int], int], result: str, turned: bool) -> tuple[Small, int]:
    s = Small()
    x, mask = s.input("x", 2, 3), guard(s, s.input("m", 2, 3, fmt=INT64))
    low = s.const(-np.inf)
    filled = s.op("where", not_(s, mask), low, x, fmt=FLOAT32) if turned else s.op("where", mask, x, low, fmt=FLOAT32)
    if result == "logsumexp":
        return s, s.reduce("logsumexp", filled, -1)
    if result == "softmax":
        return s, s.op("softmax", filled, dim=-1)
    peak = s.reduce("amax", filled, -1)
    return s, s.op("add", peak, s.op("log", s.reduce("sum", s.op("exp", s.op("sub", filled, peak)), -1)))


def every_mask(s: Small, out: int) -> list[np.ndarray]:
    graph = s.graph(out)
    found = []
    for bits in itertools.product((0, 1), repeat=6):
        inputs = {"x": np.float32([[1e4, -1e4, 0], [-1e4, -1e4, 1e4]]), "m": np.int64(bits).reshape(2, 3)}
        with np.errstate(all="ignore"):
            value = evaluate(graph, inputs)[out]
        assert value is not None
        found.append(value)
    return found


@pytest.mark.parametrize("result", ["logsumexp", "softmax", "by hand"])
@pytest.mark.parametrize("guard", GUARDS)
def test_a_guarded_mask_is_proven_and_stays_inside_its_bounds(guard: Callable[[Small, int], int], result: str) -> None:
    for turned in (False, True):
        s, out = masked(guard, result, turned)
        proof = proven(s, out, x=SCORES, m=BITS)
        assert proof.finite
        lo, hi = ends(proof.bounds[out])
        assert all(lo <= v.min() and v.max() <= hi for v in every_mask(s, out))


@pytest.mark.parametrize("result", ["logsumexp", "softmax", "by hand"])
@pytest.mark.parametrize("guard", FALSE_GUARDS)
def test_what_does_not_guard_proves_nothing(guard: Callable[[Small, int], int], result: str) -> None:
    s, out = masked(guard, result, False)
    assert not proven(s, out, x=SCORES, m=BITS).finite
    assert not all(np.isfinite(v).all() for v in every_mask(s, out))  # the guard is really none


@pytest.mark.parametrize(("op", "said"), [("eq", True), ("le", True), ("ne", False), ("lt", False)])
def test_an_element_is_compared_with_itself_once_in_each_row(op: str, said: bool) -> None:
    s = Small()
    y = s.input("y", 4)
    same = s.op(op, s.reshape(y, 4, 1), s.reshape(y, 1, 4))
    rows, columns = (s.reduce("sum", s.op("cast", same, fmt=FLOAT32), d) for d in (-1, -2))
    b = proven(s, s.op("add", rows, columns), y=interval(0, 3, 1)).bounds
    assert (ends(b[rows])[0], ends(b[columns])[0]) == ((1.0, 1.0) if said else (0.0, 0.0))


def test_but_not_where_it_may_be_nan_or_is_another_value() -> None:
    for second, domain in (("y", interval(0, 3, 1, nan=True)), ("z", interval(0, 3, 1))):
        s = Small()
        y = s.input("y", 4)
        z = y if second == "y" else s.input("z", 4)
        count = s.reduce("sum", s.op("cast", s.op("eq", s.reshape(y, 4, 1), s.reshape(z, 1, 4)), fmt=FLOAT32), -1)
        domains = {"y": domain} | ({"z": domain} if second == "z" else {})
        assert ends(proven(s, count, **domains).bounds[count])[0] == 0.0


def test_facts_of_one_origin_hold_at_one_element_and_others_do_not() -> None:
    s = Small()
    mask, x = or_a_constant(s, s.input("m", 2, 3, fmt=INT64)), s.input("x", 2, 3)
    other = s.op("eq", x, s.reduce("amax", x, -1))
    twice = s.op("logical_and", mask, s.op("ge", s.op("where", mask, s.const(2.0), s.const(0.0)), s.const(1.0)), fmt=BOOL)
    both = s.op("logical_and", mask, other, fmt=BOOL)
    one, two = (s.reduce("sum", s.op("cast", v, fmt=FLOAT32), -1) for v in (twice, both))
    b = proven(s, s.op("add", one, two), x=SCORES, m=BITS).bounds
    assert ends(b[one])[0] == 1.0 and ends(b[two])[0] == 0.0


def test_turned_masks_attain_along_other_axes() -> None:
    s = Small()
    mask = or_all_where_empty(s, s.input("m", 3, 3, fmt=INT64))
    turned = s.op("permute", mask, shape=(3, 3), fmt=BOOL, axes=(-1, -2))
    crossed = s.op("logical_and", mask, turned, fmt=BOOL)
    sums = [s.reduce("sum", s.op("cast", v, fmt=FLOAT32), d) for v, d in ((turned, -2), (turned, -1), (crossed, -1))]
    b = proven(s, s.op("add", sums[0], s.op("add", sums[1], sums[2])), m=BITS).bounds
    assert [ends(b[i])[0] for i in sums] == [1.0, 0.0, 0.0]


@pytest.mark.parametrize("fmt", [FLOAT32, flushed(FLOAT32)])
def test_a_mask_of_numbers_counts_only_where_all_agree_what_is_zero(fmt: Format) -> None:
    """With subnormals flushed, `m != 0` may be false where a cast to bool is true."""
    s = Small()
    m, x = s.input("m", 2, 3, fmt=fmt), s.input("x", 2, 3)
    mask = s.op("ne", m, s.const(0.0, fmt))
    guard = either(s, mask, not_(s, asked(s, "any", s.op("cast", m, fmt=BOOL), -1)))
    out = s.reduce("logsumexp", s.op("where", guard, x, s.const(-np.inf), fmt=FLOAT32), -1)
    assert proven(s, out, x=SCORES, m=interval(0, 1, 2, fmt=fmt)).finite == (not fmt.flush)


def test_a_number_equals_itself_unless_it_may_be_nan() -> None:
    for op, says in (("eq", 1.0), ("le", 1.0), ("ne", 0.0), ("lt", 0.0)):
        s = Small()
        x = s.input("x", 3)
        same, maybe = s.op(op, x, x), s.op(op, s.op("log", x), s.op("log", x))
        bounds = proven(s, s.op("logical_and", same, maybe), x=interval(-1, 1)).bounds
        assert ends(bounds[same]) == (says, says) and ends(bounds[maybe]) == (0.0, 1.0)
