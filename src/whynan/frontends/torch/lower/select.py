"""Comparisons, logic and selection."""

from typing import Any

import numpy as np

from whynan.frontends.kit import Value, apply, promoted, where
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.ir.dtype import BOOL, FLOAT64

_COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge")


def _comparison(op: str) -> None:
    @kernel(f"{op}.Tensor", f"{op}.Scalar")
    def compare(k: Kernel) -> Value:
        a, b = k["self"], k["other"]
        fmt = promoted(a, b)
        # the kernel rounds a Python number to the tensor's format before it compares
        return apply(op, a.cast(fmt), b.cast(fmt) if isinstance(b, Value) else k.const(b, fmt))


def _logical(op: str) -> None:
    @kernel(op)
    def logic(k: Kernel) -> Value:
        return apply(op, k.tensor("self").cast(BOOL), k["other"].cast(BOOL))


def _predicate(op: str) -> None:
    @kernel(op)
    def predicate(k: Kernel) -> Value:
        return apply(op, k.tensor("self"))


def _bitwise(op: str, logical: str) -> None:
    @kernel(f"bitwise_{op}.Tensor", f"bitwise_{op}.Scalar", f"__{op}__.Tensor", f"__{op}__.Scalar")
    def bitwise(k: Kernel) -> Value:
        a, b = k.tensor("self").cast(k.format), k["other"]
        b = b.cast(k.format) if isinstance(b, Value) else k.const(b)
        return apply(logical if k.format is BOOL else f"bitwise_{op}", a, b)


for _op in _COMPARISONS:
    _comparison(_op)
for _op in ("logical_and", "logical_or", "logical_xor"):
    _logical(_op)
for _op in ("isnan", "isinf", "isfinite", "signbit"):
    _predicate(_op)
for _op in ("and", "or", "xor"):
    _bitwise(_op, f"logical_{_op}")


@kernel("logical_not")
def _logical_not(k: Kernel) -> Value:
    return ~k.tensor("self").cast(BOOL)


@kernel("bitwise_not")
def _bitwise_not(k: Kernel) -> Value:
    x = k.tensor("self")
    return ~x if x.format is BOOL else apply("bitwise_not", x)


@kernel("isposinf")
def _isposinf(k: Kernel) -> Value:
    return apply("eq", k.tensor("self"), np.inf)


@kernel("isneginf")
def _isneginf(k: Kernel) -> Value:
    return apply("eq", k.tensor("self"), -np.inf)


@kernel("where.self", "where.ScalarSelf", "where.ScalarOther", "where.Scalar")
def _where(k: Kernel) -> Value:
    a, b = (v.cast(k.format) if isinstance(v, Value) else k.const(v) for v in (k["self"], k["other"]))
    return where(k.tensor("condition"), a, b)


@kernel("masked_fill.Scalar", "masked_fill.Tensor")
def _masked_fill(k: Kernel) -> Value:
    x, value = k.tensor("self"), k["value"]
    return where(k.tensor("mask"), value.cast(x.format) if isinstance(value, Value) else k.const(value), x)


@kernel("nan_to_num")
def _nan_to_num(k: Kernel) -> Value:
    x = k.tensor("self")
    if not x.format.is_float:
        return x
    largest = x.format.max
    given: dict[str, Any] = {"nan": (k["nan"], 0.0), "posinf": (k["posinf"], largest), "neginf": (k["neginf"], -largest)}
    attrs = {name: default if number is None else _rounded(k, number) for name, (number, default) in given.items()}
    return apply("nan_to_num", x, **attrs)


def _rounded(k: Kernel, number: float) -> float:
    with np.errstate(over="ignore"):
        return float(np.asarray(number).astype(k.format.numpy))


@kernel("heaviside")
def _heaviside(k: Kernel) -> Value:
    x = k.tensor("self")
    return where(apply("eq", x, 0), k["values"], (x > 0).cast(x.format))


@kernel("copysign.Tensor", "copysign.Scalar")
def _copysign(k: Kernel) -> Value:
    other = k["other"]
    return apply("copysign", k.tensor("self").cast(k.format), other.cast(k.format) if isinstance(other, Value) else other)


@kernel("isclose")
def _isclose(k: Kernel) -> Value:
    a, b = k.tensor("self").cast(FLOAT64), k.tensor("other").cast(FLOAT64)
    near = apply("abs", a - b) <= apply("abs", b * k["rtol"]) + k["atol"]
    same: Value = apply("eq", a, b) | (near & apply("isfinite", b))
    return same | (apply("isnan", a) & apply("isnan", b)) if k["equal_nan"] else same
