"""Along which axis of the data the samples lie, and how some of them are taken out."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch


@dataclass(frozen=True, slots=True)
class Layout:
    """How many samples there are (0: unknown), and along which axis of each tensor, by name, they lie."""

    size: int
    axes: Mapping[str, int]


def layout(tensors: Mapping[str, torch.Tensor], second: bool = False) -> Layout:
    """The layout of a step's data: the length that the most tensors have as first axis, or as second of three (sequences first).

    `second` says that the model takes sequences along the first axis. Of two lengths that fit as well the first tensor's first is taken.
    """
    with_axes = {n: t for n, t in tensors.items() if t.ndim}
    if not with_axes:
        return Layout(0, {})
    first = next(iter(with_axes.values()))
    sizes = [t.shape[0] for t in with_axes.values()] + [t.shape[1] for t in with_axes.values() if t.ndim > 2]
    if second and first.ndim > 1:
        size = first.shape[1]
    else:
        size = max(dict.fromkeys(sizes), key=lambda n: sum(_axis(t, n, False) is not None for t in with_axes.values()))
    axes = {n: axis for n, t in with_axes.items() if (axis := _axis(t, size, second)) is not None}
    return Layout(size, axes) if 2 * len(axes) >= len(with_axes) else Layout(0, {})


def _axis(t: torch.Tensor, size: int, second: bool) -> int | None:
    if second and t.ndim > 1 and t.shape[1] == size:
        return 1
    if t.shape[0] == size:
        return 0
    return 1 if t.ndim > 2 and t.shape[1] == size else None


def picked(t: torch.Tensor, axis: int | None, pick: Sequence[int] | None) -> torch.Tensor:
    """The tensor with those samples only, if samples lie along one of its axes."""
    return t if pick is None or axis is None else t.index_select(axis, torch.tensor(list(pick), device=t.device))


def sequences_first(targets: Iterable[Any], data: Mapping[str, torch.Tensor], run: Callable[[], Any]) -> bool:
    """Whether a layer that takes sequences along the first axis gets the data with their axes as they are.

    `targets` are what is called in a run, modules among them. Nothing is run if there is no such layer.
    """
    modules = [m for t in targets if isinstance(t, torch.nn.Module) for m in t.modules() if getattr(m, "batch_first", True) is False]
    first = next((t for t in data.values() if t.ndim), None)
    if not modules or first is None or first.ndim < 2 or first.shape[0] == first.shape[1]:
        return False
    seen: list[tuple[int, ...]] = []

    def look(module: torch.nn.Module, args: Any) -> None:
        seen.extend(tuple(a.shape[:2]) for a in args[:1] if isinstance(a, torch.Tensor) and a.ndim > 2)

    hooks = [m.register_forward_pre_hook(look) for m in modules]
    try:
        run()
    except Exception:  # whoever runs it next will see that
        return False
    finally:
        for hook in hooks:
            hook.remove()
    return bool(seen) and seen[0] == tuple(first.shape[:2])
