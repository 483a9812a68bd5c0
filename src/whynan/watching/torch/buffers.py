"""A module's buffers as they were before a step: those that its steps change are copied."""

from dataclasses import dataclass
from typing import Any

import torch
from torch.nn.modules.batchnorm import _NormBase
from torch.nn.parameter import is_lazy

Place = tuple[dict[str, Any], str]  # a module's own buffers, and the name of one


@dataclass(slots=True, eq=False)
class Buffers:
    """Copies of a module's buffers: the place that each was in, the tensor that was there, and a copy of its values."""

    places: list[Place]
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
        self._kept: list[Place] = []
        self._still: list[tuple[Place, torch.Tensor | None, int]] | None = None  # those that no step has changed so far

    def copies(self) -> Buffers | None:
        """Copies of the changing buffers as they are now; in the first step, of all. None if there are none."""
        if self._still is None:
            wanted = self._begin()
        else:
            if self._still:
                self._follow(self._still)
            if not self._kept:
                return None
            wanted = self._kept
        found = [(place, b) for place in wanted if (b := place[0].get(place[1])) is not None and not is_lazy(b)]
        if not found:
            return None
        with torch.no_grad():
            return Buffers([place for place, _ in found], [b for _, b in found], [b.clone() for _, b in found])

    def _begin(self) -> list[Place]:
        owners = [(m, (m._buffers, name)) for m in self._module.modules() for name in m._buffers]
        self._kept = [place for m, place in owners if isinstance(m, _NormBase)]
        self._still = [(place, *_stamp(place)) for m, place in owners if not isinstance(m, _NormBase)]
        return [place for _, place in owners]

    def _follow(self, still: list[tuple[Place, torch.Tensor | None, int]]) -> None:
        stamps = [_stamp(place) for place, _, _ in still]
        same = [was is b and old == new for (_, was, old), (b, new) in zip(still, stamps, strict=True)]
        if not all(same):
            self._kept += [place for (place, _, _), stays in zip(still, same, strict=True) if not stays]
            self._still = [entry for entry, stays in zip(still, same, strict=True) if stays]


def _stamp(place: Place) -> tuple[torch.Tensor | None, int]:
    """The tensor in a place, and how often it has been written to."""
    b = place[0].get(place[1])
    return b, -1 if b is None or is_lazy(b) or b.is_inference() else b._version
