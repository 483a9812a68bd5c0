"""Sample calls of every op, one module per op family.

A module of this package has

- `CASES: dict[str, Callable[[numpy.random.Generator], Call]]`: for each op of the family a function that draws one call, with
  attributes, input shapes and formats, result shape and format (float formats are drawn from `FORMATS`, so that a sweep over
  seeds meets all of them);
- optionally `INPUTS: dict[str, Callable[[Call, Generator], list[ndarray]]]`: concrete inputs for a call whose inputs are not
  arbitrary numbers (indices, masks, positive definite matrices). Each array has the shape and format that the call says.
  Ops without an entry get random arrays with special values (zeros of both signs, infinities, NaN, subnormals, extremes).
  Bounds are then built around the drawn inputs;
- optionally `EDGES: dict[str, list[tuple[float, ...]]]`: for elementwise ops, input values (one per input) that must be tried
  besides the general ones, so that each danger of the op is met;
- optionally `HARD: dict[str, list[Callable[[Generator], tuple[Call, list[ndarray]]]]]`: calls with inputs that meet a danger
  which chance does not find (an empty axis, a singular matrix).

Modules are found by walking the package; an op that has no case makes a test fail, and so does a second case for one op.
"""

import importlib
import pkgutil
from collections.abc import Callable
from typing import Any

import numpy as np

from whynan.ir.dtype import FLOATS, Array, Format
from whynan.ir.graph import Call

Case = Callable[[np.random.Generator], Call]
Inputs = Callable[[Call, np.random.Generator], list[Array]]

FORMATS = FLOATS


def any_float(rng: np.random.Generator) -> Format:
    """One of the four float formats."""
    return FORMATS[int(rng.integers(len(FORMATS)))]


def _collect(name: str) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for module in pkgutil.iter_modules(__path__):
        entries = getattr(importlib.import_module(f"{__name__}.{module.name}"), name, {})
        twice = found.keys() & entries.keys()
        if twice:
            raise ValueError(f"{name}: a second entry for {sorted(twice)} in {module.name}.")
        found |= entries
    return found


def cases() -> dict[str, Case]:
    """All cases by op name."""
    return _collect("CASES")


def inputs() -> dict[str, Inputs]:
    """All special input generators by op name."""
    return _collect("INPUTS")


def hard_cases() -> dict[str, list[Callable[[np.random.Generator], tuple[Call, list[Array]]]]]:
    """Calls with inputs that meet a danger, by op name."""
    return _collect("HARD")


def edges() -> dict[str, list[tuple[float, ...]]]:
    """All extra input values by op name."""
    return _collect("EDGES")
