"""A batch as `model.fit` hands it to a step."""

from collections.abc import Iterator, Mapping
from typing import Any


def by_name(data: Any) -> dict[str, Any]:
    """The parts of a batch by their names in `fit`: `x`, `y` and `sample_weight`."""
    parts = data if isinstance(data, (tuple, list)) and len(data) <= 3 else (data,)
    return {name: part for name, part in zip(("x", "y", "sample_weight"), parts, strict=False) if part is not None}


def collected(values: Mapping[str, Any], kind: Any) -> dict[str, Any]:
    """The values of that kind by name, those in containers with their place added to the name: `x.0`, `x.mask`."""
    return {name: value for top, found in values.items() for name, value in _inside(top, found) if isinstance(value, kind)}


def _inside(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(value, Mapping):
        for key, item in value.items():
            yield from _inside(f"{name}.{key}", item)
    elif isinstance(value, (tuple, list)):
        for i, item in enumerate(value):
            yield from _inside(f"{name}.{i}", item)
    else:
        yield name, value
