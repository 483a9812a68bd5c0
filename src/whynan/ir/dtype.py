"""Number formats: their limits, their spacing, and rounding to them.

Bounds are held in float64 arrays whatever the format of the value they bound; the functions here move such an array to
values that the format can represent.
"""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import ml_dtypes
import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Float64 = npt.NDArray[np.float64]


@dataclass(frozen=True, slots=True)
class Format:
    """One element type: a float format, a signed or unsigned integer, or bool.

    `max` is the largest finite value, `tiny` the smallest positive normal one, `smallest` the smallest positive one and
    `eps` the distance from 1 to the next value. `flush` says that subnormal results become zero (GPUs, XLA on the CPU).
    """

    name: str
    kind: str  # "float", "int", "bool"
    numpy: np.dtype[Any]
    max: float
    tiny: float = 1.0
    smallest: float = 1.0
    eps: float = 1.0
    flush: bool = False

    @property
    def is_float(self) -> bool:
        """True for the floating formats."""
        return self.kind == "float"

    def __str__(self) -> str:
        return self.name


def _float(name: str, dtype: Any) -> Format:
    info = ml_dtypes.finfo(dtype)
    return Format(
        name,
        "float",
        np.dtype(dtype),
        float(info.max),
        float(info.smallest_normal),
        float(info.smallest_subnormal),
        float(info.eps),
    )


def _int(name: str) -> Format:
    return Format(name, "int", np.dtype(name), float(np.iinfo(name).max))


FLOAT64 = _float("float64", np.float64)
FLOAT32 = _float("float32", np.float32)
FLOAT16 = _float("float16", np.float16)
BFLOAT16 = _float("bfloat16", ml_dtypes.bfloat16)
INT64 = _int("int64")
INT32 = _int("int32")
INT16 = _int("int16")
INT8 = _int("int8")
UINT8 = _int("uint8")
BOOL = Format("bool", "bool", np.dtype(np.bool_), 1.0)

FORMATS = {f.name: f for f in (FLOAT64, FLOAT32, FLOAT16, BFLOAT16, INT64, INT32, INT16, INT8, UINT8, BOOL)}
FLOATS = (FLOAT64, FLOAT32, FLOAT16, BFLOAT16)


_FLUSHED = {f.name: replace(f, flush=True) for f in (FLOAT64, FLOAT32, BFLOAT16)}


def flushed(fmt: Format) -> Format:
    """The format on hardware that takes subnormals for zero, as operands and as results: TensorFlow's and XLA's CPU programs.

    float16 stays as it is: it is computed in float32, where its subnormals are ordinary numbers.
    """
    return _FLUSHED.get(fmt.name, fmt)


def format_of(name: str) -> Format:
    """The format of that name; KeyError if whynan has none (complex, float8, strings)."""
    return FORMATS[name]


def nearest(fmt: Format, x: npt.ArrayLike) -> Float64:
    """Round to the nearest value of the format, ties to even, overflow to infinity; integers and bools pass unchanged."""
    values = np.asarray(x, np.float64)
    if not fmt.is_float or fmt is FLOAT64 or fmt.name == "float64":
        return values
    with np.errstate(over="ignore", invalid="ignore"):
        return values.astype(fmt.numpy).astype(np.float64)


def next_down(fmt: Format, x: npt.ArrayLike, steps: int = 1) -> Float64:
    """The value of the format that lies `steps` representable values below x (x must be representable)."""
    return _step(fmt, x, steps, -np.inf)


def next_up(fmt: Format, x: npt.ArrayLike, steps: int = 1) -> Float64:
    """The value of the format that lies `steps` representable values above x (x must be representable)."""
    return _step(fmt, x, steps, np.inf)


def _step(fmt: Format, x: npt.ArrayLike, steps: int, towards: float) -> Float64:
    if not fmt.is_float:
        return np.asarray(x, np.float64)
    with np.errstate(all="ignore"):
        values = np.asarray(x, np.float64).astype(fmt.numpy)
        goal = np.asarray(towards).astype(fmt.numpy)
        step: Callable[..., Any] = np.nextafter
        for _ in range(steps):
            values = step(values, goal)
        return np.asarray(values, np.float64)


def spacing(fmt: Format, x: float) -> float:
    """The distance from |x| to the next larger value of the format (its ulp)."""
    magnitude = abs(float(nearest(fmt, x)))
    if not np.isfinite(magnitude) or magnitude >= fmt.max:
        return fmt.max * fmt.eps / 2
    return float(next_up(fmt, magnitude)) - magnitude


def ordinal(fmt: Format, x: npt.ArrayLike) -> npt.NDArray[np.int64]:
    """The position of each value among the format's values: consecutive floats have consecutive ordinals, 0 is 0."""
    values = np.asarray(x, np.float64)
    if not fmt.is_float:
        return values.astype(np.int64)
    size = fmt.numpy.itemsize
    with np.errstate(over="ignore"):
        bits = values.astype(fmt.numpy).view(f"i{size}").astype(np.int64)
    magnitude = bits & ((1 << (8 * size - 1)) - 1)
    return np.asarray(np.where(bits < 0, -magnitude, magnitude))


def from_ordinal(fmt: Format, n: npt.NDArray[np.int64]) -> Float64:
    """The inverse of `ordinal`."""
    n = np.asarray(n, np.int64)
    if not fmt.is_float:
        return n.astype(np.float64)
    size = fmt.numpy.itemsize
    with np.errstate(invalid="ignore"):  # beyond the last number stand NaNs
        magnitude = np.abs(n).astype(f"i{size}").view(fmt.numpy).astype(np.float64)
    return np.asarray(np.where(n < 0, -magnitude, magnitude))
