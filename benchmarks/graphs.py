"""Graphs of any number of operations, built without a framework: a long chain, many branches, a recurrence in a Python loop."""

from collections.abc import Callable

import numpy as np

from whynan.domain.interval import Bounds, between
from whynan.ir.dtype import BOOL, FLOAT32
from whynan.ir.graph import Builder, Graph, Output

ROWS = 8


def chain(ops: int) -> Graph:
    """One value that goes through `ops` elementwise operations: exp, log, where, clamp, products and sums in turn."""
    b, x = _start()
    one = _number(b, 1.0)
    half = _number(b, 0.5)
    y = x
    while len(b.nodes) < ops - 2:
        low = _op(b, "clamp", y, low=-5.0, high=5.0)
        grown = _op(b, "add", _op(b, "exp", low), one)
        positive = b.add("gt", (low, half), (ROWS,), BOOL)
        y = b.add("where", (positive, _op(b, "log", grown), _op(b, "mul", low, half)), (ROWS,), FLOAT32)
    return _finished(b, y)


def branches(ops: int) -> Graph:
    """Terms that know nothing of each other, each a few operations on the input, added up one by one."""
    b, x = _start()
    total = x
    count = 0
    while len(b.nodes) < ops - 2:
        count += 1
        scaled = _op(b, "mul", x, _number(b, 1 / count))
        term = _op(b, "log", _op(b, "add", _op(b, "exp", scaled), _number(b, 1.0)))
        total = _op(b, "add", total, term)
    return _finished(b, total)


def recurrence(ops: int) -> Graph:
    """A gated state that is updated step by step from the same input, as an unrolled loop records it."""
    b, x = _start()
    state = _number(b, 0.0)
    decay = _number(b, 0.9)
    while len(b.nodes) < ops - 2:
        gate = _op(b, "sigmoid", _op(b, "add", x, state))
        state = _op(b, "tanh", _op(b, "add", _op(b, "mul", state, decay), _op(b, "mul", gate, x)))
    return _finished(b, state)


SHAPES: dict[str, Callable[[int], Graph]] = {"chain": chain, "branches": branches, "recurrence": recurrence}


def domains() -> dict[str, Bounds]:
    """What the input of each of these graphs may be: any number between -3 and 3."""
    return {"x": between(-3.0, 3.0, FLOAT32, 1)}


def _start() -> tuple[Builder, int]:
    b = Builder()
    return b, b.add("input", (), (ROWS,), FLOAT32)


def _number(b: Builder, value: float) -> int:
    return b.const(np.asarray(value, np.float32), FLOAT32)


def _op(b: Builder, name: str, *inputs: int, **attrs: float) -> int:
    return b.add(name, inputs, (ROWS,), FLOAT32, **attrs)


def _finished(b: Builder, value: int) -> Graph:
    total = b.add("sum", (value,), (1,), FLOAT32, dims=(-1,))
    loss = b.add("reshape", (total,), (), FLOAT32)
    return Graph(tuple(b.nodes), {"x": 0}, (Output("loss", "loss", loss),))
