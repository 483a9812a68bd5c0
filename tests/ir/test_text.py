"""The printer of graphs."""

import numpy as np

from whynan.ir.dtype import BFLOAT16, FLOAT32, INT64
from whynan.ir.graph import BACKWARD, Assumption, Builder, Graph, Output, Place
from whynan.ir.text import text


def _graph() -> Graph:
    b = Builder()
    x = b.add("input", (), (2, 3), FLOAT32)
    half = b.const(np.array(0.5, np.float32), FLOAT32)
    y = b.add("mul", (x, half), (2, 3), FLOAT32)
    s = b.add("sum", (y,), (2, 1), FLOAT32, dims=(-1,))
    z = b.add("clamp", (s,), (2, 1), FLOAT32, low=-0.0, high=None)
    b.place = Place(phase=BACKWARD)
    w = b.const(np.array([1.5, -2.0, np.nan]).astype(BFLOAT16.numpy), BFLOAT16)
    many = b.const(np.arange(20), INT64)
    outputs = (Output("loss", "loss", z), Output("gradient", "x", w))
    return Graph(tuple(b.nodes), {"x": x}, outputs, (Assumption(many, 0, 19, "bool(tensor)"),))


def test_one_line_per_node() -> None:
    assert text(_graph()).splitlines() == [
        '%0 = input "x" : float32[2, 3]',
        "%1 = const 0.5 : float32[]",
        "%2 = mul(%0, %1) : float32[2, 3]",
        "%3 = sum(%2, dims=(-1,)) : float32[2, 1]",
        "%4 = clamp(%3, high=None, low=-0.0) : float32[2, 1]",
        "%5 = const [1.5, -2.0, nan] : bfloat16[3]  # backward",
        "%6 = const array of shape (20,), 0 to 19 : int64[20]  # backward",
        "assume 0 <= %6 <= 19 for bool(tensor)",
        "return loss = %4, x = %5",
    ]


def test_float32_values_read_back_exactly() -> None:
    b = Builder()
    b.const(np.array(0.1, np.float32), FLOAT32)
    line = text(Graph(tuple(b.nodes), {}, ()))
    assert float(line.split()[3]) == float(np.float32(0.1))
    assert "return" not in line
