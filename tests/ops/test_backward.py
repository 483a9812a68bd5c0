"""Inverse transfer functions, swept over the registry: what gives a result within its bounds stays within the narrowed inputs."""

from dataclasses import replace

import numpy as np
import pytest
from tests.ops.cases import cases, inputs
from tests.ops.soundness import draw_inputs

import whynan.ops  # noqa: F401  (registers the ops)
from whynan.domain.interval import Bounds, contains, entering, join, make, of_array, spread
from whynan.ir.dtype import BOOL, FLOAT16, FLOAT32, INT64, Array, Format, flushed
from whynan.ir.graph import Call
from whynan.ops import _backward
from whynan.ops._backward import invertible, narrowed
from whynan.ops._opdef import OPS, run

CASES, INPUTS = cases(), inputs()
NAMES = [name for name in sorted(OPS) if invertible(name)]
TRIALS = 30


def violations(rng: np.random.Generator, call: Call) -> list[str]:
    """Inputs that give a result within random bounds of it, and that the narrowed bounds leave out."""
    drawn = draw_inputs(rng, call, INPUTS.get(call.op))
    rows = [list(row) for row in zip(*(arrays for _, arrays in drawn), strict=False)]
    values = [run(call, row) for row in rows]
    few = rng.choice(len(values), size=int(rng.integers(1, 3)))
    result = join(*[of_array(values[k]) for k in few])
    result = join(result, of_array(np.where(rng.random(call.shape) < 0.5, values[0], values[few[0]])))
    narrow = narrowed(call, result, [entering(_laid(b, call), f) for (b, _), f in zip(drawn, call.formats, strict=True)])
    found = []
    for row, value in zip(rows, values, strict=True):
        seen = [_seen(x, f) for x, f in zip(row, call.formats, strict=True)]
        right = contains(spread(result, call.shape), value)
        for b, x in zip(narrow, seen, strict=True):
            lost = right & ~contains(spread(b, call.shape), np.broadcast_to(x, call.shape))
            if lost.any():
                where = tuple(int(i[0]) for i in np.nonzero(lost))
                one = [np.broadcast_to(y, call.shape)[where] for y in seen]
                found.append(f"{call.op} {dict(call.attrs)} {call.format}: {one} gives {value[where]} and is left out of {_text(b, where)}")
    return found


def _laid(b: Bounds, call: Call) -> Bounds:
    """Bounds of an operand laid along the result's dimensions."""
    one = (1,) * (len(call.shape) - b.lo.ndim)
    return Bounds(b.lo.reshape(one + b.lo.shape), b.hi.reshape(one + b.hi.shape), b.flags.reshape(one + b.flags.shape))


def _seen(x: Array, fmt: Format) -> Array:
    """The operand as an op sees it where subnormals are flushed."""
    return np.where(np.abs(x) < fmt.tiny, np.copysign(x.dtype.type(0), x), x) if fmt.flush else x


def _text(b: Bounds, where: tuple[int, ...]) -> str:
    lo, hi, flags = (
        np.broadcast_to(a, np.broadcast_shapes(b.lo.shape))[tuple(min(i, n - 1) for i, n in zip(where, b.lo.shape, strict=True))]
        for a in (b.lo, b.hi, b.flags)
    )
    return f"[{lo!r}, {hi!r}] flags {flags}"


def _flushing(call: Call) -> Call:
    return replace(call, format=flushed(call.format), formats=tuple(flushed(f) for f in call.formats))


def test_the_ops_of_conditions_have_inverses() -> None:
    assert {*"where eq ne lt le gt ge logical_and logical_or logical_not isfinite isnan add sub mul div abs sqrt exp log".split()} <= {
        *NAMES
    }


@pytest.mark.parametrize("name", NAMES)
def test_what_gives_the_result_stays(name: str) -> None:
    rng = np.random.default_rng(sum(map(ord, name)))
    found = [text for _ in range(TRIALS) for text in violations(rng, CASES[name](rng))]
    assert not found, "\n".join(found[:5])


@pytest.mark.parametrize("name", NAMES)
def test_what_gives_the_result_stays_where_subnormals_are_flushed(name: str) -> None:
    rng = np.random.default_rng(sum(map(ord, name)) + 1)
    found = [text for _ in range(TRIALS // 2) for text in violations(rng, _flushing(CASES[name](rng)))]
    assert not found, "\n".join(found[:5])


@pytest.fixture
def untested_cut(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pieces are cut off without being tried: every limit is believed."""
    monkeypatch.setattr(_backward, "apart", lambda a, b: np.ones(np.broadcast_shapes(a.lo.shape, b.lo.shape), bool))


@pytest.mark.parametrize("name", ["add", "exp", "where", "isnan", "lt"])
def test_the_sweep_finds_a_cut_that_was_not_tried(name: str, untested_cut: None) -> None:
    rng = np.random.default_rng(0)
    assert any(violations(rng, CASES[name](rng)) for _ in range(TRIALS))


# ---------------------------------------------------------------- what is gained


def _call(op: str, *formats: Format, result: Format | None = None, **attrs: object) -> Call:
    return Call(op, attrs, ((1,),) * len(formats), formats, (1,), result or formats[0])


def _b(lo: float, hi: float, **flags: object) -> Bounds:
    return make(np.array([lo]), np.array([hi]), **flags)


TRUE, FALSE = _b(1, 1, fraction=False, neg_zero=False), _b(0, 0, fraction=False, neg_zero=False)


def _ends(b: Bounds) -> tuple[float, float]:
    return float(b.lo[0]), float(b.hi[0])


def test_a_true_comparison_narrows_both_sides() -> None:
    a, b = narrowed(_call("gt", FLOAT32, FLOAT32, result=BOOL), TRUE, [_b(-5, 3), _b(0, 9)])
    assert _ends(a) == (float(np.float32(1e-45)), 3.0)
    assert b.hi[0] == np.nextafter(np.float32(3), np.float32(0)) and b.lo[0] == 0


def test_a_false_comparison_says_nothing_where_nan_is_possible() -> None:
    call = _call("gt", FLOAT32, FLOAT32, result=BOOL)
    assert _ends(narrowed(call, FALSE, [_b(-5, 3), _b(0, 1)])[0]) == (-5.0, 1.0)
    assert _ends(narrowed(call, FALSE, [_b(-5, 3), _b(0, 1, nan=True)])[0]) == (-5.0, 3.0)


def test_a_true_comparison_excludes_nan() -> None:
    a, b = narrowed(_call("le", FLOAT32, FLOAT32, result=BOOL), TRUE, [_b(0, 1, nan=True), _b(0, 1, nan=True)])
    assert not a.may_nan.any() and not b.may_nan.any()


def test_not_equal_to_zero_takes_zero_out_of_the_middle() -> None:
    x, _ = narrowed(_call("ne", FLOAT32, FLOAT32, result=BOOL), TRUE, [_b(-1, 1), _b(0, 0)])
    assert _ends(x) == (-1.0, 1.0) and not x.may_zero.any()


def test_a_choice_that_only_one_side_can_give_decides_the_condition() -> None:
    call = _call("where", BOOL, FLOAT32, FLOAT32, result=FLOAT32)
    c, a, b = narrowed(call, _b(-3, -1), [_b(0, 1, fraction=False, neg_zero=False), _b(-9, 9), _b(0, 1)])
    assert _ends(c) == (1.0, 1.0) and _ends(b) == (0.0, 1.0)
    assert _ends(narrowed(call, _b(-3, -1), [c, a, b])[1]) == (-3.0, -1.0)


def test_and_or_not() -> None:
    unknown = _b(0, 1, fraction=False, neg_zero=False)
    both = narrowed(_call("logical_and", BOOL, BOOL), TRUE, [unknown, unknown])
    assert [_ends(x) for x in both] == [(1, 1), (1, 1)]
    other = narrowed(_call("logical_or", BOOL, BOOL), TRUE, [FALSE, unknown])
    assert _ends(other[1]) == (1, 1)
    assert _ends(narrowed(_call("logical_not", BOOL), TRUE, [unknown])[0]) == (0, 0)


def test_isfinite_narrows_to_finite_numbers() -> None:
    (x,) = narrowed(_call("isfinite", FLOAT16, result=BOOL), TRUE, [_b(-np.inf, np.inf, nan=True)])
    assert _ends(x) == (-FLOAT16.max, FLOAT16.max) and not x.may_nan.any()


@pytest.mark.parametrize(
    ("op", "result", "given", "low", "high"),
    [
        ("exp", (1.0, 7.0), (-9, 9), 0.0, np.log(7)),
        ("log", (0.0, 1.0), (0, 9), 1.0, np.e),
        ("sqrt", (2.0, 3.0), (-5, 50), 4.0, 9.0),
        ("square", (4.0, 9.0), (0, 50), 2.0, 3.0),
        ("abs", (0.0, 3.0), (-9, 9), -3.0, 3.0),
        ("tanh", (-0.5, 0.5), (-9, 9), -0.5493, 0.5493),
        ("sigmoid", (0.5, 0.9), (-9, 9), 0.0, 2.1972),
        ("reciprocal", (0.25, 0.5), (0.0, 9), 2.0, 4.0),
    ],
)
def test_functions_of_one_variable(op: str, result: tuple[float, float], given: tuple[float, float], low: float, high: float) -> None:
    (x,) = narrowed(_call(op, FLOAT32), _b(*result), [_b(*given)])
    assert _ends(x) == pytest.approx((low, high), abs=1e-4)


def test_sums_products_and_quotients() -> None:
    a, b = narrowed(_call("add", FLOAT32, FLOAT32), _b(9, 10), [_b(0, 6), _b(0, 6)])
    assert _ends(a) == pytest.approx((3, 6), abs=1e-4) and _ends(b) == pytest.approx((3, 6), abs=1e-4)
    a, b = narrowed(_call("mul", FLOAT32, FLOAT32), _b(8, 12), [_b(1, 9), _b(4, 5)])
    assert _ends(a) == pytest.approx((1.6, 3.0), abs=1e-4)
    a, b = narrowed(_call("div", FLOAT32, FLOAT32), _b(2, 4), [_b(1, 9), _b(-1, 1)])
    assert not b.may_zero.any()


def test_whole_numbers_too_large_to_count_are_left_alone() -> None:
    wide = make(np.array([-(2.0**63)]), np.array([2.0**63]), fraction=False, neg_zero=False)
    a, _ = narrowed(_call("lt", INT64, INT64, result=BOOL), TRUE, [wide, make(np.array([2.0**60]), np.array([2.0**60]), fraction=False)])
    assert a is wide
