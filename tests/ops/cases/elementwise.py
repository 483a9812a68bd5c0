"""Cases of the elementwise families: formats and attributes vary, shapes are fixed and small."""

from typing import Any

import numpy as np
from tests.ops.cases import any_float

from whynan.ir.dtype import BOOL, FLOAT32, FLOATS, INT8, INT32, INT64, UINT8, Format, flushed
from whynan.ir.graph import Call

SHAPE = (4, 6)
INTEGERS = (INT8, INT32, INT64, UINT8)


def _call(op: str, formats: tuple[Format, ...], fmt: Format, **attrs: Any) -> Call:
    return Call(op, attrs, (SHAPE,) * len(formats), formats, SHAPE, fmt)


def _floats(op: str, arity: int) -> Any:
    def case(rng: np.random.Generator) -> Call:
        fmt = any_float(rng)
        return _call(op, (fmt,) * arity, fmt)

    return case


def _some(rng: np.random.Generator, *others: Format) -> Format:
    """A float format, or now and then one of the others."""
    return any_float(rng) if rng.random() < 0.7 else others[int(rng.integers(len(others)))]


def _numbers(op: str, arity: int, *others: Format) -> Any:
    def case(rng: np.random.Generator) -> Call:
        fmt = _some(rng, *(others or INTEGERS))
        return _call(op, (fmt,) * arity, fmt)

    return case


def _truths(op: str, arity: int) -> Any:
    def case(rng: np.random.Generator) -> Call:
        fmt = _some(rng, INT32, BOOL)
        return _call(op, (fmt,) * arity, BOOL)

    return case


def _bits(op: str, arity: int) -> Any:
    def case(rng: np.random.Generator) -> Call:
        fmt = (*INTEGERS, BOOL)[int(rng.integers(5))]
        return _call(op, (fmt,) * arity, fmt)

    return case


def _limit(rng: np.random.Generator, fmt: Format) -> Any:
    if rng.random() < 0.2:
        return None
    if not fmt.is_float:
        return int(rng.integers(0, 9))
    return float(np.asarray(rng.choice([0.0, -0.0, -1.5, 2.0, fmt.smallest, fmt.max, 1e-7, 0.9999]), fmt.numpy))


def _clamp(rng: np.random.Generator) -> Call:
    fmt = _some(rng, INT32)
    return _call("clamp", (fmt,), fmt, low=_limit(rng, fmt), high=_limit(rng, fmt))


def _nan_to_num(rng: np.random.Generator) -> Call:
    fmt = any_float(rng)
    return _call("nan_to_num", (fmt,), fmt, nan=_limit(rng, fmt), posinf=_limit(rng, fmt), neginf=_limit(rng, fmt))


def _softplus(rng: np.random.Generator) -> Call:
    fmt = any_float(rng)
    return _call("softplus", (fmt,), fmt, beta=float(rng.choice([1.0, 0.5, 3.0, -1.0])), threshold=float(rng.choice([20.0, 1.0, 5.0])))


def _elu(rng: np.random.Generator) -> Call:
    fmt = any_float(rng)
    alpha, scale, inner = rng.choice([1.0, 1.6732632, 0.5, -2.0]), rng.choice([1.0, 1.0507009, 3e4, 0.0]), rng.choice([1.0, 0.7])
    return _call("elu", (fmt,), fmt, alpha=float(alpha), scale=float(scale), input_scale=float(inner))


def _gelu(rng: np.random.Generator) -> Call:
    fmt = any_float(rng)
    return _call("gelu", (fmt,), fmt, approximate=str(rng.choice(["none", "tanh"])))


def _where(rng: np.random.Generator) -> Call:
    fmt = _some(rng, *INTEGERS)
    return _call("where", (BOOL, fmt, fmt), fmt)


def _cast(rng: np.random.Generator) -> Call:
    every = (*FLOATS, *FLOATS, *INTEGERS, BOOL)
    source, target = (every[int(rng.integers(len(every)))] for _ in range(2))
    return _call("cast", (source,), target)


def _const(rng: np.random.Generator) -> Call:
    fmt = any_float(rng)
    value = rng.choice([0.0, -0.0, 1.5, np.inf, np.nan, fmt.smallest], size=(1, 6)).astype(fmt.numpy)
    return Call("const", {"value": value}, (), (), SHAPE, fmt)


def _random(rng: np.random.Generator) -> Call:
    fmt = _some(rng, INT32)
    low, high = [(0.0, 1.0), (-np.inf, np.inf), (0.0, np.inf)][int(rng.integers(3))] if fmt.is_float else (0, 9)
    return Call("random", {"low": low, "high": high}, (), (), SHAPE, fmt)


def _input(rng: np.random.Generator) -> Call:
    return Call("input", {}, (), (), SHAPE, any_float(rng))


_UNARY = """sqrt rsqrt cbrt reciprocal frac exp exp2 expm1 log log2 log10 log1p sigmoid tanh logsigmoid entr sin cos tan sinh cosh asin
acos atan asinh acosh atanh erf erfc erfinv lgamma digamma trigamma sinc i0 i0e i1 i1e silu mish"""
_BINARY = "div hypot logaddexp logaddexp2 xlogy xlog1py atan2 heaviside copysign"

CASES = {
    **{op: _floats(op, 1) for op in _UNARY.split()},
    **{op: _floats(op, 2) for op in _BINARY.split()},
    **{op: _numbers(op, 1) for op in "square abs sign floor ceil round trunc relu".split()},
    "neg": _numbers("neg", 1, INT8, INT32, INT64, UINT8),
    **{op: _numbers(op, 2, *INTEGERS, BOOL) for op in "add mul maximum minimum".split()},
    **{op: _numbers(op, 2) for op in "sub pow fmod remainder floor_divide".split()},
    **{op: _truths(op, 2) for op in "eq ne lt le gt ge logical_and logical_or logical_xor".split()},
    **{op: _truths(op, 1) for op in "logical_not signbit isnan isinf isfinite".split()},
    **{op: _bits(op, 2) for op in "bitwise_and bitwise_or bitwise_xor".split()},
    "bitwise_not": _bits("bitwise_not", 1),
    "either": _numbers("either", 2),
    "fma": _floats("fma", 3),
    "clamp": _clamp,
    "nan_to_num": _nan_to_num,
    "softplus": _softplus,
    "elu": _elu,
    "gelu": _gelu,
    "where": _where,
    "cast": _cast,
    "const": _const,
    "random": _random,
    "input": _input,
}

EDGES: dict[str, list[tuple[float, ...]]] = {
    "elu": [(3e38,)],
    "lgamma": [(3e38,)],
    "hypot": [(3e38, 3e38)],
}


def _subnormal_point(rng: np.random.Generator) -> tuple[Call, list[np.ndarray]]:
    """Two subnormal numbers in a format that flushes them."""
    fmt = flushed(FLOAT32)
    return Call("atan2", {}, ((2,),) * 2, (fmt, fmt), (2,), fmt), [np.full(2, 1e-40, np.float32), np.array([1e-40, -1e-40], np.float32)]


HARD = {"atan2": [_subnormal_point]}
