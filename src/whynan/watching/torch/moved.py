"""How far an update has moved the parameters, measured on so many elements of each that keeping a copy of them costs next to nothing."""

import math

import torch

from whynan.watching.torch import health
from whynan.watching.torch.ranks import shard

ELEMENTS = 4096  # of each parameter, its first


class Sample:
    """Parameters of an optimizer as they are before its update."""

    __slots__ = ("_copies", "_optimizer")

    def __init__(self, optimizer: torch.optim.Optimizer) -> None:
        self._optimizer = optimizer
        self._copies = [t.clone() for t in _some(optimizer)]

    def ratio(self, optimizer: torch.optim.Optimizer) -> float:
        """The norm of their change since over their norm; NaN if it was another optimizer, or other parameters."""
        if optimizer is not self._optimizer:
            return math.nan
        now, then = _some(optimizer), self._copies
        if [t.shape for t in now] != [t.shape for t in then]:
            return math.nan
        size = math.hypot(*health.norms(then))
        return math.hypot(*health.norms(list(torch._foreach_sub(now, then)))) / size if size else math.nan


def _some(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    tensors = [shard(p.detach()) for group in optimizer.param_groups for p in group["params"] if p.is_floating_point()]
    return [t if t.numel() <= ELEMENTS else t.view(-1)[:ELEMENTS] for t in tensors if t.is_contiguous()]
