"""Is this step finite? One pass over all gradients, which also gives their norms."""

import math
from collections.abc import Sequence

import torch


def norms(groups: Sequence[Sequence[torch.Tensor]]) -> list[float]:
    """The Euclidean norm of each group of gradients; inf or NaN where one is not finite, or where the norm itself overflows."""
    flat = [dense(g) for group in groups for g in group]
    if not flat:
        return [0.0] * len(groups)
    values = _numbers(torch._foreach_norm(flat))
    found, start = [], 0
    for group in groups:
        found.append(math.hypot(*values[start : start + len(group)]))
        start += len(group)
    return found


def finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether every element is finite; slower than `norms`, for where a norm has overflowed."""
    return all(bool(torch.isfinite(dense(t)).all()) for t in tensors)


def dense(t: torch.Tensor) -> torch.Tensor:
    """The numbers of a gradient: of a sparse one its values."""
    return t.detach().coalesce().values() if t.layout is torch.sparse_coo else t


def _numbers(scalars: Sequence[torch.Tensor]) -> list[float]:
    """Scalars as Python numbers, with one wait for the device where they are alike."""
    first = scalars[0]
    if first.device.type == "cpu":
        return [s.item() for s in scalars]
    if all(s.dtype is first.dtype and s.device == first.device for s in scalars):
        found: list[float] = torch.stack(list(scalars)).tolist()
        return found
    return [float(s) for s in scalars]
