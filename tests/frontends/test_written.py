"""The number that stands in the source behind a constant that rounding has changed."""

import numpy as np
import pytest

from whynan.frontends.written import written_number
from whynan.ir.dtype import FLOAT16, FLOAT32, INT64


@pytest.mark.parametrize(
    ("text", "value", "fmt", "number"),
    [
        ("jnp.clip(p, 1e-8, 1 - 1e-8)", 1.0, FLOAT32, 1 - 1e-8),
        ("p + 1e-8", 0.0, FLOAT16, 1e-8),
        ("clip(x, -1 + 1e-8, 1)", -1.0, FLOAT32, -1 + 1e-8),
        ("1 - p", 1.0, FLOAT32, None),  # nothing was rounded
        ("x + eps", 0.0, FLOAT16, None),
        ("x +", 0.0, FLOAT16, None),
        ("x + 0.1", 0.1, INT64, None),
    ],
)
def test_written_number(text, value, fmt, number):
    assert written_number(text, np.asarray(value, fmt.numpy), fmt) == number


def test_only_one_number_is_looked_for():
    assert written_number("x + 1e-8", np.zeros(2, np.float16), FLOAT16) is None
