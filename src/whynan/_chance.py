"""Random numbers that belong to the user: what whynan draws, imports or runs again in between must not show in theirs."""

import random
import sys
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def undrawn() -> Iterator[None]:
    """Afterwards the random states of Python and, where it is loaded, of NumPy are as before. Importing rich draws a number, for one."""
    state, numpy = random.getstate(), sys.modules.get("numpy")
    theirs = numpy.random.get_state() if numpy is not None else None
    try:
        yield
    finally:
        random.setstate(state)
        if numpy is not None:
            numpy.random.set_state(theirs)
