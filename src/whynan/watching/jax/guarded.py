"""A step with the look inside of its compiled program.

On the CPU that is all: the host reads the numbers and chooses (`looked`). On devices that nobody should wait for, and whose memory has no
room for two states, the choice is in the program, too (`guarded`).

The old state then takes the place of the new one in the program itself, so that it is safe even where its memory has been given away. The
verdict stays on the device. Steps that follow a bad one are held back as well (`latch`), until the host has read the verdict: it reads a
few steps late, and the state is still the one before the bad step.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp

from whynan.frontends.jax.inside import apart, jitted_like, undonated
from whynan.watching.jax.sums import summed_squares
from whynan.watching.jax.wiring import Wiring, is_array, is_floating


@dataclass(slots=True, eq=False)
class Pending:
    """A step whose verdict has not been read: its arguments without the state, and on the device what is to be read.

    The `numbers` are 1 for a bad step, else 0, the loss, the sum of the squares of the state, and the gradients' norm.
    """

    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    numbers: Any  # an array; JAX's type does not tell that it can be asked whether it is there

    def ready(self) -> bool:
        """Whether reading the numbers would not wait."""
        return bool(self.numbers.is_ready())


def looked(step: Callable[..., Any], wiring: Wiring) -> Callable[..., Any]:
    """The jitted step as a function of its own arguments: its result, and the numbers. Donates nothing.

    The first number is not 0 where loss or state should be looked at more closely, or an optimizer in the step has left its update out.
    """

    def body(*args: Any, **kwargs: Any) -> Any:
        # what reads the results must not melt into what makes them: XLA would round that otherwise
        out = apart(step(*args, **kwargs))
        new, old = wiring.changed(out), wiring.state(args, kwargs)
        bad, loss, squares, norm = _numbers(wiring, _dropped(wiring, new, old), out, new)
        known = squares if wiring.loss is None else squares + loss
        return out, jnp.stack([bad + known * 0, loss, squares, norm])

    made: Callable[..., Any] = undonated(step, body)
    return made


def guarded(step: Callable[..., Any], wiring: Wiring, sticky: bool) -> Callable[..., Any]:
    """The step as a compiled function of the latch and its own arguments: its result, guarded, the new latch, and the numbers.

    Arguments that `step` donates are donated. With `sticky` the step changes nothing when the latch is on.
    """

    def body(latch: Any, *args: Any, **kwargs: Any) -> Any:
        out = step(*args, **kwargs)
        new, old = wiring.changed(out), wiring.state(args, kwargs)
        bad = jnp.logical_not(_sound(wiring, out, new, old))
        held = jnp.logical_or(bad, latch) if sticky else bad
        numbers = jnp.stack(_numbers(wiring, held, out, new))
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
    return jnp.stack([*fine, ~_dropped(wiring, new, old)]).all()


def _dropped(wiring: Wiring, new: Sequence[Any], old: Sequence[Any]) -> Any:
    """Whether an optimizer in the step has counted an update that it left out."""
    if not wiring.dropped:
        return jnp.asarray(False)
    after, before = jax.tree.leaves(new), jax.tree.leaves(old)
    return jnp.stack([jnp.max(after[i]) > jnp.max(before[i]) for i in wiring.dropped]).any()


def _numbers(wiring: Wiring, bad: Any, out: Any, new: Sequence[Any]) -> list[Any]:
    leaves = jax.tree.leaves(new)
    squares = summed_squares([leaves[i] for i in wiring.counted])
    return [bad.astype(jnp.float32), _number(wiring.loss_of(out)), squares, _number(wiring.norm_of(out))]


def _number(value: Any) -> Any:
    return jnp.float32(jnp.nan) if value is None else jnp.reshape(value, ()).astype(jnp.float32)
