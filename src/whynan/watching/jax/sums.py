"""Sums over many arrays inside of a compiled program, as additions of whole arrays.

XLA's own sum over all elements goes one by one on a CPU; an addition of arrays takes as many elements at once as the processor can, and
many additions become one loop.
"""

from collections.abc import Sequence
from typing import Any

import jax.numpy as jnp

WAYS = 16  # parts of an array that are added at once
SMALL = 64  # elements that are summed one by one


def summed_squares(arrays: Sequence[Any]) -> Any:
    """The sum of the squares of all elements, in float32; not finite if an element is not, or if it overflows."""
    shapes: dict[Any, Any] = {}  # arrays of one shape are added up before they are folded
    for a in arrays:
        square = jnp.square(a.astype(jnp.float32))
        shapes[a.shape] = shapes[a.shape] + square if a.shape in shapes else square
    return sum((_folded(total.reshape(-1)) for total in shapes.values()), jnp.float32(0))


def _folded(row: Any) -> Any:
    """The sum of an array of one axis: its parts are laid on one another, as often as it takes."""
    if row.size <= SMALL:
        return jnp.sum(row)
    width = row.size // WAYS
    total = row[:width]
    for i in range(1, WAYS):
        total = total + row[i * width : (i + 1) * width]
    rest = row[WAYS * width :]
    return _folded(total) + jnp.sum(rest) if rest.size else _folded(total)
