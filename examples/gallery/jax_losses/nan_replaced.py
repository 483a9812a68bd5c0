"""A loss that replaces its own NaN with `jnp.nan_to_num`.

What people write: `jnp.nan_to_num(-t * jnp.log(p)).mean()`.
What they ask: "the loss is finite and the parameters are NaN after one step".
Published: nan_to_num cures a NaN loss.
Measured: at p = t = 0 the loss reads 0 and the gradient is NaN in every format. At p = 0, t = 1 the inf becomes 3.4e38, of which a mean of
eight is inf again.
"""

import jax.numpy as jnp

DOMAINS = {"p": "prob(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "masked-branch-gradient"),
        "float16": ("unsafe", "masked-branch-gradient"),
        "bfloat16": ("unsafe", "masked-branch-gradient"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {"float32": ("clamp-kills-gradient",), "float16": ("clamp-kills-gradient",), "bfloat16": ("clamp-kills-gradient",)},
}
WITNESS = {"loss": {"p": 0.0, "t": 0.0}}


def loss(p, t):
    return jnp.nan_to_num(-t * jnp.log(p), posinf=0).mean()


def repaired(p, t):
    return (-t * jnp.log(jnp.maximum(p, 1e-4))).mean()
