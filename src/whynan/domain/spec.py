"""Domains: what the inputs of a loss may be. The constructors here are the user's notation (contract, section 2).

A concrete witness must lie inside its domain, and a proof holds for all of it.
"""

import math
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from whynan.errors import DomainError
from whynan.ir.dtype import FORMATS, Array, Format, nearest, next_down, next_up

#: The largest |x| of a `real` without bounds, and the largest value of a `positive` or `nonnegative` without `high`.
WIDE = 1e4
#: The largest |x| of a `logit` without bounds.
LOGIT = 100.0

#: Kinds whose dtype is a float and which are differentiated by unless something says otherwise.
CONTINUOUS = ("real", "prob", "logit", "positive", "nonnegative", "simplex", "unit")
#: Kinds that constrain whole rows along the last axis.
ROWS = ("onehot", "simplex", "unit")


@dataclass(frozen=True, slots=True, eq=False)
class Domain:
    """The set of arrays that one input may be.

    `kind` is the constructor's name. `low` and `high` are the closed bounds, already representable in the dtype; `grad` says whether
    the loss is differentiated by this input; `assumed` that whynan inferred it; `value` is the array of a `const`.
    `grad_given` says that the user chose `grad`; otherwise an input that is named like a target is not differentiated by.
    """

    kind: str
    shape: tuple[int, ...]
    dtype: str
    low: float
    high: float
    grad: bool
    assumed: bool = False
    value: Array | None = None
    grad_given: bool = False

    def but(self, **changes: Any) -> "Domain":
        """The same domain with some fields changed."""
        return replace(self, **changes)

    @property
    def format(self) -> Format:
        """The number format of the elements."""
        return FORMATS[self.dtype]

    def __str__(self) -> str:
        return notation(self)


# ---------------------------------------------------------------- constructors


def real(*shape: int, low: float | None = None, high: float | None = None, dtype: Any = None, grad: bool | None = None) -> Domain:
    """Any finite value in [low, high]; without bounds |x| <= 1e4. `real(8, 3)` is an array of 8 x 3."""
    return _floats("real", shape, _either(low, -WIDE, high), _either(high, WIDE, low), dtype, grad)


def prob(*shape: int, low: float = 0.0, high: float = 1.0, dtype: Any = None, grad: bool | None = None) -> Domain:
    """Probabilities: [0, 1], both ends included."""
    return _floats("prob", shape, low, high, dtype, grad, within=(0.0, 1.0))


def logit(*shape: int, low: float | None = None, high: float | None = None, dtype: Any = None, grad: bool | None = None) -> Domain:
    """Scores before a sigmoid or softmax: |x| <= 100 unless low or high say otherwise."""
    return _floats("logit", shape, _either(low, -LOGIT, high), _either(high, LOGIT, low), dtype, grad)


def positive(*shape: int, low: float | None = None, high: float | None = None, dtype: Any = None, grad: bool | None = None) -> Domain:
    """(0, high], from the smallest subnormal up; without `high`, up to 1e4."""
    smallest = _float_format("positive", dtype).smallest
    domain = _floats("positive", shape, 0.0 if low is None else low, _either(high, WIDE, low), dtype, grad, within=(0.0, math.inf))
    if domain.high <= 0:
        raise DomainError(f"positive: no number above 0 lies below high={domain.high:g}.", "Give a larger high, or use nonnegative.")
    return domain.but(low=max(domain.low, smallest))


def nonnegative(*shape: int, low: float = 0.0, high: float | None = None, dtype: Any = None, grad: bool | None = None) -> Domain:
    """[0, high]; without `high`, up to 1e4."""
    return _floats("nonnegative", shape, low, _either(high, WIDE, low), dtype, grad, within=(0.0, math.inf))


def simplex(*shape: int, low: float = 0.0, high: float = 1.0, dtype: Any = None, grad: bool | None = None) -> Domain:
    """Rows along the last axis that are non-negative with sum 1, as a softmax gives them."""
    domain = _floats("simplex", _rows("simplex", shape), low, high, dtype, grad, within=(0.0, 1.0))
    if shape[-1] * domain.low > 1 or shape[-1] * domain.high < 1:
        raise DomainError(f"simplex(…, low={low:g}, high={high:g}) is empty: {shape[-1]} such numbers never sum to 1.", "Widen its bounds.")
    return domain


def unit(*shape: int, low: float = -1.0, high: float = 1.0, dtype: Any = None, grad: bool | None = None) -> Domain:
    """Rows along the last axis of (Euclidean) norm 1."""
    domain = _floats("unit", _rows("unit", shape), low, high, dtype, grad, within=(-1.0, 1.0))
    least = max(domain.low, -domain.high, 0.0)
    most = max(abs(domain.low), abs(domain.high))
    if shape[-1] * least**2 > 1 or shape[-1] * most**2 < 1:
        raise DomainError(f"unit(…, low={low:g}, high={high:g}) is empty: {shape[-1]} such numbers never have norm 1.", "Widen its bounds.")
    return domain


def onehot(*shape: int, low: float = 0.0, high: float = 1.0, dtype: Any = None, grad: bool | None = None) -> Domain:
    """Rows along the last axis with a single 1, all else 0; floats unless `dtype` names integers or bool."""
    domain = _discrete("onehot", _rows("onehot", shape), low, high, dtype or "float32", grad, within=(0.0, 1.0))
    if domain.high < 1 or (domain.low > 0 and shape[-1] > 1):
        raise DomainError(f"onehot(…, low={low:g}, high={high:g}) is empty: its rows need both 0 and 1.", "Leave out its bounds.")
    return domain


def binary(*shape: int, low: float = 0.0, high: float = 1.0, dtype: Any = None, grad: bool | None = None) -> Domain:
    """{0, 1} as floats (or as integers or booleans, if `dtype` says so)."""
    return _discrete("binary", shape, low, high, dtype or "float32", grad, within=(0.0, 1.0))


def mask(*shape: int, low: float = 0.0, high: float = 1.0, dtype: Any = None, grad: bool | None = None) -> Domain:
    """Booleans; all-false and all-true are included."""
    return _discrete("mask", shape, low, high, dtype or "bool", grad, within=(0.0, 1.0))


def classes(n: int, *shape: int, low: float = 0.0, high: float | None = None, dtype: Any = None, grad: bool | None = None) -> Domain:
    """Integer class numbers 0 ... n-1, int64 unless `dtype` says otherwise. The first argument is n, the shape follows."""
    if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 1:
        raise DomainError(f"classes({n!r}, …): the number of classes must be a whole number of at least 1.", _CLASSES)
    return _discrete("classes", shape, low, n - 1 if high is None else high, dtype or "int64", grad, within=(0.0, n - 1.0))


def integers(low: int, high: int, *shape: int, dtype: Any = None, grad: bool | None = None) -> Domain:
    """Integers low ... high, both ends included, int64 unless `dtype` says otherwise. The shape follows the bounds."""
    return _discrete("integers", shape, low, high, dtype or "int64", grad)


def const(value: Any, *, dtype: Any = None, grad: bool | None = None) -> Domain:
    """That one value: a number, a nested list, an array or a tensor. Not differentiated by unless `grad=True`."""
    array = as_array(value)
    if dtype is not None:
        array = _cast(array, dtype_name(dtype))
    elif array.dtype == np.float64 and not hasattr(value, "dtype"):
        array = _cast(array, "float32")  # Python floats have the default dtype of a float, like every other kind
    name = dtype_name(array.dtype)
    if FORMATS[name].kind != "float" and grad:
        raise DomainError(f"const of {name} cannot have grad=True: only floats have gradients.", "Leave grad out or give a float dtype.")
    wide = array.astype(np.float64)
    known = wide[~np.isnan(wide)]
    low, high = (float(known.min()), float(known.max())) if known.size else (0.0, 0.0)
    return Domain("const", array.shape, name, low, high, bool(grad), value=array, grad_given=grad is not None)


CONSTRUCTORS: dict[str, Callable[..., Domain]] = {
    f.__name__: f
    for f in (real, prob, logit, positive, nonnegative, binary, mask, classes, integers, onehot, simplex, unit, const)
}

_CLASSES = "Write classes(n, *shape), as in classes(10, 32)."
_EXAMPLES = {"classes": "classes(10, 32)", "integers": "integers(0, 9, 32)"}


# ---------------------------------------------------------------- arrays


def as_array(value: Any) -> Array:
    """A number, list, NumPy array or a framework's tensor as a NumPy array of a dtype that whynan knows. Raises DomainError."""
    for step in ("detach", "cpu"):
        if hasattr(value, step):
            value = getattr(value, step)()
    try:
        array = np.asarray(_unpacked(value))
        dtype_name(array.dtype)
    except (TypeError, ValueError, RuntimeError, DomainError):
        raise DomainError(
            f"a value of type {type(value).__name__} cannot be used as an array of numbers.", "Give a tensor, an array or a domain."
        ) from None
    return array


def _unpacked(value: Any) -> Any:
    """NumPy has no bfloat16, so a tensor of it goes by float32 (exactly) and back to ml_dtypes' type."""
    if str(getattr(value, "dtype", "")) == "torch.bfloat16":
        return np.asarray(value.float()).astype(FORMATS["bfloat16"].numpy)
    return value


def dtype_name(dtype: Any) -> str:
    """The name of a dtype given as a string or as NumPy's, PyTorch's, TensorFlow's or JAX's own object. Raises DomainError."""
    known = getattr(dtype, "name", None) or getattr(dtype, "__name__", None) or str(dtype)
    name = str(known).rpartition(".")[2]
    name = {"float": "float32", "half": "float16", "double": "float64", "int": "int64", "long": "int64", "bool_": "bool"}.get(name, name)
    if name not in FORMATS:
        raise DomainError(f"{name!r} is not a dtype that whynan knows.", f"Use one of {', '.join(FORMATS)}.")
    return name


# ---------------------------------------------------------------- text


def notation(domain: Domain) -> str:
    """The domain in the notation that `parse` reads, without what is default: "prob(8, 1)", "real(3, low=-1, high=1)"."""
    if domain.kind == "const":
        return _const_notation(domain)
    parts = [str(n) for n in domain.shape]
    if domain.kind == "classes":
        parts.insert(0, str(int(domain.high) + 1))
    elif domain.kind == "integers":
        parts[:0] = [str(int(domain.low)), str(int(domain.high))]
    plain = CONSTRUCTORS[domain.kind](*(_arguments(domain)), dtype=domain.dtype)
    if domain.kind != "integers":
        parts += [f"low={_number(domain.format, domain.low, 0)}"] if domain.low != plain.low else []
        parts += [f"high={_number(domain.format, domain.high, 1)}"] if domain.high != plain.high else []
    if domain.dtype != CONSTRUCTORS[domain.kind](*_arguments(domain)).dtype:
        parts.append(f"dtype={domain.dtype!r}")
    if domain.grad_given and domain.grad != plain.grad:
        parts.append(f"grad={domain.grad}")
    return f"{domain.kind}({', '.join(parts)})"


def _const_notation(domain: Domain) -> str:
    value = domain.value
    if value is None or value.size > 16:
        return f"const(<{'x'.join(map(str, domain.shape))} {domain.dtype}>)"
    default = const(value.tolist()).dtype
    return f"const({value.tolist()}" + (f", dtype={domain.dtype!r})" if domain.dtype != default else ")")


def _arguments(domain: Domain) -> tuple[int, ...]:
    if domain.kind == "classes":
        return (int(domain.high) + 1, *domain.shape)
    if domain.kind == "integers":
        return (int(domain.low), int(domain.high), *domain.shape)
    return domain.shape


def _number(fmt: Format, x: float, end: int) -> str:
    """The shortest text that `_inward` reads as that end: a float32 just below 0.3 is "0.3" as an upper bound."""
    if not fmt.is_float:
        return str(int(x))
    if abs(x) == fmt.max:
        return "inf" if x > 0 else "-inf"
    texts = (f"{x:.{digits}g}" for digits in range(1, 18))
    short = next((text for text in texts if _inward(fmt, float(text), float(text))[end] == x), repr(x))
    return str(int(x)) if x == int(x) and abs(x) < 1e6 else short


# ---------------------------------------------------------------- checks


def _either(given: float | None, default: float, other: float | None) -> float:
    """A bound that was not given is the default, or without limit if the other bound lies beyond the default: real(high=-1e5)."""
    if given is not None:
        return given
    beyond = isinstance(other, int | float | np.number) and abs(other) > abs(default)
    return math.copysign(math.inf, default) if beyond else default


def _floats(
    kind: str,
    shape: tuple[int, ...],
    low: float,
    high: float,
    dtype: Any,
    grad: bool | None,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Domain:
    """A domain of floats, its ends moved inward to values of the dtype."""
    fmt = _float_format(kind, dtype)
    shape = _shape(kind, shape)
    low, high = _ends(kind, low, high, within)
    ends = _inward(fmt, low, high)
    if ends[0] > ends[1]:
        raise DomainError(f"{kind}: no {fmt} lies between low={low:g} and high={high:g}.", "Widen the bounds or choose another dtype.")
    return Domain(kind, shape, fmt.name, ends[0], ends[1], True if grad is None else bool(grad), grad_given=grad is not None)


def _discrete(
    kind: str,
    shape: tuple[int, ...],
    low: float,
    high: float,
    dtype: Any,
    grad: bool | None,
    within: tuple[float, float] = (-math.inf, math.inf),
) -> Domain:
    """A domain of whole numbers in any dtype that holds them."""
    fmt = FORMATS[dtype_name(dtype)]
    shape = _shape(kind, shape)
    low, high = _ends(kind, low, high, within)
    if low in (-math.inf, math.inf) or high in (-math.inf, math.inf):
        raise DomainError(f"{kind}: low={low:g}, high={high:g} are not finite.", "Give whole numbers.")
    low, high = float(math.ceil(low)), float(math.floor(high))
    if low > high:
        raise DomainError(f"{kind}: no whole number lies between its bounds.", "Let low be at most high.")
    least = {"float": -fmt.max, "bool": 0.0}.get(fmt.kind, 0.0 if fmt.name.startswith("u") else -fmt.max - 1)
    if low < least or high > fmt.max or float(nearest(fmt, high)) != high or float(nearest(fmt, low)) != low:
        raise DomainError(f"{kind}: {fmt} does not hold the whole numbers from {low:g} to {high:g}.", "Choose a wider dtype.")
    if grad and not fmt.is_float:
        raise DomainError(f"{kind} of {fmt} cannot have grad=True: only floats have gradients.", "Leave grad out or give a float dtype.")
    return Domain(kind, shape, fmt.name, low, high, bool(grad), grad_given=grad is not None)


def _float_format(kind: str, dtype: Any) -> Format:
    fmt = FORMATS[dtype_name("float32" if dtype is None else dtype)]
    if not fmt.is_float:
        raise DomainError(f"{kind} needs a float dtype, not {fmt}.", "Use integers(low, high, *shape) or binary(*shape) for whole numbers.")
    return fmt


def _shape(kind: str, shape: tuple[Any, ...]) -> tuple[int, ...]:
    """The sizes as plain ints; one tuple or list instead of several numbers is accepted."""
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = tuple(shape[0])
    for n in shape:
        if isinstance(n, bool) or not isinstance(n, int | np.integer) or n < 0:
            raise DomainError(f"{kind}: {n!r} is not a size.", f"A shape is whole numbers, as in {_EXAMPLES.get(kind, kind + '(8, 3)')}.")
    return tuple(int(n) for n in shape)


def _rows(kind: str, shape: tuple[Any, ...]) -> tuple[Any, ...]:
    if len(shape) == 1 and isinstance(shape[0], tuple | list):
        shape = tuple(shape[0])
    if not shape or shape[-1] == 0:
        raise DomainError(f"{kind} needs a last axis of at least one element for its rows.", f"Write {kind}(8, 3), for instance.")
    return shape


def _ends(kind: str, low: Any, high: Any, within: tuple[float, float]) -> tuple[float, float]:
    for name, x in (("low", low), ("high", high)):
        if isinstance(x, str | bool) or not isinstance(x, int | float | np.integer | np.floating) or math.isnan(x):
            raise DomainError(f"{kind}: {name}={x!r} is not a number.", "Bounds are numbers, as in low=-1, high=1e4.")
    low, high = float(low), float(high)
    if low > high:
        raise DomainError(f"{kind}: low={low:g} is above high={high:g}, so the domain is empty.", "Let low be at most high.")
    if low < within[0] or high > within[1]:
        allowed = f"[{within[0]:g}, {within[1]:g}]" if within[1] < math.inf else f"above {within[0]:g}"
        raise DomainError(f"{kind}: low={low:g}, high={high:g} leave its range, {allowed}.", "Use real(…, low=, high=) for other ranges.")
    return low, high


def _inward(fmt: Format, low: float, high: float) -> tuple[float, float]:
    lo, hi = float(nearest(fmt, max(low, -fmt.max))), float(nearest(fmt, min(high, fmt.max)))
    if lo < low:
        lo = float(next_up(fmt, lo))
    if hi > high:
        hi = float(next_down(fmt, hi))
    return lo + 0.0, hi + 0.0


def retyped(domain: Domain, dtype: str) -> Domain:
    """A domain of floats in another float dtype, its ends moved inward again; any other domain as it is. Raises DomainError."""
    fmt = FORMATS[dtype_name(dtype)]
    if not domain.format.is_float or not fmt.is_float or fmt.name == domain.dtype:
        return domain
    if domain.value is not None:
        return const(_cast(domain.value, fmt.name)).but(grad=domain.grad, assumed=domain.assumed, grad_given=domain.grad_given)
    smallest = domain.kind == "positive" and domain.low == domain.format.smallest
    low, high = _inward(fmt, fmt.smallest if smallest else domain.low, domain.high)
    if low > high:
        raise DomainError(f"{domain} has no value in {fmt}.", "Give it wider bounds or another dtype.")
    return domain.but(dtype=fmt.name, low=max(low, fmt.smallest) if domain.kind == "positive" else low, high=high)


def _cast(array: Array, dtype: str) -> Array:
    with np.errstate(over="ignore"):
        return array.astype(FORMATS[dtype].numpy)
