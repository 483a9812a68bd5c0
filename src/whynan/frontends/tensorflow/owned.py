"""What a target owns besides its arguments: trainable variables, and state that a run may change."""

import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from types import MethodType
from typing import Any

import tensorflow as tf
from tensorflow.python.eager.polymorphic_function.tf_method_target import TfMethodTarget

from whynan.frontends.names import names_of
from whynan.ir.dtype import Array


@dataclass(frozen=True, slots=True)
class Owned:
    """`parameters` are trainable variables by qualified name, `state` all variables; `objects` have attributes that a run may change."""

    parameters: Mapping[str, tf.Variable]
    state: tuple[tf.Variable, ...]
    objects: tuple[Any, ...]

    @contextmanager
    def lent(self, values: Mapping[str, Array]) -> Iterator[None]:
        """Inside, parameters hold the given values where there are some; afterwards variables and attributes are as they were."""
        before = [(v, v.read_value()) for v in self.state]
        attributes = [(o, dict(o.__dict__)) for o in self.objects]
        try:
            for name, variable in self.parameters.items():
                if name in values:
                    variable.assign(values[name])
            yield
        finally:
            for variable, value in before:
                variable.assign(value)
            for o, names in attributes:
                o.__dict__.clear()
                o.__dict__.update(names)


def owned_by(target: Callable[..., Any]) -> Owned:
    """The variables and stateful objects of a target: a layer, a Keras loss, a bound method, a closure, a callable object."""
    found: dict[str, tf.Variable] = {}
    objects: dict[int, Any] = {}
    seen: set[int] = set()
    taken = argument_names(target)
    for prefix, value in _holders(target):
        for name, variable in _variables(value, prefix.rstrip(".") if isinstance(value, tf.Variable) else prefix):
            if id(variable) not in seen:
                seen.add(id(variable))
                found[f"self.{name}" if name in taken or name in found else name] = variable
        if _is_plain(value):
            objects[id(value)] = value
    trainable = {name: v for name, v in found.items() if v.trainable and v.dtype.is_floating}
    return Owned(trainable, tuple(found.values()), tuple(objects.values()))


def plain_of(function: Any) -> Any:
    """The Python function that a `tf.function` compiles, of a method bound to its object; anything else as it is."""
    plain = getattr(function, "python_function", function)
    bound = inspect.unwrap(plain) if inspect.isfunction(plain) else plain
    owner = getattr(bound, "__self__", None)
    return MethodType(bound.__func__, owner.target) if isinstance(owner, TfMethodTarget) else plain


def argument_names(target: Any) -> tuple[str, ...]:
    """The names of the arguments of a target, of its `call` method if it is a Keras object; empty if Python cannot tell."""
    if not inspect.isroutine(target) and callable(getattr(target, "call", None)):
        target = target.call
    try:
        return tuple(inspect.signature(getattr(target, "python_function", target)).parameters)
    except (TypeError, ValueError):
        return ()


def _holders(target: Any) -> Iterator[tuple[str, Any]]:
    """Objects that may own variables, each with the prefix of their names."""
    while isinstance(target, functools.partial) or hasattr(target, "python_function"):
        target = target.func if isinstance(target, functools.partial) else plain_of(target)
    owner = getattr(target, "__self__", None)
    if owner is not None and not inspect.ismodule(owner) and not inspect.isbuiltin(target):
        yield "self.", owner
        target = getattr(target, "__func__", target)
    elif not inspect.isroutine(target):
        yield "", target
    for name, value in names_of(inspect.unwrap(target) if inspect.isfunction(target) else target):
        first = value[0] if isinstance(value, (list, tuple)) and value else value
        if _unwrapped(first) is not None or _is_tracked(first) or inspect.ismethod(value) or _is_of_keras(value):
            yield f"{name}.", getattr(value, "__self__", value) if inspect.ismethod(value) else value


def _variables(value: Any, prefix: str, depth: int = 3) -> Iterator[tuple[str, tf.Variable]]:
    """Variables by name; of a module all that it tracks, of another object those bound to attributes and inside modules there."""
    variable = _unwrapped(value)
    if variable is not None:
        yield prefix.rstrip("."), variable
    elif isinstance(value, tf.Module):
        paths = value._flatten(predicate=lambda v: isinstance(v, tf.Variable), with_path=True, expand_composites=True)
        yield from ((prefix + ".".join(map(str, path)), v) for path, v in paths)
        yield from _of_keras(value, prefix)
    elif _is_tracked(value):
        yield from _of_keras(value, prefix)
    elif depth and (isinstance(value, (list, tuple)) or _is_plain(value)):
        items = enumerate(value) if isinstance(value, (list, tuple)) else vars(value).items()
        for name, attribute in items:
            yield from _variables(attribute, f"{prefix}{name}.", depth - 1)


def _of_keras(layer: Any, prefix: str) -> Iterator[tuple[str, tf.Variable]]:
    for v in getattr(layer, "variables", ()):
        variable = _unwrapped(v)
        if variable is not None:
            path = str(getattr(v, "path", variable.name)).split(":")[0]
            yield prefix + path.replace("/", "."), variable


def _unwrapped(value: Any) -> tf.Variable | None:
    """The variable itself, or the one inside a Keras variable."""
    if isinstance(value, tf.Variable):
        return value
    inner = getattr(value, "_value", None) if type(value).__module__.startswith("keras.") else None
    return inner if isinstance(inner, tf.Variable) else None


def _is_tracked(value: Any) -> bool:
    """Whether this is an object that lists its own variables: a tf.Module or a Keras layer."""
    return isinstance(value, tf.Module) or isinstance(getattr(type(value), "variables", None), property)


def _is_of_keras(value: Any) -> bool:
    """Whether this is an object of Keras such as a loss or a generator of seeds, which may hold variables."""
    return type(value).__module__.startswith("keras.") and _is_plain(value)


def _is_plain(value: Any) -> bool:
    """Whether this is an object of the user's or a Keras loss: it has attributes of its own and is neither a module nor a function."""
    if isinstance(value, (type, tf.Tensor, tf.Variable)) or inspect.isroutine(value) or inspect.ismodule(value):
        return False
    return hasattr(value, "__dict__") and not _is_tracked(value)
