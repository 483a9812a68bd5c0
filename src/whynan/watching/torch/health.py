"""Is this step finite? One pass over all gradients, which also gives their norms."""

import math
from collections.abc import Collection, Sequence
from typing import Any

import torch
from torch.linalg import vector_norm

from whynan.watching.torch.window import Window


def norms(gradients: list[torch.Tensor]) -> list[float]:
    """The Euclidean norm of each gradient; inf or NaN where one is not finite, or where the norm itself overflows."""
    if not gradients:
        return []
    try:
        if gradients[0].device.type == "cpu":  # there it takes less than `_foreach_norm`
            return [vector_norm(g).item() for g in gradients]
        return _numbers(torch._foreach_norm(gradients))
    except (RuntimeError, NotImplementedError):  # sparse ones
        return _numbers(torch._foreach_norm([dense(g) for g in gradients]))


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


def loss_of(window: Window, parameters: Collection[int], scaled: bool = False) -> tuple[float, bool]:
    """The step's loss as a number, and whether all that was differentiated by one of the parameters, given by their `id`, is finite.

    The loop may differentiate more than the watched loss: where that fails, it is the loss. If a gradient scaler has `scaled` it, it does
    not count: it may overflow.
    """
    total, fine, seen = 0.0, True, False
    for call in window.calls:
        if call.seed is not None and call.value is not None:
            value, seen = number(call.value), True
            total += value
            fine = fine and (math.isfinite(value) or finite([call.value]))
    for t, _, node in () if seen and scaled else window.roots:
        value = number(t)
        if math.isfinite(value) or finite([t]):
            total += 0 if seen else value
        elif leads_to(node, parameters):  # else it is another model's loss
            total, fine = total + value, False
    return total, fine


def number(loss: torch.Tensor) -> float:
    """A loss as one number: the mean, where it has several elements."""
    return loss.item() if loss.numel() == 1 else loss.double().mean().item()


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
