"""A module's buffers as they were before a step: those that its steps change are copied."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy


@dataclass(slots=True, eq=False)
class Buffers:
    """Copies of a module's buffers: the place that each was in, the tensor that was there, and a copy of its values."""

    places: list[tuple[dict[str, Any], str]]
    owners: list[torch.Tensor]
    copies: list[torch.Tensor]

    def restore(self) -> None:
        """Put the tensors back into their places and the values into the tensors, which graphs that have saved them do not notice."""
        with torch.no_grad():
            for (there, name), owner, copy in zip(self.places, self.owners, self.copies, strict=True):
                owner.data.copy_(copy)
                there[name] = owner


class Changing:
    """Those buffers of a module that its steps change (a batch norm's statistics): they are copied before each step, the others are not.

    A buffer changes by being written to, or by another tensor in its place, as after `model.to`. Batch norms write into theirs without
    telling (the version stays), so those always count.
    """

    def __init__(self, module: torch.nn.Module) -> None:
        self._module = module
        self._places: list[tuple[dict[str, Any], str]] | None = None
        self._last: list[torch.Tensor | None] = []
        self._versions: list[int] = []
        self._changing: set[int] = set()
        self._silent: set[int] = set()

    def copies(self) -> Buffers | None:
        """Copies of the changing buffers as they are now; in the first step, of all. None if there are none."""
        first = self._places is None
        if self._places is None:
            owners = [(m, name) for m in self._module.modules() for name in m._buffers]
            self._places = [(m._buffers, name) for m, name in owners]
            self._silent = {i for i, (m, _) in enumerate(owners) if isinstance(m, _NormBase)}
        if not self._places:
            return None
        now = [there.get(name) for there, name in self._places]
        versions = [-1 if b is None or is_lazy(b) or b.is_inference() else b._version for b in now]
        if not first:
            before = zip(self._last, self._versions, now, versions, strict=True)
            self._changing.update(i for i, (was, old, b, new) in enumerate(before) if b is not was or old != new)
        self._last, self._versions = now, versions
        wanted = range(len(now)) if first else sorted(self._changing | self._silent)
        kept = [(self._places[i], b) for i in wanted if (b := now[i]) is not None and not is_lazy(b)]
        if not kept:
            return None
        with torch.no_grad():
            return Buffers([place for place, _ in kept], [b for _, b in kept], [b.detach().clone() for _, b in kept])
