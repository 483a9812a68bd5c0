"""The computation that is run and recorded: a loss's floating results and the gradients of their sum, as one JAX function."""

import inspect
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp

from whynan.frontends.jax.arrays import floating
from whynan.frontends.jax.inside import standing
from whynan.frontends.jax.places import in_user_code

Target = Callable[..., Any]
Step = Callable[..., tuple[list[Any], list[Any]]]


def caller(target: Target, static: Mapping[str, Any], names: Sequence[str]) -> Callable[..., list[Any]]:
    """The loss as a function of the arrays of those names, in order, to its floating results; the other arguments are fixed."""
    positional = _positional_only(target)

    def results(*arrays: Any) -> list[Any]:
        given = {**static, **dict(zip(names, arrays, strict=True))}
        first = [given.pop(name) for name in positional if name in given]
        return floating(target(*first, **given))

    return results


def step_of(loss: Callable[..., list[Any]], names: Sequence[str], wrt: Sequence[str], name: str) -> Step:
    """The function of all arrays to the floating results and the gradients of their sum by `wrt`.

    It has the loss's name and arguments' names, so that JAX's own messages speak of them.
    """
    varied = [names.index(n) for n in wrt]

    def step(*arrays: Any) -> tuple[list[Any], list[Any]]:
        def along(*leaves: Any) -> list[Any]:
            moved = dict(zip(varied, leaves, strict=True))
            return loss(*(moved.get(i, a) for i, a in enumerate(arrays)))

        if not varied:
            return loss(*arrays), []
        results, pull = jax.vjp(along, *(arrays[i] for i in varied))
        with standing(in_user_code):
            return results, list(pull([jnp.ones_like(r) for r in results]))

    step.__name__ = step.__qualname__ = name
    parameters = [inspect.Parameter(n, inspect.Parameter.POSITIONAL_OR_KEYWORD) for n in names]
    vars(step)["__signature__"] = inspect.Signature(parameters)
    return step


def _positional_only(target: Target) -> tuple[str, ...]:
    try:
        signature = inspect.signature(target)
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_ONLY)
