"""An optax transformation around an optimizer that lets no bad update through and counts them, without leaving the compiled step.

`optax.apply_if_finite` applies the update after so many bad ones in a row, so that the parameters become NaN in the end. Here no bad
update is ever applied: what to do about many of them is decided outside, by `in_a_row` or by `whynan.watch` around the step.
"""

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax


class GuardState(NamedTuple):
    """The state of a guarded optimizer: its own, how many updates were dropped so far, and how many in a row until now (int32)."""

    inner_state: Any
    bad_steps: jax.Array
    in_a_row: jax.Array


def guard(optimizer: optax.GradientTransformation, *, check_updates: bool = True) -> optax.GradientTransformationExtraArgs:
    """The optimizer, whose updates are zero and whose state stays as it is whenever a gradient is not finite.

    With `check_updates` the same goes for updates that the optimizer itself makes non-finite out of finite gradients; without, that look
    at the updates is saved. The count grows by one for each dropped update, whatever the reason. Where devices hold different gradients
    (`pmap` without a mean over them), each decides for itself: guard what is left after the mean.
    """
    inner = optax.with_extra_args_support(optimizer)

    def init(params: optax.Params) -> GuardState:
        return GuardState(inner.init(params), *(jnp.zeros((), jnp.int32) for _ in range(2)))  # not one array twice: steps may donate them

    def update(
        updates: optax.Updates, state: optax.OptState, params: optax.Params | None = None, **extra: Any
    ) -> tuple[optax.Updates, GuardState]:
        assert isinstance(state, GuardState)
        fine = _all_finite(updates)
        made, changed = inner.update(updates, state.inner_state, params, **extra)
        if check_updates:
            fine = fine & _all_finite(made)
        # a choice by elements, not lax.cond: it melts into the optimizer's own loops, and devices that differ cannot block each other
        kept = jax.tree.map(lambda u: jnp.where(fine, u, jnp.zeros_like(u)), made)
        after = jax.tree.map(lambda new, old: jnp.where(fine, new, old), changed, state.inner_state)
        bad = jnp.where(fine, 0, 1).astype(jnp.int32)
        return kept, GuardState(after, state.bad_steps + bad, (state.in_a_row + bad) * bad)

    return optax.GradientTransformationExtraArgs(init, update)


def bad_steps(state: Any) -> Any:
    """How many updates were dropped so far: of all guards in an optimizer's state, or in anything that holds one (a `TrainState`).

    A Python number; inside of a compiled function an array. Of a replicated state the largest count. 0 if there is no guard.
    """
    return _number([s.bad_steps for s in _guards(state)], jnp.sum)


def in_a_row(state: Any) -> Any:
    """How many updates in a row were dropped until now; of several guards the largest number. As `bad_steps`."""
    return _number([s.in_a_row for s in _guards(state)], jnp.max)


def _guards(state: Any) -> list[GuardState]:
    found = jax.tree.leaves(state, is_leaf=lambda s: isinstance(s, GuardState))
    return [g for s in found if isinstance(s, GuardState) for g in (s, *_guards(s.inner_state))]


def _number(counts: list[jax.Array], joined: Any) -> Any:
    if not counts:
        return 0
    if any(isinstance(c, jax.core.Tracer) for c in counts):
        return joined(jnp.stack([jnp.max(c) for c in counts]))
    return int(joined(np.asarray([np.max(np.asarray(c)) for c in counts])))


def _all_finite(tree: Any) -> jax.Array:
    floats = [leaf for leaf in jax.tree.leaves(tree) if jnp.issubdtype(jnp.result_type(leaf), jnp.inexact)]
    return jnp.stack([jnp.isfinite(leaf).all() for leaf in floats]).all() if floats else jnp.asarray(True)
