"""Derivatives that torch computes in another way while something watches its operations.

Under a dispatch mode the derivatives of prod and cumprod take a form that is safe at zeros. Unwatched, where no element is zero, they
divide by the elements, which overflows and underflows elsewhere (torch/csrc/autograd/FunctionsManual.cpp, `prod_backward` and
`cumprod_backward`). What is recorded has to be what runs.
"""

from collections.abc import Callable, Iterable
from functools import partial
from typing import Any

import torch

from whynan.frontends.torch.recorder import Recorder

Tensors = tuple[torch.Tensor | None, ...]


def nodes_behind(parts: Iterable[torch.Tensor]) -> list[Any]:
    """The autograd nodes behind some tensors."""
    stack = [t.grad_fn for t in parts if t.grad_fn is not None]
    seen = dict.fromkeys(stack)
    while stack:
        fresh = [n for n in dict.fromkeys(n for n, _ in stack.pop().next_functions) if n is not None and n not in seen]
        seen |= dict.fromkeys(fresh)
        stack += fresh
    return list(seen)


def as_unwatched(recorder: Recorder, nodes: Iterable[Any]) -> None:
    """See to it that these autograd nodes give, and that there is recorded, what they give when nothing watches."""
    for node in nodes:
        form = _FORMS.get(node.name())
        if form is not None:
            recorder.corrected.add(node._sequence_nr())
            node.register_hook(partial(_corrected, recorder, node, form))


def _corrected(recorder: Recorder, node: Any, form: Callable[..., torch.Tensor], given: Tensors, incoming: Tensors) -> Tensors | None:
    watched, g = given[0], incoming[0]
    if watched is None or g is None or not node._saved_self.ndim:
        return None
    x, y = node._saved_self.detach(), node._saved_result.detach()
    with torch._C.DisableTorchFunction(), recorder.standing_at(recorder.place_of(watched)):
        return (form(recorder, node, watched, g.to(x.dtype), x, y).to(x.dtype), *given[1:])


def _prod(recorder: Recorder, node: Any, watched: torch.Tensor, g: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    zeros = (x == 0).sum()
    return torch.where(zeros == 0, g * (y / _nonzero(x)), torch.where(zeros > 1, torch.zeros_like(x), watched))


def _prod_along(recorder: Recorder, node: Any, watched: torch.Tensor, g: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    if not node._saved_keepdim:
        g, y = g.unsqueeze(_dim(node)), y.unsqueeze(_dim(node))
    return torch.where((x == 0).any(), watched, g * (y / _nonzero(x)))


def _cumprod(recorder: Recorder, node: Any, watched: torch.Tensor, g: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    dim = _dim(node)
    if x.shape[dim] == 1 or not x.numel():
        return watched
    return torch.where((x == 0).any(), _cumprod_at_zeros(dim, g, x, y), _from_the_end(y * g, dim) / _nonzero(x))


def _from_the_end(x: torch.Tensor, dim: int) -> torch.Tensor:
    """Running sums from the last element on."""
    return x.flip(dim).cumsum(dim).flip(dim)


def _cumprod_at_zeros(dim: int, g: torch.Tensor, x: torch.Tensor, y: torch.Tensor) -> torch.Tensor:
    """The derivative where zeros are: as ever before the first zero of a row, 0 behind it, and at it the product of the others."""
    zero = x == 0
    seen = zero.cumsum(dim)
    before, first, between = seen == 0, (seen == 1) & zero, (seen == 1) & ~zero
    ahead = _from_the_end(torch.where(before, y * g, 0.0), dim) / _nonzero(x)
    behind = (torch.where(between, x, 1.0).cumprod(dim) * torch.where(seen == 1, g, 0.0)).sum(dim, keepdim=True)
    up_to = torch.cat([torch.ones_like(y.narrow(dim, 0, 1)), y.narrow(dim, 0, y.shape[dim] - 1)], dim)
    at_first = behind * torch.where(first, up_to, 0.0).sum(dim, keepdim=True)
    return torch.where(before, ahead, torch.where(first, at_first, 0.0))


def _nonzero(x: torch.Tensor) -> torch.Tensor:
    """The same where nothing is zero; where something is, the quotient is not used, and this says so of each element."""
    return torch.where(x == 0, 1.0, x)


def _dim(node: Any) -> int:
    dim = int(node._saved_dim)
    return dim - 2**64 if dim >= 2**63 else dim  # torch shows negative numbers as unsigned ones


_FORMS: dict[str, Callable[..., torch.Tensor]] = {"ProdBackward0": _prod, "ProdBackward1": _prod_along, "CumprodBackward0": _cumprod}
