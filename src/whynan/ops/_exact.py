"""What the operations mean in real arithmetic: their values to as many digits as asked for, by mpmath.

A value is an array of Python objects, numbers of an mpmath context; integers and booleans stay NumPy arrays. Formats play no part: nothing
overflows, nothing is rounded but to the context's precision. What has no real value (1 / 0, the logarithm of a negative number) is NaN; an
operation that is not known here has no value at all.
"""

from collections.abc import Callable, Sequence
from operator import attrgetter
from typing import Any

import numpy as np

from whynan.ir.dtype import Array
from whynan.ir.graph import Call
from whynan.ops._groups import span
from whynan.ops._opdef import OPS
from whynan.ops.reduction import dims

Context = Any  # an mpmath context; mpmath has no types
Scalar = Callable[..., Any]

LARGEST_EXPONENT = 1e320  # an exponential of more than this would fill the memory with its digits

# functions that mpmath has under the same or another name
_SAME = {
    **{name: name for name in "exp expm1 log1p sqrt cbrt hypot sin cos tan asin acos atan sinh cosh tanh asinh acosh atanh".split()},
    **{name: name for name in "erf erfc erfinv digamma".split()},
    "log": "ln",
    "log10": "log10",
    "atan2": "atan2",
    "floor": "floor",
    "ceil": "ceil",
}
# operations that only move elements about, or add and compare them: their own code runs on objects too
_GENERIC = frozenset(
    "concat pad one_hot slice_scatter diagonal_scatter as_strided_scatter index_put scatter scatter_add masked_indices "
    "masked_scatter matmul cumsum cumprod amax amin argmax argmin cummax cummin sort_indices topk_indices conv conv_input_grad "
    "conv_weight_grad".split()
)


def lifted(mp: Context, array: Array) -> Array:
    """A NumPy array (of any float, integer or boolean dtype) or an array of objects as numbers of the context."""
    a = np.asarray(array)
    if a.dtype != object:
        a = a.astype(np.float64 if a.dtype.kind not in "iub" else np.int64 if a.dtype.kind == "b" else a.dtype).astype(object)
    return _each(lambda x: x if isinstance(x, mp.mpf) else mp.mpf(x), a)


def exactly(mp: Context, call: Call, arrays: Sequence[Array]) -> Array | None:
    """The value of an operation on values of the context; None if its real value cannot be computed here."""
    real = call.format.is_float or any(f.is_float for f in call.formats)
    if not real:
        return None  # whole numbers: the caller runs the operation itself
    function = _FUNCTIONS.get(call.op)
    op = OPS.get(call.op)
    if function is not None:
        return _result(call, function(mp, call, *arrays))
    if op is None or not (op.moves or call.op in _GENERIC):
        return None
    numbers = [lifted(mp, a) if f.is_float else a for a, f in zip(arrays, call.formats, strict=True)]
    return _result(call, lifted(mp, op.evaluate(call, *numbers)) if call.format.is_float else op.evaluate(call, *numbers))


def _result(call: Call, value: Any) -> Array:
    return np.asarray(value, object) if call.format.is_float else np.asarray(value).astype(call.format.numpy)


def _each(f: Scalar, *arrays: Array) -> Array:
    """f of each element, of arrays that broadcast."""
    with np.errstate(invalid="ignore"):  # NumPy warns of a NaN that a Python function returns
        return np.asarray(np.frompyfunc(f, len(arrays), 1)(*arrays), dtype=object)


def _elementwise(f: Callable[[Context, Call], Scalar]) -> Callable[..., Array]:
    """An elementwise operation from a function of numbers: what is complex or raises is NaN."""

    def value(mp: Context, call: Call, *arrays: Array) -> Array:
        scalar = f(mp, call)

        def number(*xs: Any) -> Any:
            try:
                y = scalar(*xs)
            except (ArithmeticError, ValueError):
                return mp.nan
            return mp.nan if isinstance(y, mp.mpc) else mp.mpf(y)

        return _each(number, *(lifted(mp, a) for a in arrays))

    return value


def _test(f: Callable[[Context], Scalar]) -> Callable[..., Array]:
    """A comparison: a truth value for each element."""

    def value(mp: Context, call: Call, *arrays: Array) -> Array:
        scalar = f(mp)
        return _each(lambda *xs: bool(scalar(*xs)), *(lifted(mp, a) for a in arrays)).astype(bool)

    return value


# ---------------------------------------------------------------- elementwise


def _exponential(mp: Context, f: Scalar) -> Scalar:
    return lambda x: f(x) if mp.isinf(x) or abs(x) < LARGEST_EXPONENT else mp.nan


def _sigmoid(mp: Context, x: Any) -> Any:
    return 1 / (1 + mp.exp(-x)) if x >= 0 else mp.exp(x) / (1 + mp.exp(x))


def _softplus(mp: Context, x: Any) -> Any:
    """log(1 + exp(x)), without its cancellation."""
    return max(x, mp.zero) + mp.log1p(mp.exp(-abs(x)))


def _logaddexp(mp: Context, a: Any, b: Any) -> Any:
    if mp.isinf(a) or mp.isinf(b):
        return max(a, b) if not (mp.isnan(a) or mp.isnan(b)) else mp.nan
    return max(a, b) + mp.log1p(mp.exp(-abs(a - b)))


def _power(mp: Context, x: Any, y: Any) -> Any:
    if mp.isint(y) and abs(y) < 2**31:
        return x ** int(y)
    return mp.power(x, y)


def _gelu(mp: Context, call: Call) -> Scalar:
    if call.attrs.get("approximate", "none") == "tanh":
        return lambda x: x * _sigmoid(mp, 2 * mp.sqrt(2 / mp.pi) * (x + mp.mpf("0.044715") * x**3))
    return lambda x: x * mp.erfc(-x / mp.sqrt(2)) / 2


def _elu(mp: Context, call: Call) -> Scalar:
    alpha, scale, inner = (mp.mpf(float(call.attrs.get(name, 1.0))) for name in ("alpha", "scale", "input_scale"))
    return lambda x: scale * x if x > 0 else scale * alpha * mp.expm1(inner * x)


def _softplus_of(mp: Context, call: Call) -> Scalar:
    beta, threshold = (mp.mpf(float(call.attrs.get(name, usual))) for name, usual in (("beta", 1.0), ("threshold", 20.0)))
    return lambda x: x if x * beta > threshold else _softplus(mp, x * beta) / beta


def _clamp(mp: Context, call: Call) -> Scalar:
    low, high = call.attrs.get("low"), call.attrs.get("high")

    def clamped(x: Any) -> Any:
        x = x if low is None or mp.isnan(x) else max(x, mp.mpf(float(low)))
        return x if high is None or mp.isnan(x) else min(x, mp.mpf(float(high)))

    return clamped


def _cast(mp: Context, call: Call, array: Array) -> Array:
    if call.format.is_float:
        return lifted(mp, array)
    test = (lambda x: x != 0) if call.format.kind == "bool" else int
    return _each(test, array)


def _where(mp: Context, call: Call, condition: Array, a: Array, b: Array) -> Array:
    return np.where(np.asarray(condition).astype(bool), lifted(mp, a), lifted(mp, b))


def _numbered(f: Callable[[Context], Scalar]) -> Callable[..., Array]:
    return _elementwise(lambda mp, call: f(mp))


def _sign(mp: Context) -> Scalar:
    return lambda x: x if mp.isnan(x) else mp.sign(x)


def _larger(mp: Context, pick: Scalar) -> Scalar:
    return lambda a, b: mp.nan if mp.isnan(a) or mp.isnan(b) else pick(a, b)


# ---------------------------------------------------------------- reductions


def _sum(mp: Context, call: Call, x: Array, axes: Sequence[int] | None = None) -> Array:
    return lifted(mp, np.sum(lifted(mp, x), axis=tuple(dims(call) if axes is None else axes), keepdims=True))


def _mean(mp: Context, call: Call, x: Array) -> Array:
    n = span(call.shapes[0], dims(call))
    return _sum(mp, call, x) / mp.mpf(n) if n else np.full(call.shape, mp.nan, object)


def _var(mp: Context, call: Call, x: Array) -> Array:
    n, x = span(call.shapes[0], dims(call)), lifted(mp, x)
    freedom = n - call.attrs.get("correction", 1)
    if n == 0 or freedom <= 0:
        return np.full(call.shape, mp.nan, object)
    deviation = x - _mean(mp, call, x)
    return np.asarray(_sum(mp, call, deviation * deviation) / mp.mpf(freedom), object)


def _prod(mp: Context, call: Call, x: Array) -> Array:
    return lifted(mp, np.multiply.reduce(lifted(mp, x), axis=tuple(dims(call)), keepdims=True))


def _exp(mp: Context, x: Array) -> Array:
    return _each(_exponential(mp, mp.exp), x)


def _largest(mp: Context, x: Array, axes: Sequence[int]) -> Array:
    return np.asarray(np.maximum.reduce(x, axis=tuple(axes), keepdims=True), object)


def _softmax(mp: Context, call: Call, x: Array) -> Array:
    x, axes = lifted(mp, x), (int(call.attrs["dim"]),)
    e = _exp(mp, x - _largest(mp, x, axes))
    return np.asarray(e / _sum(mp, call, e, axes), object)


def _logsumexp(mp: Context, call: Call, x: Array, axes: Sequence[int] | None = None) -> Array:
    """log(sum(exp(x))), of -inf alone -inf."""
    x, axes = lifted(mp, x), dims(call) if axes is None else axes
    top = _largest(mp, x, axes)
    shift = _each(lambda t: t if mp.isfinite(t) else mp.zero, top)
    total = _sum(mp, call, _exp(mp, x - shift), axes)
    return _each(lambda t: mp.nan if mp.isnan(t) else mp.ln(t), total) + shift


def _log_softmax(mp: Context, call: Call, x: Array) -> Array:
    x = lifted(mp, x)
    return np.asarray(x - _logsumexp(mp, call, x, (int(call.attrs["dim"]),)), object)


def _norm_of(mp: Context, size: Array, p: float, axes: Sequence[int], keep: bool) -> Array:
    axis = tuple(axes)
    if np.isinf(p):
        return np.asarray((np.max if p > 0 else np.min)(size, axis=axis, keepdims=keep), object)
    if p == 0:
        return lifted(mp, np.sum(size != 0, axis=axis, keepdims=keep))
    total = lifted(mp, np.sum(_each(lambda s: _power(mp, s, mp.mpf(p)), size), axis=axis, keepdims=keep))
    return _each(lambda t: mp.sqrt(t) if p == 2 else mp.power(t, 1 / mp.mpf(p)), total)


def _norm(mp: Context, call: Call, x: Array) -> Array:
    return _norm_of(mp, np.abs(lifted(mp, x)), float(call.attrs.get("ord", 2)), dims(call), True)


def _cdist(mp: Context, call: Call, x: Array, y: Array) -> Array:
    a, b = lifted(mp, x)[..., :, None, :], lifted(mp, y)[..., None, :, :]
    return _norm_of(mp, np.abs(a - b), float(call.attrs["p"]), (-1,), False)


_FUNCTIONS: dict[str, Callable[..., Any]] = {
    **{op: _numbered(attrgetter(name)) for op, name in _SAME.items()},
    "add": _numbered(lambda mp: lambda a, b: a + b),
    "sub": _numbered(lambda mp: lambda a, b: a - b),
    "mul": _numbered(lambda mp: lambda a, b: a * b),
    "fma": _numbered(lambda mp: lambda a, b, c: a * b + c),
    "either": _numbered(lambda mp: lambda first, *others: first),
    "square": _numbered(lambda mp: lambda a: a * a),
    "div": _numbered(lambda mp: lambda a, b: a / b),
    "reciprocal": _numbered(lambda mp: lambda a: 1 / a),
    "neg": _numbered(lambda mp: lambda a: -a),
    "abs": _numbered(lambda mp: lambda a: abs(a)),
    "sign": _numbered(_sign),
    "exp": _numbered(lambda mp: _exponential(mp, mp.exp)),
    "expm1": _numbered(lambda mp: _exponential(mp, mp.expm1)),
    "exp2": _numbered(lambda mp: _exponential(mp, lambda x: mp.power(2, x))),
    "sinh": _numbered(lambda mp: _exponential(mp, mp.sinh)),
    "cosh": _numbered(lambda mp: _exponential(mp, mp.cosh)),
    "log2": _numbered(lambda mp: lambda x: mp.ln(x) / mp.ln(2)),
    "logaddexp": _numbered(lambda mp: lambda a, b: _logaddexp(mp, a, b)),
    "xlogy": _numbered(lambda mp: lambda x, y: mp.zero if x == 0 and not mp.isnan(y) else x * mp.ln(y)),
    "xlog1py": _numbered(lambda mp: lambda x, y: mp.zero if x == 0 and not mp.isnan(y) else x * mp.log1p(y)),
    "entr": _numbered(lambda mp: lambda x: -x * mp.ln(x) if x > 0 else mp.zero if x == 0 else mp.nan),
    "rsqrt": _numbered(lambda mp: lambda x: 1 / mp.sqrt(x)),
    "pow": _numbered(lambda mp: lambda x, y: _power(mp, x, y)),
    "sigmoid": _numbered(lambda mp: lambda x: _sigmoid(mp, x)),
    "logsigmoid": _numbered(lambda mp: lambda x: -_softplus(mp, -x)),
    "silu": _numbered(lambda mp: lambda x: x * _sigmoid(mp, x)),
    "mish": _numbered(lambda mp: lambda x: x * mp.tanh(_softplus(mp, x))),
    "relu": _numbered(lambda mp: lambda x: x if mp.isnan(x) else max(x, mp.zero)),
    "maximum": _numbered(lambda mp: _larger(mp, max)),
    "minimum": _numbered(lambda mp: _larger(mp, min)),
    "lgamma": _numbered(lambda mp: lambda x: mp.re(mp.loggamma(x))),
    "trigamma": _numbered(lambda mp: lambda x: mp.psi(1, x)),
    "sinc": _numbered(lambda mp: mp.sincpi),
    "i0": _numbered(lambda mp: lambda x: mp.besseli(0, x)),
    "i1": _numbered(lambda mp: lambda x: mp.besseli(1, x)),
    "i0e": _numbered(lambda mp: lambda x: mp.besseli(0, x) * mp.exp(-abs(x))),
    "i1e": _numbered(lambda mp: lambda x: mp.besseli(1, x) * mp.exp(-abs(x))),
    "nan_to_num": _numbered(lambda mp: lambda x: x if mp.isfinite(x) else mp.nan),
    "round": _numbered(lambda mp: mp.nint),
    "trunc": _numbered(lambda mp: lambda x: mp.floor(x) if x >= 0 else mp.ceil(x)),
    "softplus": _elementwise(_softplus_of),
    "clamp": _elementwise(_clamp),
    "gelu": _elementwise(_gelu),
    "elu": _elementwise(_elu),
    "cast": _cast,
    "where": _where,
    "eq": _test(lambda mp: lambda a, b: a == b),
    "ne": _test(lambda mp: lambda a, b: a != b),
    "lt": _test(lambda mp: lambda a, b: a < b),
    "le": _test(lambda mp: lambda a, b: a <= b),
    "gt": _test(lambda mp: lambda a, b: a > b),
    "ge": _test(lambda mp: lambda a, b: a >= b),
    "isnan": _test(lambda mp: mp.isnan),
    "isinf": _test(lambda mp: mp.isinf),
    "isfinite": _test(lambda mp: mp.isfinite),
    "logical_not": _test(lambda mp: lambda a: a == 0),
    "logical_and": _test(lambda mp: lambda a, b: a != 0 and b != 0),
    "logical_or": _test(lambda mp: lambda a, b: a != 0 or b != 0),
    "sum": _sum,
    "mean": _mean,
    "var": _var,
    "prod": _prod,
    "softmax": _softmax,
    "log_softmax": _log_softmax,
    "logsumexp": _logsumexp,
    "norm": _norm,
    "cdist": _cdist,
}
