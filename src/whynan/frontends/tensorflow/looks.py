"""Looks at values: while `Looks` is active, what Python code reads out of an eager tensor is told to a function.

NumPy takes a tensor's memory by the buffer protocol, which no Python code sees (`np.max(tensor)`). While `Looks` is active tensors have
none, so that NumPy asks them for an array (`__array__`).
"""

import ctypes
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from functools import wraps
from types import TracebackType
from typing import Any
from unittest.mock import patch

import numpy as np
from tensorflow.python.framework import ops

_NUMBERS = {
    "__bool__": ("bool(tensor)", "bool"),
    "__float__": ("float(tensor)", "float"),
    "__int__": ("int(tensor)", "int"),
    "__index__": ("int(tensor)", "int"),
}
_READS = {"numpy": ".numpy()", "__dlpack__": "dlpack"}
_READ_BY_NUMPY = "numpy.asarray(tensor)", "elements"
_AS_BUFFER = 17  # where tp_as_buffer stands in CPython's PyTypeObject, in pointers after the part that all objects of variable size have

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
        as_array = self._watched(_as_array, *_READ_BY_NUMPY)
        self._patches.enter_context(patch.object(base, "__array__", as_array))
        self._patches.enter_context(_without_buffer(ops.EagerTensor))
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


def _as_array(tensor: Any, dtype: Any = None, copy: bool | None = None) -> Any:
    """A tensor's `__array__`, for a single number an array, too, and with NumPy 2's question whether to copy."""
    return np.array(tensor._numpy(), dtype=dtype, copy=copy)


@contextmanager
def _without_buffer(kind: type) -> Iterator[None]:
    """Inside, objects of a type written in C have no buffer: its table's first entry, the function that hands one out, is empty."""
    pointer = ctypes.sizeof(ctypes.c_void_p)
    table = ctypes.c_void_p.from_address(id(kind) + object.__basicsize__ + pointer * (1 + _AS_BUFFER))
    if table.value is None:  # nothing to take away
        yield
        return
    handing_out = ctypes.c_void_p.from_address(table.value)
    before, handing_out.value = handing_out.value, None
    try:
        yield
    finally:
        handing_out.value = before
