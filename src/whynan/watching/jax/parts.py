"""Parts of a batch: some samples of an array, in the shape that the step's program was compiled for or without the others."""

from collections.abc import Sequence
from typing import Any

import numpy as np


def filled(values: Any, part: Sequence[int], batch: int) -> Any:
    """The samples of a part, repeated until they are as many as the batch has: the step's program needs its shapes."""
    return values[np.resize(np.asarray(part), batch)]


def without(values: Any, dropped: Sequence[int]) -> Any:
    """An array without some samples."""
    return values[np.delete(np.arange(values.shape[0]), list(dropped))]
