"""The `jnp.where` leak, and the double `where` that stops it.

What people write: `jnp.where(x > 0, jnp.sqrt(x), 0)`.
What they ask: "why is jax.grad of a masked function NaN?"
Published: both branches are differentiated; mask the argument too.
Measured: x <= 0 gives a NaN gradient in every format, under `jit` and without, although the loss is finite. The double `where` is finite
everywhere.
"""

import jax.numpy as jnp

MODES = ("jit", "eager")
DOMAINS = {"x": "real(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "masked-branch-gradient"),
        "float16": ("unsafe", "masked-branch-gradient"),
        "bfloat16": ("unsafe", "masked-branch-gradient"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {"loss": {"x": -1.0}}


def loss(x):
    return jnp.where(x > 0, jnp.sqrt(x), 0).mean()


def repaired(x):
    safe = jnp.where(x > 0, x, 1)
    return jnp.where(x > 0, jnp.sqrt(safe), 0).mean()
