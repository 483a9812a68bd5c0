"""Sample calls of connectionist temporal classification."""

from typing import Any

import numpy as np
from numpy.random import Generator

from whynan.ir.dtype import FLOAT32, FLOAT64, INT64, Array
from whynan.ir.graph import Call
from whynan.ops._opdef import run


def _loss(rng: Generator) -> Call:
    fmt = (FLOAT32, FLOAT64)[int(rng.integers(2))]
    times, n, classes, longest = (int(rng.integers(low, high)) for low, high in ((1, 7), (1, 4), (1, 5), (1, 4)))
    targets = (n, longest) if rng.random() < 0.5 else (n * longest,)
    attrs: dict[str, Any] = {"blank": int(rng.integers(classes)), "zero_infinity": bool(rng.random() < 0.5)}
    return Call("ctc_loss", attrs, ((times, n, classes), targets, (n,), (n,)), (fmt, INT64, INT64, INT64), (n,), fmt)


def _alpha(rng: Generator) -> Call:
    call = _loss(rng)
    times, n, _ = call.shapes[0]
    longest = call.shapes[1][-1] // (n if len(call.shapes[1]) == 1 else 1)
    return Call("ctc_alpha", call.attrs, call.shapes, call.formats, (n, times, 2 * longest + 1), call.format)


def _grad(rng: Generator) -> Call:
    call = _loss(rng)
    fmt = call.format
    return Call("ctc_grad", call.attrs, (call.shape, call.shape, *call.shapes), (fmt, fmt, *call.formats), call.shapes[0], fmt)


def _loss_inputs(call: Call, rng: Generator) -> list[Array]:
    """Log-probabilities of all sizes, normalised or not, equal or not, now and then infinite or NaN; any labels; lengths."""
    (times, n, classes), targets, *_ = call.shapes
    x = rng.normal(size=(times, n, classes)) * 10.0 ** rng.integers(-2, 5)
    kind = rng.random()
    if kind < 0.4:
        x = x - np.logaddexp.reduce(x, axis=-1, keepdims=True)
    elif kind < 0.5:
        x[...] = x[0, 0, 0]
    elif kind < 0.6:
        x = np.clip(x, -1e4, 1e4) / 1e4 * call.format.max
    if rng.random() < 0.2:
        x[rng.random(x.shape) < 0.2] = (-np.inf, np.inf, np.nan)[int(rng.integers(3))]
    longest = targets[-1] // (n if len(targets) == 1 else 1)
    rows = np.random.default_rng(n * times * classes)  # the same lengths at each draw, or nothing would be known
    inputs = rows.integers(0, times + 1, n) if classes % 2 else np.full(n, times)
    lengths = rows.integers(0, longest + 1, n) if len(targets) == 2 else np.full(n, longest)
    return [x.astype(call.format.numpy), rng.integers(0, classes, targets), inputs, lengths]


def _grad_inputs(call: Call, rng: Generator) -> list[Array]:
    """A gradient, and log-probabilities, labels and lengths with their true losses."""
    loss = Call("ctc_loss", call.attrs, call.shapes[2:], call.formats[2:], call.shapes[1], call.format)
    others = _loss_inputs(loss, rng)
    g = (rng.normal(size=call.shapes[0]) * 10.0 ** rng.integers(-3, 3)).astype(call.format.numpy)
    return [g, run(loss, others), *others]


CASES = {"ctc_loss": _loss, "ctc_alpha": _alpha, "ctc_grad": _grad}
INPUTS = {"ctc_loss": _loss_inputs, "ctc_alpha": _loss_inputs, "ctc_grad": _grad_inputs}


def _drawn(op: str, level: float) -> Any:
    """A call on two equal labels with every log-probability at `level`; at 0 with one time step too few for them."""

    def draw(rng: Generator) -> tuple[Call, list[Array]]:
        times = 2 if level == 0 else 3
        attrs = {"blank": 0, "zero_infinity": False}
        arrays = [np.full((times, 1, 3), level, np.float32), np.array([[1, 1]]), np.array([times]), np.array([2])]
        shapes, formats = tuple(a.shape for a in arrays), (FLOAT32, INT64, INT64, INT64)
        loss = Call("ctc_loss", attrs, shapes, formats, (1,), FLOAT32)
        if op == "ctc_loss":
            return loss, arrays
        call = Call(op, attrs, ((1,), (1,), *shapes), (FLOAT32, FLOAT32, *formats), shapes[0], FLOAT32)
        return call, [np.ones(1, np.float32), run(loss, arrays), *arrays]

    return draw


HARD = {op: [_drawn(op, level) for level in (0.0, -np.inf, -3e38, 100.0)] for op in ("ctc_loss", "ctc_grad")}
