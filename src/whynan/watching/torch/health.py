"""Is this step finite? One pass over all gradients, which also gives their norms."""

from collections.abc import Collection, Sequence
from typing import Any

import torch


def norms(gradients: list[torch.Tensor]) -> list[float]:
    """The Euclidean norm of each gradient; inf or NaN where one is not finite, or where the norm itself overflows."""
    if not gradients:
        return []
    try:
        found = torch._foreach_norm(gradients)
    except (RuntimeError, NotImplementedError):  # sparse ones
        found = torch._foreach_norm([dense(g) for g in gradients])
    return [n.item() for n in found] if found[0].device.type == "cpu" else _numbers(found)


def finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether every element is finite; slower than `norms`, for where a norm has overflowed."""
    return all(bool(torch.isfinite(dense(t)).all()) for t in tensors)


def dense(t: torch.Tensor) -> torch.Tensor:
    """The numbers of a gradient: of a sparse one its values, of one that is spread over ranks this rank's."""
    t = t.to_local() if hasattr(t, "to_local") else t
    return t.detach().coalesce().values() if t.layout is torch.sparse_coo else t


def _numbers(scalars: Sequence[torch.Tensor]) -> list[float]:
    """Scalars as Python numbers, with one wait for the device where they are alike."""
    first = scalars[0]
    if all(s.dtype is first.dtype and s.device == first.device for s in scalars):
        found: list[float] = torch.stack(list(scalars)).tolist()
        return found
    return [float(s) for s in scalars]


def leads_to(node: Any, parameters: Collection[int]) -> bool:
    """Whether an autograd graph ends at one of the parameters, given by their `id`."""
    waiting, seen = [node], set()
    while waiting:
        now = waiting.pop()
        if now is None or now in seen:
            continue
        seen.add(now)
        if id(getattr(now, "variable", None)) in parameters:
            return True
        waiting += [f for f, _ in now.next_functions]
    return False
