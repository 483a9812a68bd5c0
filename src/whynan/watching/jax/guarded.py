"""A step with the look and the choice inside of its compiled program: for devices that nobody should wait for, and for donated arguments.

The old state takes the place of the new one in the program itself, so that it is safe even where its memory has been given away. The
verdict stays on the device. Steps that follow a bad one are held back as well (`latch`), until the host has read the verdict: it reads a
few steps late, and the state is still the one before the bad step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from whynan.frontends.jax.inside import jitted_like
from whynan.watching.jax.wiring import Wiring, is_array, is_floating


@dataclass(slots=True, eq=False)
class Pending:
    """A step whose verdict has not been read: its number, its arguments without the state, and on the device what is to be read.

    The `numbers` are 1 for a bad step, else 0, the loss, and the sum of the squares of the state.
    """

    step: int
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    numbers: Any  # an array; JAX's type does not tell that it can be asked whether it is there

    def ready(self) -> bool:
        """Whether reading the numbers would not wait."""
        return bool(self.numbers.is_ready())


def guarded(step: Callable[..., Any], wiring: Wiring, sticky: bool) -> Callable[..., Any]:
    """The step as a compiled function of the latch and its own arguments: its result, guarded, the new latch, and the numbers.

    Arguments that `step` donates are donated. With `sticky` the step changes nothing when the latch is on.
    """

    def body(latch: Any, *args: Any, **kwargs: Any) -> Any:
        out = step(*args, **kwargs)
        new, old = wiring.changed(out), wiring.state(args, kwargs)
        bad = jnp.logical_not(_sound(wiring, out, new, old))
        held = jnp.logical_or(bad, latch) if sticky else bad
        numbers = jnp.stack([held.astype(jnp.float32), _loss(wiring, out), _squares(wiring, new)])
        return wiring.replaced(out, jax.tree.map(lambda n, o: _chosen(held, n, o), new, old)), held, numbers

    made: Callable[..., Any] = jitted_like(step, body)
    return made


def _chosen(held: Any, new: Any, old: Any) -> Any:
    if not is_array(new):
        return new
    return jnp.where(held, jnp.asarray(old, new.dtype) if not is_array(old) else old, new)


def _sound(wiring: Wiring, out: Any, new: Sequence[Any], old: Sequence[Any]) -> Any:
    """Whether loss and state are finite; an element of the state that was not finite before may stay so."""
    after, before = jax.tree.leaves(new), jax.tree.leaves(old)
    fine = [(jnp.isfinite(after[i]) | ~jnp.isfinite(before[i])).all() for i in wiring.counted if is_floating(after[i])]
    loss = wiring.loss_of(out)
    fine += [jnp.isfinite(loss).all()] if loss is not None else []
    grown = [jnp.max(after[i]) > jnp.max(before[i]) for i in wiring.dropped]
    return jnp.stack(fine + [~g for g in grown]).all() if fine or grown else jnp.asarray(True)


def _loss(wiring: Wiring, out: Any) -> Any:
    loss = wiring.loss_of(out)
    return jnp.float32(jnp.nan) if loss is None else jnp.reshape(loss, ()).astype(jnp.float32)


def _squares(wiring: Wiring, new: Sequence[Any]) -> Any:
    leaves = jax.tree.leaves(new)
    return sum((jnp.sum(jnp.square(leaves[i].astype(jnp.float32))) for i in wiring.counted), jnp.float32(0))
