"""Steps that change Flax NNX objects in place, seen as functions of the objects' state."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from whynan.watching.jax.modules import marked
from whynan.watching.jax.wiring import OBJECTS, Key, arguments, parameters

_STATE = inspect.Parameter(OBJECTS, inspect.Parameter.POSITIONAL_ONLY)


def objects(args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[Key, ...]:
    """Which arguments are NNX modules or optimizers, or a tuple, list or dictionary of nothing else."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return ()
    kinds = tuple(k for name in ("Object", "Pytree", "Module", "Optimizer") if isinstance(k := getattr(nnx, name, None), type))

    def is_object(a: Any) -> bool:
        parts = list(a.values()) if isinstance(a, dict) else a if isinstance(a, (tuple, list)) else ()
        return isinstance(a, kinds) or (bool(parts) and all(map(is_object, parts)))

    given: list[tuple[Key, Any]] = [*enumerate(args), *kwargs.items()]
    return tuple(key for key, a in given if is_object(a))


class Functional:
    """A step of NNX objects as a function of their state: `(state, *args) -> (state, result)`. The objects are those of the last call."""

    def __init__(
        self, step: Callable[..., Any], plain: Callable[..., Any], args: Sequence[Any], kwargs: Mapping[str, Any], places: Sequence[Key]
    ) -> None:
        self._nnx: Any = sys.modules["flax.nnx"]
        names = arguments(plain, args, kwargs)
        self._step, self._plain, self._places = step, plain, {key: names[key] for key in places}
        self.held: dict[str, Any] = {}

    def taken(self, args: Sequence[Any], kwargs: Mapping[str, Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
        """Hold the objects of a call from now on; its other arguments."""
        self.held = {name: args[key] if isinstance(key, int) else kwargs[key] for key, name in self._places.items()}
        rest = tuple(a for i, a in enumerate(args) if i not in self._places)
        return rest, {k: a for k, a in kwargs.items() if k not in self._places}

    def state(self) -> Any:
        """The objects' arrays as they are now; what the objects do later does not change it."""
        return jax.tree.map(lambda x: x, self._nnx.state(self.held))

    def update(self, state: Any) -> None:
        """Put arrays into the objects."""
        self._nnx.update(self.held, state)

    def run(self, state: Any, *rest: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The user's own step on the objects themselves, which then hold the new state."""
        self.update(state)
        out = self._called(self._step, self.held, rest, kwargs)
        return self.state(), out

    @property
    def pure(self) -> Callable[..., tuple[Any, Any]]:
        """The same on objects made of the state, for tracing. Its parameters are called as the step's."""

        def step_of_objects(state: Any, *rest: Any, **kwargs: Any) -> tuple[Any, Any]:
            made = self._nnx.merge(self._nnx.split(self.held)[0], state)
            marked(made)
            out = self._called(self._plain, made, rest, kwargs)
            return self._nnx.state(made), out

        named: Any = step_of_objects
        named.__signature__ = inspect.Signature([_STATE, *(p for p in parameters(self._plain) if p.name not in self._places.values())])
        return step_of_objects

    def _called(self, step: Callable[..., Any], held: Mapping[str, Any], rest: Sequence[Any], kwargs: Mapping[str, Any]) -> Any:
        """The step on these objects and the other arguments."""
        given, places = iter(rest), [key for key in self._places if isinstance(key, int)]
        args = [held[self._places[i]] if i in places else next(given) for i in range(len(rest) + len(places))]
        return step(*args, **kwargs, **{key: held[name] for key, name in self._places.items() if isinstance(key, str)})
