"""Sweeps over the registry: whatever is defined is tested here, and a definition without a case fails."""

import itertools
from collections.abc import Iterator
from dataclasses import replace

import numpy as np
import pytest
from tests.ops.cases import cases, edges, hard_cases, inputs
from tests.ops.soundness import draw, special_values, violations

import whynan.ops
from whynan.domain.interval import Bounds, apply, join, make, of_array
from whynan.ir.dtype import FLOAT32, FLOATS, Format, nearest
from whynan.ir.graph import Call
from whynan.ops import _opdef
from whynan.ops._opdef import OPS, Danger, OpDef, bound, define_op, run

CASES, INPUTS, EDGES, HARD = cases(), inputs(), edges(), hard_cases()
NAMES = sorted(OPS)
ELEMENTWISE = [name for name in NAMES if OPS[name].elementwise]
DANGERS = [(name, i) for name in NAMES for i in range(len(OPS[name].dangers))]
TRIALS = 40


def _seed(name: str) -> int:
    return sum(ord(c) * 31**i for i, c in enumerate(name)) % 2**32


def test_every_op_has_a_case_and_every_case_an_op() -> None:
    assert sorted(CASES) == NAMES


@pytest.mark.parametrize("name", NAMES)
def test_bounds_hold_what_runs_give(name: str) -> None:
    rng = np.random.default_rng(_seed(name))
    if name == "input":
        pytest.skip("an input has no value of its own")
    found = [text for _ in range(TRIALS) for text in violations(rng, CASES[name](rng), INPUTS.get(name))]
    assert not found, "\n".join(found[:6])


# these hand their inputs on and make no subnormal of their own
_PASSING = {"where", "maximum", "minimum", "clamp", "abs", "neg", "copysign", "relu", "nan_to_num", "heaviside", "either"}


@pytest.mark.parametrize("name", sorted(set(ELEMENTWISE) - _PASSING))
def test_bounds_hold_what_flushing_hardware_gives(name: str) -> None:
    rng = np.random.default_rng(_seed(name))
    found = []
    for _ in range(TRIALS // 4):
        call = CASES[name](rng)
        if call.format.is_float:
            flushing = replace(call, format=replace(call.format, flush=True))
            found += violations(rng, flushing, INPUTS.get(name))
    assert not found, "\n".join(found[:6])


@pytest.fixture
def unsound_op() -> Iterator[str]:
    """An op whose bounds leave out the upper half of its results."""
    name = "unsound-double"
    define_op(name, "twice a number", lambda call, a: a + a, lambda call, a: make(2 * a.lo, 1.5 * a.hi), elementwise=True)
    yield name
    del _opdef._OPS[name]


def test_the_sweep_finds_an_unsound_op(unsound_op: str) -> None:
    rng = np.random.default_rng(0)
    call = Call(unsound_op, {}, ((4, 6),), (FLOAT32,), (4, 6), FLOAT32)
    assert any(violations(rng, call) for _ in range(TRIALS))


def test_the_fixture_leaves_no_op_behind() -> None:
    assert "unsound-double" not in OPS


def test_an_op_is_defined_once() -> None:
    with pytest.raises(whynan.errors.OpError, match="twice"):
        define_op("add", "again", lambda call, a: a, lambda call, a: a)


@pytest.mark.parametrize("name", NAMES)
def test_words(name: str) -> None:
    op = OPS[name]
    assert op.text
    assert op.text[-1] not in ".!,"
    assert op.text[0] == op.text[0].lower() or not op.text[0].isalpha()
    for danger in op.dangers:
        assert danger.because.endswith("."), danger.because
        assert "\n" not in danger.because


def _candidates(op: OpDef, rng: np.random.Generator) -> Iterator[tuple[Call, list[np.ndarray]]]:
    """Calls with inputs among which a danger should show: all pairs of special values, or many random draws."""
    for hard in HARD.get(op.name, []):
        yield hard(rng)
    for _ in range(200 if not op.elementwise else 12):
        call = CASES[op.name](rng)
        if not op.elementwise:
            special = INPUTS.get(op.name)
            few = rng.random() < 0.7
            arrays = special(call, rng) if special else [draw(rng, f, s, few) for f, s in zip(call.formats, call.shapes, strict=True)]
            yield call, arrays
        elif all(f.is_float for f in (*call.formats, call.format)):
            grid = itertools.product(*[special_values(f).tolist() for f in call.formats])
            columns = np.array([*grid, *EDGES.get(op.name, [])]).T
            yield replace_shape(call, columns.shape[1:]), [_as(c, f) for c, f in zip(columns, call.formats, strict=True)]


def _as(x: np.ndarray, fmt: Format) -> np.ndarray:
    return nearest(fmt, x).astype(fmt.numpy)


def replace_shape(call: Call, shape: tuple[int, ...]) -> Call:
    return replace(call, shape=shape, shapes=(shape,) * len(call.shapes))


@pytest.mark.parametrize(("name", "index"), DANGERS)
def test_each_danger_is_real(name: str, index: int) -> None:
    """Some input meets the danger's condition and no earlier one of the op, and its result is NaN or infinite."""
    rng = np.random.default_rng(_seed(name))
    op = OPS[name]
    for call, arrays in _candidates(op, rng):
        value = run(call, arrays)
        with np.errstate(all="ignore"):
            met = _met(op.dangers[index], call, arrays) & ~np.isfinite(value.astype(np.float64))
            for earlier in op.dangers[:index]:
                met = met & ~_met(earlier, call, arrays)
        if met.any():
            return
    pytest.fail(f"no input meets {op.dangers[index].cause} of {name}")


def _met(danger: Danger, call: Call, arrays: list[np.ndarray]) -> np.ndarray:
    return np.broadcast_to(np.asarray(danger.when(call, *arrays), bool), call.shape)


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_non_finite_results_have_a_danger(name: str) -> None:
    """A finite input with a non-finite result meets the condition of some danger (or the blame would have no words)."""
    rng = np.random.default_rng(_seed(name))
    op = OPS[name]
    for call, arrays in itertools.islice(_candidates(op, rng), 6):
        value = run(call, arrays).astype(np.float64)
        with np.errstate(all="ignore"):
            finite = np.logical_and.reduce([np.isfinite(a.astype(np.float64)) for a in arrays])
            bad = finite & ~np.isfinite(value)
            named = np.logical_or.reduce([np.zeros(call.shape, bool), *[_met(d, call, arrays) for d in op.dangers]])
        assert not (bad & ~named).any(), [a[bad & ~named][:3] for a in arrays]


@pytest.mark.parametrize("name", ELEMENTWISE)
def test_boxes_in_front(name: str) -> None:
    """Many boxes at once give what each gives alone."""
    rng = np.random.default_rng(_seed(name))
    for _ in range(6):
        call = CASES[name](rng)
        boxes = [[_box(rng, call, i) for i in range(len(call.shapes))] for _ in range(3)]
        stacked = [_stacked(column) for column in zip(*boxes, strict=True)]
        together = bound(call, stacked)
        for k, box in enumerate(boxes):
            one, other = bound(call, box), apply(together, lambda a, k=k: a[k])
            assert np.array_equal(one.lo, other.lo)
            assert np.array_equal(one.hi, other.hi)
            assert np.array_equal(one.flags, other.flags)


def _stacked(boxes: tuple[Bounds, ...]) -> Bounds:
    return Bounds(np.stack([b.lo for b in boxes]), np.stack([b.hi for b in boxes]), np.stack([b.flags for b in boxes]))


def _box(rng: np.random.Generator, call: Call, i: int) -> Bounds:
    return join(*[of_array(draw(rng, call.formats[i], call.shapes[i])) for _ in range(2)])


@pytest.mark.parametrize("name", [n for n in ELEMENTWISE if OPS[n].monotone])
def test_monotone_as_claimed(name: str) -> None:
    rng = np.random.default_rng(_seed(name))
    for _ in range(4):
        call = CASES[name](rng)
        arrays = [draw(rng, f, s) for f, s in zip(call.formats, call.shapes, strict=True)]
        for i, direction in enumerate(OPS[name].monotone):
            if direction == 0 or not call.format.is_float or call.formats[i] not in FLOATS:
                continue
            other = draw(rng, call.formats[i], call.shapes[i])
            with np.errstate(invalid="ignore"):
                low, high = np.minimum(arrays[i], other), np.maximum(arrays[i], other)
            first, last = (run(call, [*arrays[:i], x, *arrays[i + 1 :]], wide=True) for x in (low, high))
            with np.errstate(invalid="ignore"):
                tolerance = 1e-9 * np.maximum(np.abs(first), 1)
                tolerance = np.where(np.isfinite(tolerance), tolerance, 0.0)
                assert not (direction * (last - first) < -tolerance).any()
