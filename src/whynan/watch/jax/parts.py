"""The smallest part of a batch that fails without the rest."""

import time
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

MOST_SINGLE = 256  # samples that are tried one by one


def smallest(fails: Callable[[Sequence[int]], bool], batch: int, suspects: Sequence[int], seconds: float) -> tuple[int, ...]:
    """The smallest part found that fails: one sample, the suspects first, else half of a part that fails, again and again.

    Empty if nothing smaller than the whole batch fails. No new try is begun after `seconds`.
    """
    end = time.monotonic() + seconds
    rest = [i for i in range(batch) if i not in set(suspects)]
    for i in [*suspects, *rest][:MOST_SINGLE] if batch > 1 else ():
        if time.monotonic() > end:
            return ()
        if fails([i]):
            return (i,)
    part = list(range(batch))
    while len(part) > 2 and time.monotonic() < end:
        half = len(part) // 2
        found = next((p for p in (part[:half], part[half:]) if len(p) > 1 and fails(p)), None)
        if found is None:
            break
        part = found
    return tuple(part) if len(part) < batch else ()


def filled(values: Any, part: Sequence[int], batch: int) -> Any:
    """The samples of a part, repeated until they are as many as the batch has: the step's program needs its shapes."""
    return values[np.resize(np.asarray(part), batch)]


def without(values: Any, dropped: Sequence[int]) -> Any:
    """An array without some samples."""
    kept = np.delete(np.arange(values.shape[0]), list(dropped))
    return values[kept]
