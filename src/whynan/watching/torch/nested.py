"""Tensors inside of what models and losses take and give: tuples, lists, mappings, dataclasses, distributions, in each other."""

import copy
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields, is_dataclass
from types import SimpleNamespace
from typing import Any

import torch
from torch.utils._pytree import tree_map

DEEPEST = 8  # levels: a structure may lead back to itself

_OPEN = (SimpleNamespace, torch.distributions.Distribution)  # objects whose attributes are what they hold


def attributes(value: Any) -> dict[str, Any]:
    """What a dataclass, a namespace or a distribution holds, by name; empty for everything else."""
    if hasattr(type(value), "__dataclass_fields__") and is_dataclass(value):
        return {f.name: getattr(value, f.name) for f in fields(value) if hasattr(value, f.name)}
    return vars(value) if isinstance(value, _OPEN) else {}


def named_in(name: str, value: Any, depth: int = DEEPEST) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors of a nested structure by the name that leads to them: `batch.x`, `batch.0`."""
    if isinstance(value, torch.Tensor):
        yield name, value
    elif depth and not isinstance(value, torch.nn.Module):
        numbered = isinstance(value, (tuple, list))
        inside = enumerate(value) if numbered else (value if isinstance(value, Mapping) else attributes(value)).items()
        for key, item in inside:
            yield from named_in(f"{name}.{key}", item, depth - 1)


def tensors_in(value: Any, depth: int = DEEPEST) -> list[torch.Tensor]:
    """The tensors of a nested structure in order; torch's own tree functions take ten times as long on a plain tuple."""
    if isinstance(value, torch.Tensor):
        return [value]
    found: list[torch.Tensor] = []
    inside = value if isinstance(value, (tuple, list)) else value.values() if isinstance(value, Mapping) else attributes(value).values()
    for item in inside:
        if isinstance(item, torch.Tensor):
            found.append(item)
        elif depth and item is not None and not isinstance(item, (int, float, str, torch.nn.Module)):
            found += tensors_in(item, depth - 1)
    return found


def replaced_in(value: Any, replaced: Callable[[torch.Tensor], Any], depth: int = DEEPEST) -> Any:
    """The structure with other tensors in it: new tuples, lists and dictionaries; other objects are the same if they hold none."""
    if isinstance(value, torch.Tensor):
        return replaced(value)
    if type(value) in (tuple, list) and depth:
        return type(value)(replaced_in(v, replaced, depth - 1) for v in value)
    if type(value) is dict and depth:
        return {k: replaced_in(v, replaced, depth - 1) for k, v in value.items()}
    if isinstance(value, (tuple, list, Mapping)):
        return tree_map(lambda v: replaced(v) if isinstance(v, torch.Tensor) else v, value)
    if not depth or not tensors_in(value):
        return value
    twin = copy.copy(value)
    for name, held in attributes(value).items():
        object.__setattr__(twin, name, replaced_in(held, replaced, depth - 1))  # past a frozen dataclass's own
    return twin
