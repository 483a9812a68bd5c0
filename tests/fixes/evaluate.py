"""Terms on numbers: exactly (mpmath, 60 digits), or in a float format by the ops' own records.

A value is a row of numbers; reductions, and whatever else has an axis, go over the row; matrices are 1 x 1.
"""

from collections.abc import Callable, Mapping
from typing import Any

import mpmath
import numpy as np

from whynan.fixes._ranges import EXPANSIONS, _attrs
from whynan.ir.dtype import BOOL, Format
from whynan.ir.graph import Call
from whynan.ir.term import Term, leaf, name_of, value_of
from whynan.ops._opdef import OPS, run

mpmath.mp.dps = 60
NAN = mpmath.mpf("nan")
_BOOLEANS = frozenset("eq ne lt le gt ge logical_and logical_or logical_not".split())


def _real(f: Callable[..., Any]) -> Callable[..., Any]:
    """The function with NaN where it has no real value."""

    def safe(*x: Any) -> Any:
        try:
            value = f(*x)
        except (ZeroDivisionError, ValueError, OverflowError):
            return NAN
        return value if isinstance(value, mpmath.mpf | int | bool | np.bool_) else NAN

    return lambda *rows: np.array([safe(*x) for x in zip(*np.broadcast_arrays(*rows), strict=True)], dtype=object)


def _row(f: Callable[[Any], Any]) -> Callable[[Any], Any]:
    return lambda row: np.array([f(row)], dtype=object)


def _softmax(row: Any) -> Any:
    e = np.array([mpmath.exp(v) for v in row], dtype=object)
    return e / sum(e)


_LOG = mpmath.log
EXACT: dict[str, Callable[..., Any]] = {
    **{
        f: _real(getattr(mpmath, f))
        for f in "exp expm1 log1p log10 sqrt sin cos tan tanh cosh sinh acos asin atan acosh asinh atanh".split()
    },
    "log": _real(_LOG),
    "log2": _real(lambda x: _LOG(x, 2)),
    "abs": _real(abs),
    "neg": _real(lambda x: -x),
    "square": _real(lambda x: x * x),
    "reciprocal": _real(lambda x: 1 / x),
    "rsqrt": _real(lambda x: 1 / mpmath.sqrt(x)),
    "sigmoid": _real(lambda x: 1 / (1 + mpmath.exp(-x))),
    "logsigmoid": _real(lambda x: -mpmath.log1p(mpmath.exp(-x))),
    "softplus": _real(lambda x: mpmath.log1p(mpmath.exp(x))),
    "relu": _real(lambda x: max(x, mpmath.mpf(0))),
    "det": _real(lambda x: x),
    "logdet": _real(_LOG),
    "slogdet_log": _real(lambda x: _LOG(abs(x))),
    "add": _real(lambda x, y: x + y),
    "sub": _real(lambda x, y: x - y),
    "mul": _real(lambda x, y: x * y),
    "div": _real(lambda x, y: x / y),
    "pow": _real(lambda x, y: x**y),
    "maximum": _real(max),
    "minimum": _real(min),
    "clamp": _real(lambda x, low, high: min(max(x, low), high)),
    "clamp_min": _real(max),
    "clamp_max": _real(min),
    "atan2": _real(mpmath.atan2),
    "hypot": _real(mpmath.hypot),
    "xlogy": _real(lambda x, y: mpmath.mpf(0) if x == 0 else x * _LOG(y)),
    "logaddexp": _real(lambda x, y: _LOG(mpmath.exp(x) + mpmath.exp(y))),
    "bce_with_logits": _real(lambda x, t: mpmath.log1p(mpmath.exp(x)) - t * x),
    "binary_cross_entropy": _real(lambda p, t: -(t * _LOG(p) + (1 - t) * mpmath.log1p(-p))),
    "kl_div": _real(lambda x, t: t * (_LOG(t) - x)),
    "where": _real(lambda c, a, b: a if c else b),
    "gt": _real(lambda x, y: x > y),
    "lt": _real(lambda x, y: x < y),
    "ge": _real(lambda x, y: x >= y),
    "le": _real(lambda x, y: x <= y),
    "eq": _real(lambda x, y: x == y),
    "ne": _real(lambda x, y: x != y),
    "logical_and": _real(lambda x, y: bool(x) and bool(y)),
    "zeros_like": _real(lambda x: mpmath.mpf(0)),
    "dtype_of": lambda x, y: x,
    "move": lambda x, *_: x,
    "detach": lambda x: x,
    "sum": _row(sum),
    "mean": _row(lambda row: sum(row) / len(row)),
    "amax": _row(max),
    "amin": _row(min),
    "var": _row(lambda row: sum((v - sum(row) / len(row)) ** 2 for v in row) / len(row)),
    "std": _row(lambda row: mpmath.sqrt(sum((v - sum(row) / len(row)) ** 2 for v in row) / len(row))),
    "norm": _row(lambda row: mpmath.sqrt(sum(v * v for v in row))),
    "logsumexp": _row(lambda row: _LOG(sum(mpmath.exp(v) for v in row))),
    "softmax": _softmax,
    "log_softmax": lambda row: np.array([_LOG(v) for v in _softmax(row)], dtype=object),
    "cumsum": lambda row: np.cumsum(row),
    "logcumsumexp": lambda row: np.array([_LOG(v) for v in np.cumsum([mpmath.exp(v) for v in row])], dtype=object),
    "gather": lambda row, index: row[np.array([int(i) % len(row) for i in index])],
}
_LIMITS = {"finfo_eps": "eps", "finfo_tiny": "tiny", "finfo_max": "max"}


def exactly(t: Term, leaves: Mapping[str, Any], fmt: Format) -> Any:
    """The term's real value, as an object array of mpf; NaN where it has none."""
    if t.op == "leaf":
        return np.array([mpmath.mpf(v) if not isinstance(v, mpmath.mpf) else v for v in leaves[name_of(t)]], dtype=object)
    if t.op == "number":
        return np.array([mpmath.mpf(value_of(t))], dtype=object)
    if t.op.startswith("finfo_"):
        return np.array([mpmath.mpf(_limit(t, fmt))], dtype=object)
    args = [exactly(a, leaves, fmt) for a in t.args]
    if any(isinstance(v, mpmath.mpf) and mpmath.isnan(v) for a in args for v in a):
        return np.array([NAN], dtype=object)
    return EXACT[t.op](*args)


def _limit(t: Term, fmt: Format) -> float:
    return -fmt.max if t.op == "finfo_min" else float(getattr(fmt, _LIMITS[t.op]))


def in_floats(t: Term, leaves: Mapping[str, Any], fmt: Format) -> Any:
    """The term's value computed in the format, each operation by its record."""
    if t.op == "leaf":
        return np.asarray(leaves[name_of(t)], np.float64).astype(fmt.numpy)
    if t.op == "number":
        return np.array([value_of(t)]).astype(fmt.numpy)
    if t.op.startswith("finfo_"):
        return np.array([_limit(t, fmt)]).astype(fmt.numpy)
    args = [in_floats(a, leaves, fmt) for a in t.args]
    if t.op in EXPANSIONS:
        held = tuple(leaf(f"{i}") for i in range(len(args)))
        return in_floats(EXPANSIONS[t.op](Term(t.op, held, t.attrs)), {f"{i}": a for i, a in enumerate(args)}, fmt)
    with np.errstate(all="ignore"):
        return _known(t, args, fmt)


def _known(t: Term, args: list[Any], fmt: Format) -> Any:
    if t.op in ("dtype_of", "move", "cast", "det", "detach"):
        return args[0]
    if t.op in ("logdet", "slogdet_log"):
        return np.log(np.abs(args[0]) if t.op == "slogdet_log" else args[0])
    if t.op == "gather":
        return args[0][np.asarray(args[1]).astype(int) % len(args[0])]
    if t.op == "binary_cross_entropy":
        p, target = args
        return -(target * np.maximum(np.log(p), -100) + (1 - target) * np.maximum(np.log1p(-p), -100))
    assert t.op in OPS, t.op
    single = t.op in ("cumsum", "logcumsumexp", "softmax", "log_softmax") or "axis" in dict(t.attrs)
    shapes = tuple(a.shape for a in args)
    out = np.broadcast_shapes(*shapes) if not single else shapes[0]
    formats = tuple(BOOL if a.dtype == np.bool_ else fmt for a in args)
    return run(Call(t.op, _attrs(t), shapes, formats, out, BOOL if t.op in _BOOLEANS else fmt), args)
