"""The fixes that `whynan fix` would offer for a loss that has failed in training, on data like the step's."""

import inspect
import logging
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from whynan.errors import WhynanError
from whynan.ir.dtype import Array
from whynan.patches.change import Fix

Fixer = Callable[[Any, Mapping[str, Any]], Sequence[Fix]]

MOST_FIXES = 3
_ROWS = 4  # of the batch; what can fail does not depend on how many there are, the time does

log = logging.getLogger("whynan.watch")


def offered(fixer: Fixer, loss: Any, given: Mapping[str, Any], batch: int, samples: Sequence[int]) -> tuple[Fix, ...]:
    """The best fixes of a loss for inputs like those given by argument name: arrays and numbers. Empty if there are none.

    Nothing is offered for inputs that are not finite: there, the loss is not the cause. Nor for a loss of the program's main script:
    to look for fixes, its file is imported anew, and that would train once more.
    """
    if getattr(loss if inspect.isroutine(loss) else type(loss), "__module__", "__main__") == "__main__":
        return ()
    rows = [*samples[:_ROWS], *(i for i in range(min(batch, _ROWS + len(samples))) if i not in samples)][:_ROWS]
    arguments = {name: _some(value, batch, rows) for name, value in given.items()}
    if not all(np.isfinite(np.asarray(v, np.float64)).all() for v in arguments.values()):
        return ()
    try:
        return tuple(fixer(loss, arguments))[:MOST_FIXES]
    except WhynanError as error:  # a loss that cannot be checked by itself has no fixes
        log.debug("no fixes of the loss: %s", error)
        return ()


def _some(value: Any, batch: int, rows: Sequence[int]) -> Any:
    if not isinstance(value, np.ndarray):
        return value
    chosen: Array = value[list(rows)] if batch and value.ndim and value.shape[0] == batch else value
    return chosen
