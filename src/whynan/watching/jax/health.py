"""Is a step's result finite? On the CPU a look at the arrays where they lie, by a dot product, which also gives the norm."""

import math
from collections.abc import Iterable, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from whynan.ir.dtype import Array

_EXPONENTS = {"float16": 0x7C00, "bfloat16": 0x7F80}  # the bits that are all set in an infinity and in a NaN


def squares(leaves: Iterable[Any]) -> float:
    """The sum of the squares of all elements; not finite if one is not finite, or if a sum overflows.

    The arrays are read where they lie. Those of half precision are looked at bit by bit and add nothing to the sum.
    """
    total = 0.0
    with np.errstate(all="ignore"):
        for leaf in leaves:
            a = np.asarray(leaf)
            if a.dtype.itemsize >= 4:
                flat = a.reshape(-1)
                total += float(np.dot(flat, flat))
            elif not _small_finite(a):
                return math.nan
    return total


def _small_finite(a: Array) -> bool:
    """Whether all elements of an array of half precision or less are finite."""
    mask = _EXPONENTS.get(a.dtype.name)
    if mask is None or not a.size:
        return bool(np.isfinite(a.astype(np.float32)).all())
    return int((a.view(np.uint16) & mask).max()) != mask


def squares_on_device(leaves: Sequence[Any]) -> float:
    """The same number, computed where the arrays are."""
    return float(_summed(list(leaves)))


@jax.jit
def _summed(leaves: list[Any]) -> Any:
    return sum((jnp.sum(jnp.square(leaf.astype(jnp.float32))) for leaf in leaves), jnp.float32(0))


def broken(new: Any, old: Any) -> bool:
    """Whether an element is not finite where it was before: an infinity that a state has kept from the start is its own."""
    a, b = wide(new), wide(old)
    return bool((~np.isfinite(a) & np.isfinite(b)).any()) if a.shape == b.shape else not bool(np.isfinite(a).all())


def all_sound(new: Sequence[Any], old: Sequence[Any]) -> bool:
    """Whether no array has an element that has become non-finite; slower than `squares`, for where that is not finite."""
    return not any(broken(n, o) for n, o in zip(new, old, strict=True))


def distance(new: Sequence[Any], old: Sequence[Any]) -> float:
    """The Euclidean distance of two lists of arrays."""
    with np.errstate(all="ignore"):
        moved = (np.subtract(wide(n), wide(o)).reshape(-1) for n, o in zip(new, old, strict=True))
        return math.sqrt(sum(float(np.dot(d, d)) for d in moved))


def wide(x: Any) -> Array:
    """An array's elements in a format in which NumPy knows all functions."""
    a = np.asarray(x)
    return a.astype(np.float32) if a.dtype.itemsize < 4 else a


def wide_squares(leaves: Iterable[Any]) -> float:
    """As `squares`, with a sum that overflows in no format; slower."""
    return squares(np.asarray(leaf).astype(np.float64) for leaf in leaves)


def number(x: Any) -> float:
    """A number on the device as Python's; NaN where there is none."""
    return math.nan if x is None else float(np.asarray(x).reshape(()))
