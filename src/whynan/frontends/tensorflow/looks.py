"""Looks at values: while `Looks` is active, what Python code reads out of an eager tensor is told to a function.

NumPy takes a tensor's memory without asking (`np.asarray(tensor)`); two recordings that differ give that away.
"""

from collections.abc import Callable
from contextlib import ExitStack
from functools import wraps
from types import TracebackType
from typing import Any
from unittest.mock import patch

from tensorflow.python.framework import ops

_NUMBERS = {
    "__bool__": ("bool(tensor)", "bool"),
    "__float__": ("float(tensor)", "float"),
    "__int__": ("int(tensor)", "int"),
    "__index__": ("int(tensor)", "int"),
}
_READS = {"numpy": ".numpy()", "__array__": "numpy.asarray(tensor)", "__dlpack__": "dlpack"}

Look = Callable[[Any, str, str], None]  # the tensor, what the look is called, how it is read: "bool", "float", "int" or "elements"


class Looks:
    """A context in which `told` hears of every look at an eager tensor's value."""

    def __init__(self, told: Look) -> None:
        self._told = told
        self._depth = 0
        self._patches = ExitStack()

    def __enter__(self) -> "Looks":
        base = ops._EagerTensorBase
        for name, (what, how) in {**_NUMBERS, **{name: (what, "elements") for name, what in _READS.items()}}.items():
            self._patches.enter_context(patch.object(base, name, self._watched(getattr(base, name), what, how)))
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._patches.close()

    def _watched(self, original: Callable[..., Any], what: str, how: str) -> Callable[..., Any]:
        @wraps(original)
        def look(tensor: Any, *args: Any, **kwargs: Any) -> Any:
            if not self._depth:
                self._told(tensor, what, how)
            self._depth += 1
            try:
                return original(tensor, *args, **kwargs)
            finally:
                self._depth -= 1

        return look
