"""Python's and NumPy's random numbers: kept for models that draw from them in their calls, which their first calls show.

To keep these states takes longer than all else that is kept of a call, and few models draw from them.
"""

import math
import random
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

LOOKS = 8  # calls


@dataclass(frozen=True, slots=True)
class Chance:
    """The states of Python's generator and of NumPy's global one, with its key as bytes; None if somebody has put another kind there."""

    python: tuple[Any, ...]
    numpy: tuple[Any, ...] | None

    def restore(self) -> None:
        """Put them back."""
        random.setstate(self.python)
        if self.numpy is not None:
            name, key, position, has, left = self.numpy
            np.random.set_state((name, np.frombuffer(key, np.uint32), position, has, left))

    def tensors(self) -> dict[str, torch.Tensor]:
        """Both as numbers. What Python has left of a pair of Gaussian numbers is NaN if nothing."""
        _, integers, left = self.python
        found = {"python": torch.tensor([*integers, math.nan if left is None else left], dtype=torch.float64)}
        if self.numpy is not None:
            _, key, *rest = self.numpy
            found["numpy"] = torch.tensor([*np.frombuffer(key, np.uint32).tolist(), *rest], dtype=torch.float64)
        return found


def chance() -> Chance:
    """The states as they are now."""
    state = np.random.get_state()
    return Chance(random.getstate(), (state[0], state[1].tobytes(), *state[2:]) if isinstance(state, tuple) else None)


class Draws:
    """Finds out whether calls draw from these generators."""

    def __init__(self) -> None:
        self.open = True  # whether the states before a call are to be kept
        self._looks, self._drawn = LOOKS, False

    def after(self, was: Chance) -> None:
        """A call that began with these states has returned."""
        if self._looks:
            self._looks -= 1
            self._drawn = self._drawn or chance() != was
            self.open = self._drawn or self._looks > 0
