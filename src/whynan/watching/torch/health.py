"""Is this step finite? One pass over all gradients, which also gives their norms."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch.linalg import vector_norm

from whynan.watching.torch.window import Window


def norms(gradients: list[torch.Tensor]) -> list[float]:
    """The Euclidean norm of each gradient; inf or NaN where one is not finite, or where the norm itself overflows."""
    return read(norms_of(gradients))[0]


def norms_of(gradients: list[torch.Tensor]) -> Sequence[torch.Tensor]:
    """The same, where the gradients are."""
    if not gradients:
        return []
    try:
        if gradients[0].is_cpu:  # there it takes less than `_foreach_norm`
            return [vector_norm(g) for g in gradients]
        return torch._foreach_norm(gradients)
    except (RuntimeError, NotImplementedError):  # sparse ones
        return torch._foreach_norm([dense(g) for g in gradients])


def finite(tensors: Sequence[torch.Tensor]) -> bool:
    """Whether every element is finite; slower than `norms`, for where a norm has overflowed."""
    return all(read([torch.isfinite(dense(t)).all() for t in tensors])[0])


def dense(t: torch.Tensor) -> torch.Tensor:
    """The numbers of a gradient: of a sparse one its values, of one that is spread over ranks this rank's."""
    t = t.to_local() if hasattr(t, "to_local") else t
    return t.detach().coalesce().values() if t.layout is torch.sparse_coo else t


def read(*groups: Sequence[Any]) -> list[list[float]]:
    """Python numbers and tensors of one element as Python numbers, group by group, with one wait for each device."""
    tensors = [t for group in groups for t in group if isinstance(t, torch.Tensor)]
    if all(t.is_cpu for t in tensors):
        return [[t.item() if isinstance(t, torch.Tensor) else t for t in group] for group in groups]
    found: dict[int, float] = {}
    for device in {t.device for t in tensors}:
        there = [t for t in tensors if t.device == device]
        found |= zip(map(id, there), torch.cat([t.detach().reshape(1) for t in there]).tolist(), strict=True)
    return [[found[id(t)] if isinstance(t, torch.Tensor) else t for t in group] for group in groups]


def losses_in(window: Window, scaled: bool = False) -> list[torch.Tensor]:
    """What `loss_of` reads, each as one number: the mean, where it has several elements."""
    found = [c.value for c in window.calls if c.seed is not None and c.value is not None]
    found += [] if found and scaled else [t for t, *_ in window.roots]
    return [t if t.numel() == 1 else t.mean(dtype=torch.promote_types(t.dtype, torch.float32)) for t in found]


def loss_of(window: Window, parameters: Collection[int], scaled: bool = False, values: Sequence[float] | None = None) -> tuple[float, bool]:
    """The step's loss as a number, and whether all that was differentiated by one of the parameters, given by their `id`, is finite.

    The loop may differentiate more than the watched loss: where that fails, it is the loss. If a gradient scaler has `scaled` it, it does
    not count: it may overflow. `values` are those of `losses_in`, if they have been read.
    """
    read_in_turn = iter(read(losses_in(window, scaled))[0] if values is None else values)
    total, fine, seen = 0.0, True, False
    for call in window.calls:
        if call.seed is not None and call.value is not None:
            value, seen = next(read_in_turn), True
            total += value
            fine = fine and (math.isfinite(value) or finite([call.value]))
    for t, _, node in () if seen and scaled else window.roots:
        value = next(read_in_turn)
        if math.isfinite(value) or finite([t]):
            total += 0 if seen else value
        elif leads_to(node, parameters):  # else it is another model's loss
            total, fine = total + value, False
    return total, fine


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
