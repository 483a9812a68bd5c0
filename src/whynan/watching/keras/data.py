"""A batch as `model.fit` hands it to a step."""

from typing import Any


def by_name(data: Any) -> dict[str, Any]:
    """The parts of a batch by their names in `fit`: `x`, `y` and `sample_weight`."""
    parts = data if isinstance(data, tuple) and len(data) <= 3 else (data,)
    return {name: part for name, part in zip(("x", "y", "sample_weight"), parts, strict=False) if part is not None}
