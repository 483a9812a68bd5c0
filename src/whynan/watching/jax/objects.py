"""Steps that change Flax NNX objects in place, seen as functions of the objects' state."""

import inspect
import sys
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax

from whynan.watching.jax.modules import marked
from whynan.watching.jax.wiring import OBJECTS, arguments, parameters

_STATE = inspect.Parameter(OBJECTS, inspect.Parameter.POSITIONAL_ONLY)


def objects(args: Sequence[Any]) -> tuple[int, ...]:
    """The positions of arguments that are NNX modules or optimizers."""
    nnx = sys.modules.get("flax.nnx")
    if nnx is None:
        return ()
    kinds = tuple(k for name in ("Object", "Pytree", "Module", "Optimizer") if isinstance(k := getattr(nnx, name, None), type))
    return tuple(i for i, a in enumerate(args) if isinstance(a, kinds))


class Functional:
    """A step of NNX objects as a function of their state: `(state, *args) -> (state, result)`. The objects are those of the first call."""

    def __init__(self, step: Callable[..., Any], plain: Callable[..., Any], args: Sequence[Any], places: Sequence[int]) -> None:
        self._nnx: Any = sys.modules["flax.nnx"]
        names = arguments(plain, args, {})
        self._step, self._plain, self._places = step, plain, {i: names[i] for i in places}
        self.held = self._held(args)

    def held_by(self, args: Sequence[Any]) -> None:
        """From now on the objects are those of this call."""
        self.held = self._held(args)

    def _held(self, args: Sequence[Any]) -> dict[str, Any]:
        return {name: args[i] for i, name in self._places.items()}

    def state(self) -> Any:
        """The objects' arrays as they are now; what the objects do later does not change it."""
        return jax.tree.map(lambda x: x, self._nnx.state(self.held))

    def update(self, state: Any) -> None:
        """Put arrays into the objects."""
        self._nnx.update(self.held, state)

    def rest(self, args: Sequence[Any]) -> tuple[Any, ...]:
        """The arguments that are no objects."""
        return tuple(a for i, a in enumerate(args) if i not in self._places)

    def run(self, state: Any, *rest: Any, **kwargs: Any) -> tuple[Any, Any]:
        """The user's own step on the objects themselves, which then hold the new state."""
        self.update(state)
        out = self._step(*self._together(self.held, rest), **kwargs)
        return self.state(), out

    @property
    def pure(self) -> Callable[..., tuple[Any, Any]]:
        """The same on objects made of the state, for tracing. Its parameters are called as the step's."""

        def step_of_objects(state: Any, *rest: Any, **kwargs: Any) -> tuple[Any, Any]:
            made = self._nnx.merge(self._nnx.split(self.held)[0], state)
            marked(made.values())
            out = self._plain(*self._together(made, rest), **kwargs)
            return self._nnx.state(made), out

        named: Any = step_of_objects
        named.__signature__ = inspect.Signature([_STATE, *(p for p in parameters(self._plain) if p.name not in self.held)])
        return step_of_objects

    def _together(self, held: Mapping[str, Any], rest: Sequence[Any]) -> list[Any]:
        given = iter(rest)
        return [held[self._places[i]] if i in self._places else next(given) for i in range(len(rest) + len(self._places))]
