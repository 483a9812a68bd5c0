"""Differences that a comparison of their operands guards."""

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

from whynan.ir.dtype import BFLOAT16, FLOAT16, FLOAT32, Format, flushed

COMPARE = {"gt": np.greater, "ge": np.greater_equal, "lt": np.less, "le": np.less_equal}


def difference(op: str, lo: float, hi: float, swapped: bool = False, other: float = 1.0, fmt: Format = FLOAT32) -> tuple[float, float]:
    """Proven ends of where(op(x, y), x - y, other), or y - x if swapped."""
    s = Small()
    x, y = s.input("x", 3, fmt=fmt), s.input("y", 3, fmt=fmt)
    sub = s.op("sub", y, x) if swapped else s.op("sub", x, y)
    node = s.op("where", s.op(op, x, y), sub, s.const(other, fmt))
    return ends(proven(s, node, 0, x=interval(lo, hi, fmt=fmt), y=interval(lo, hi, fmt=fmt)).bounds[node])


def test_a_difference_of_larger_and_smaller_is_positive() -> None:
    assert difference("gt", 1, 9)[0] == 2.0**-23
    assert difference("lt", 1, 9, swapped=True)[0] == 2.0**-23
    assert difference("lt", 1, 9, other=-1.0)[1] == -(2.0**-23)
    assert difference("gt", -9, 9)[0] == 2.0**-149


def test_where_operands_may_be_equal_the_difference_may_be_zero() -> None:
    assert difference("ge", 1, 9)[0] == 0.0
    assert difference("le", 1, 9, swapped=True)[0] == 0.0


def test_the_other_difference_has_the_other_sign() -> None:
    assert difference("gt", 1, 9, swapped=True)[0] == -8.0


def test_flushed_subnormals_leave_zero_possible() -> None:
    assert difference("gt", -9, 9, fmt=flushed(FLOAT32))[0] == 0.0
    assert difference("gt", 1, 9, fmt=flushed(FLOAT32))[0] == 2.0**-23


@pytest.mark.parametrize("fmt", [FLOAT32, FLOAT16, BFLOAT16], ids=str)
@pytest.mark.parametrize("op", COMPARE)
def test_neighbouring_values_lie_within_the_bounds(op: str, fmt: Format) -> None:
    rng = np.random.default_rng(1)
    for lo, hi in ((1.0, 9.0), (-2.0, 2.0), (0.0, 1e-5), (0.0624, 0.0626)):
        x = rng.uniform(lo, hi, 4000).astype(fmt.numpy)
        lo, hi = float(x.astype(np.float64).min()), float(x.astype(np.float64).max())
        y = np.clip(np.nextafter(x, rng.choice([-np.inf, np.inf], x.size).astype(fmt.numpy)), x.min(), x.max())
        chosen = np.where(COMPARE[op](x, y), x - y, fmt.numpy.type(1)).astype(np.float64)
        low, high = difference(op, lo, hi, fmt=fmt)
        assert low <= chosen.min() and chosen.max() <= high
