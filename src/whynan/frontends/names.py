"""What the names in a Python function stand for: where a loss may own parameters besides its arguments."""

from collections.abc import Iterator
from typing import Any


def names_of(function: Any) -> Iterator[tuple[str, Any]]:
    """The free and global names of a function with what they stand for; none if it is not written in Python."""
    code = getattr(function, "__code__", None)
    if code is None:
        return
    for name, cell in zip(code.co_freevars, function.__closure__ or (), strict=False):
        try:
            yield name, cell.cell_contents
        except ValueError:  # a name that is not bound yet
            continue
    yield from ((name, function.__globals__[name]) for name in code.co_names if name in function.__globals__)
