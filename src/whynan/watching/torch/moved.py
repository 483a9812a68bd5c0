"""How far an update has moved the parameters, measured on so many elements of each that keeping a copy of them costs next to nothing."""

import math
from collections.abc import Sequence

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

    def norms(self, optimizer: torch.optim.Optimizer) -> Sequence[torch.Tensor]:
        """The norms of each one's change since, then those of each one; none if it was another optimizer, or other parameters."""
        if optimizer is not self._optimizer:
            return ()
        now, then = _some(optimizer), self._copies
        if [t.shape for t in now] != [t.shape for t in then]:
            return ()
        return health.norms_of([*torch._foreach_sub(now, then), *then]) if then else ()


def ratio(norms: Sequence[float]) -> float:
    """The norm of the change over that of the parameters; NaN if they are not known."""
    half = len(norms) // 2
    size = math.hypot(*norms[half:])
    return math.hypot(*norms[:half]) / size if size else math.nan


def _some(optimizer: torch.optim.Optimizer) -> list[torch.Tensor]:
    tensors = [shard(p.detach()) for group in optimizer.param_groups for p in group["params"] if p.is_floating_point()]
    return [t if t.numel() <= ELEMENTS else t.view(-1)[:ELEMENTS] for t in tensors if t.is_contiguous()]
