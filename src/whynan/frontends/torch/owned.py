"""What a target owns: its trainable parameters, and its modules' state, which a run must leave as it was."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch

from whynan.frontends.names import names_of
from whynan.frontends.torch.tensors import to_tensor
from whynan.ir.dtype import Array

Target = Callable[..., Any]


@dataclass(frozen=True, slots=True)
class Owned:
    """`parameters` by qualified name; `objects` are the modules and other objects whose attributes a run may change."""

    parameters: Mapping[str, torch.Tensor]
    objects: tuple[Any, ...]

    @contextmanager
    def lent(self, values: Mapping[str, Array]) -> Iterator[None]:
        """Inside, parameters hold copies (of the given values where there are some); afterwards everything is as it was.

        Restored are parameters and their .grad, buffers, tensors and all other values that are bound to attributes.
        """
        attributes = [(o, dict(o.__dict__), _tables(o)) for o in self.objects]
        tensors = {id(t): t for o in self.objects for t in _tensors(o)} | {id(p): p for p in self.parameters.values()}
        before = [(t, t.data, t.grad if t.is_leaf else None) for t in tensors.values()]
        given = {id(p): values[name] for name, p in self.parameters.items() if name in values}
        try:
            for t, data, _ in before:
                t.data = to_tensor(given[id(t)]).to(data.dtype) if id(t) in given else data.clone()
                if t.is_leaf:
                    t.grad = None
            yield
        finally:
            for o, names, tables in attributes:
                o.__dict__.clear()
                o.__dict__.update(names)
                for table, entries in tables:
                    table.clear()
                    table.update(entries)
            for t, data, grad in before:
                t.data = data
                if t.is_leaf:
                    t.grad = grad


def owned_by(target: Target) -> Owned:
    """The trainable parameters and the stateful objects of a target: a module, a bound method, a closure, a callable object."""
    parameters: dict[str, torch.Tensor] = {}
    objects: dict[int, Any] = {}
    taken = argument_names(target)
    for prefix, value in _holders(target):
        for name, parameter in _parameters(value, prefix):
            known = any(parameter is p for p in parameters.values())
            if parameter.requires_grad and parameter.is_leaf and not known:
                parameters[f"self.{name}" if name in taken else name] = parameter
        for o in _stateful(value):
            objects[id(o)] = o
    return Owned(parameters, tuple(objects.values()))


def argument_names(target: Target) -> tuple[str, ...]:
    """The names of the target's arguments; empty if Python cannot tell (built-in functions)."""
    try:
        called = target.forward if isinstance(target, torch.nn.Module) else target
        return tuple(inspect.signature(called).parameters)
    except (TypeError, ValueError):
        return ()


def _holders(target: Target) -> Iterator[tuple[str, Any]]:
    """Objects that may own parameters, each with the prefix of their names."""
    while isinstance(target, functools.partial):
        target = target.func
    owner = getattr(target, "__self__", None)
    if isinstance(target, torch.nn.Module):
        yield "", target
    elif owner is not None and not inspect.ismodule(owner) and not inspect.isbuiltin(target):
        yield "self.", owner
        target = getattr(target, "__func__", target)
    elif not inspect.isroutine(target):
        yield "", target
    for name, value in names_of(inspect.unwrap(target) if inspect.isfunction(target) else target):
        if isinstance(value, torch.Tensor):
            yield name, value
        elif isinstance(value, torch.nn.Module) or inspect.ismethod(value):
            yield f"{name}.", getattr(value, "__self__", value)


def _parameters(value: Any, prefix: str) -> Iterator[tuple[str, torch.Tensor]]:
    if isinstance(value, torch.Tensor):
        yield prefix, value
    elif isinstance(value, torch.nn.Module):
        yield from ((prefix + name, p) for name, p in value.named_parameters())
    else:
        for name, attribute in getattr(value, "__dict__", {}).items():
            if isinstance(attribute, torch.nn.Module):
                yield from _parameters(attribute, f"{prefix}{name}.")
            elif isinstance(attribute, torch.Tensor):
                yield prefix + name, attribute


def _stateful(value: Any) -> Iterator[Any]:
    if isinstance(value, torch.nn.Module):
        yield from value.modules()
    elif hasattr(value, "__dict__") and not isinstance(value, (type, torch.Tensor)):
        yield value
        for attribute in value.__dict__.values():
            if isinstance(attribute, torch.nn.Module):
                yield from attribute.modules()


def _tensors(o: Any) -> Iterator[torch.Tensor]:
    values = [*o.__dict__.values(), *(o._buffers.values() if isinstance(o, torch.nn.Module) else ())]
    yield from (v for v in values if isinstance(v, torch.Tensor))


def _tables(o: Any) -> list[tuple[dict[str, Any], dict[str, Any]]]:
    if not isinstance(o, torch.nn.Module):
        return []
    return [(table, dict(table)) for table in (o._parameters, o._buffers)]
