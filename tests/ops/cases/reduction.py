"""Sample calls of reductions, norms, softmax and scans."""

from collections.abc import Callable
from typing import Any

import numpy as np
from numpy.random import Generator

from whynan.ir.dtype import BOOL, FLOAT32, INT64, Array, Format
from whynan.ir.graph import Call, Shape

from . import any_float


def a_shape(rng: Generator, least: int = 1) -> Shape:
    """One to three dimensions of one to five elements."""
    return tuple(int(n) for n in rng.integers(1, 6, int(rng.integers(least, 4))))


def _some_dims(rng: Generator, shape: Shape) -> tuple[int, ...]:
    n = int(rng.integers(1, len(shape) + 1))
    return tuple(sorted(-1 - int(a) for a in rng.choice(len(shape), n, replace=False)))


def _reduce(op: str, result: Format | None = None, single: bool = False, **choices: tuple[Any, ...]) -> Callable[[Generator], Call]:
    def draw(rng: Generator) -> Call:
        fmt, shape = any_float(rng), a_shape(rng)
        dims = _some_dims(rng, shape)[:1] if single else _some_dims(rng, shape)
        kept = tuple(1 if i - len(shape) in dims else n for i, n in enumerate(shape))
        attrs = {k: v[int(rng.integers(len(v)))] for k, v in choices.items()}
        return Call(op, {"dims": dims, **attrs}, (shape,), (fmt,), kept, result or fmt)

    return draw


def _along(op: str, result: Format | None = None, keeps: bool = True, **choices: tuple[Any, ...]) -> Callable[[Generator], Call]:
    def draw(rng: Generator) -> Call:
        fmt, shape = any_float(rng), a_shape(rng)
        dim = -1 - int(rng.integers(len(shape)))
        attrs: dict[str, Any] = {k: v[int(rng.integers(len(v)))] for k, v in choices.items()}
        attrs["dim"] = dim
        out = list(shape)
        if not keeps:
            k = int(rng.integers(1, shape[dim] + 1))
            attrs["k"] = k
            out[dim] = 1 if op == "kth" else k
        return Call(op, attrs, (shape,), (fmt,), tuple(out), result or fmt)

    return draw


CASES = {
    "sum": _reduce("sum"),
    "mean": _reduce("mean"),
    "var": _reduce("var", correction=(0, 1, 2)),
    "prod": _reduce("prod"),
    "amax": _reduce("amax"),
    "amin": _reduce("amin"),
    "argmax": _reduce("argmax", INT64, single=True),
    "argmin": _reduce("argmin", INT64, single=True),
    "any": _reduce("any", BOOL),
    "all": _reduce("all", BOOL),
    "count_nonzero": _reduce("count_nonzero", INT64),
    "norm": _reduce("norm", ord=(2.0, 1.0, np.inf, -np.inf, 0.0, 3.0, 0.5, -1.0)),
    "logsumexp": _reduce("logsumexp"),
    "softmax": _along("softmax"),
    "log_softmax": _along("log_softmax"),
    "cumsum": _along("cumsum"),
    "cumprod": _along("cumprod"),
    "cummax": _along("cummax"),
    "cummin": _along("cummin"),
    "logcumsumexp": _along("logcumsumexp"),
    "sort_values": _along("sort_values", descending=(False, True)),
    "sort_indices": _along("sort_indices", INT64, descending=(False, True)),
    "topk_values": _along("topk_values", keeps=False, largest=(True, False)),
    "topk_indices": _along("topk_indices", INT64, keeps=False, largest=(True, False)),
    "kth": _along("kth", keeps=False),
}


def _hard(op: str, attrs: dict[str, Any], x: list[list[float]], fmt: Format = FLOAT32) -> Callable[[Generator], tuple[Call, list[Array]]]:
    """A call on that array whose result is not finite; `dims` in the attributes are reduced."""

    def draw(rng: Generator) -> tuple[Call, list[Array]]:
        array = np.array(x, np.float64).astype(fmt.numpy)
        kept = tuple(1 if i - array.ndim in attrs.get("dims", ()) else n for i, n in enumerate(array.shape))
        return Call(op, attrs, (array.shape,), (fmt,), kept, fmt), [array]

    return draw


HARD = {
    "mean": [_hard("mean", {"dims": (-1,)}, [[], []])],
    "var": [_hard("var", {"dims": (-1,), "correction": 1}, [[], []])],
    "softmax": [_hard("softmax", {"dim": -1}, [[-np.inf, -np.inf]])],
    "log_softmax": [_hard("log_softmax", {"dim": -1}, [[-np.inf, -np.inf]]), _hard("log_softmax", {"dim": -1}, [[3e38, -3e38]])],
}
