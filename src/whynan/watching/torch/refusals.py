"""What torch refuses with an error where it finds NaN, before there is a loss to look at: watched, it gives NaN like everything else.

So the step ends as other bad steps do: its update is not made, the failure is explained, and the policy holds.
"""

import inspect
from collections.abc import Callable
from typing import Any

import torch

from whynan.watching.torch.intercept import Undo, surely
from whynan.watching.torch.nested import tensors_in


def watch_refusals() -> list[Undo]:
    """Let binary cross-entropy and distributions take NaN where gradients are computed."""
    return [
        surely(torch.nn.functional.binary_cross_entropy, _cross_entropy, compiled=True),
        surely(torch.distributions.Distribution.__init__, _distribution, compiled=True),
        surely(torch.distributions.Distribution._validate_sample, _value, compiled=True),
        surely(torch.distributions.Categorical.sample, _sample, compiled=True),
    ]


def _not_finite(*tensors: torch.Tensor) -> bool:
    """Whether tensors of a step that is differentiated have NaN or infinities."""
    differentiated = torch.is_grad_enabled() and any(t.requires_grad for t in tensors)
    return differentiated and not all(bool(torch.isfinite(t).all()) for t in tensors)


def _cross_entropy(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return original(*args, **kwargs)
    except RuntimeError:
        given = inspect.signature(original).bind(*args, **kwargs).arguments
        p, t = given["input"], given["target"]
        if not _not_finite(p, t):
            raise
        nothing = (p - p) + (t - t)  # NaN where one of them is not finite
        known = nothing == 0
        value = original(**{**given, "input": torch.where(known, p, 0.5), "target": torch.where(known, t, 0.5)})
        return value + (nothing if value.ndim else nothing.sum())


def _distribution(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return original(*args, **kwargs)
    except ValueError:
        if not _not_finite(*tensors_in(vars(args[0]))):
            raise
        return original(*args[:3], **{**kwargs, "validate_args": False})


def _value(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> None:
    try:
        original(*args, **kwargs)
    except ValueError:
        if not _not_finite(*tensors_in((args[1:], kwargs, vars(args[0])))):
            raise


def _sample(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    try:
        return original(*args, **kwargs)
    except RuntimeError:
        if not _not_finite(args[0].probs):
            raise
        return torch.zeros(args[0]._extended_shape(*args[1:], **kwargs), dtype=torch.int64, device=args[0].probs.device)
