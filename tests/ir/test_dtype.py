"""Formats: limits, rounding, steps and ordinals."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whynan.ir.dtype import (
    BFLOAT16,
    BOOL,
    FLOAT16,
    FLOAT32,
    FLOAT64,
    FLOATS,
    FORMATS,
    INT32,
    Format,
    format_of,
    from_ordinal,
    nearest,
    next_down,
    next_up,
    ordinal,
    spacing,
)

formats = st.sampled_from(FLOATS)
numbers = st.floats(allow_nan=False)


def test_limits_are_those_of_the_standard() -> None:
    assert FLOAT32.max == np.finfo(np.float32).max
    assert FLOAT64.smallest == 5e-324
    assert (FLOAT16.max, FLOAT16.tiny, FLOAT16.eps) == (65504.0, 2.0**-14, 2.0**-10)
    assert (BFLOAT16.eps, BFLOAT16.tiny) == (2.0**-7, FLOAT32.tiny)
    assert INT32.max == 2**31 - 1


def test_formats_are_found_by_name() -> None:
    assert all(format_of(name).name == name == str(f) for name, f in FORMATS.items())
    with pytest.raises(KeyError):
        format_of("complex64")


@given(formats, numbers)
def test_nearest_is_representable_and_no_further_than_a_neighbour(fmt: Format, x: float) -> None:
    y = float(nearest(fmt, x))
    assert float(nearest(fmt, y)) == y
    if np.isfinite(y) and np.isfinite(x):
        for neighbour in (float(next_up(fmt, y)), float(next_down(fmt, y))):
            assert abs(x - y) <= abs(x - neighbour)


@given(formats, numbers, numbers)
def test_nearest_is_monotone(fmt: Format, x: float, y: float) -> None:
    low, high = sorted((x, y))
    assert nearest(fmt, low) <= nearest(fmt, high)


def test_nearest_overflows_to_infinity_and_keeps_the_sign_of_zero() -> None:
    assert nearest(FLOAT16, 70000.0) == np.inf
    assert nearest(FLOAT16, 65519.0) == 65504.0
    assert np.signbit(nearest(FLOAT32, -1e-60))
    assert nearest(BOOL, 1.0) == 1.0


@given(formats, numbers, st.integers(0, 5))
def test_steps_undo_each_other(fmt: Format, x: float, steps: int) -> None:
    y = float(nearest(fmt, x))
    if abs(y) < fmt.max / 2:
        assert float(next_down(fmt, next_up(fmt, y, steps), steps)) == y


@given(formats, numbers)
def test_ordinals_count_values(fmt: Format, x: float) -> None:
    y = float(nearest(fmt, x))
    n = ordinal(fmt, y)
    assert from_ordinal(fmt, n) == y
    if np.isfinite(y):
        assert ordinal(fmt, next_up(fmt, y)) == n + 1


def test_ordinals_of_zeros_and_integers() -> None:
    assert ordinal(FLOAT32, [0.0, -0.0, FLOAT32.smallest, -FLOAT32.smallest]).tolist() == [0, 0, 1, -1]
    assert from_ordinal(INT32, ordinal(INT32, [-3.0, 7.0])).tolist() == [-3.0, 7.0]


@given(formats, numbers)
def test_spacing_is_the_gap_above(fmt: Format, x: float) -> None:
    y = abs(float(nearest(fmt, x)))
    if y < fmt.max:
        assert spacing(fmt, x) == float(next_up(fmt, y)) - y
    else:
        assert spacing(fmt, x) > 0
