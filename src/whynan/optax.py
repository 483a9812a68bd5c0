"""`whynan.optax.guard(optimizer)`: an optax optimizer that never applies a bad update. See `whynan.integrations.optax`."""

from whynan.integrations.optax import GuardState, bad_steps, guard, in_a_row

__all__ = ["GuardState", "bad_steps", "guard", "in_a_row"]
