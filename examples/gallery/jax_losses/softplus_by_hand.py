"""softplus by hand, log1p(exp(x)), against `jax.nn.softplus`.

What people write: `jnp.log1p(jnp.exp(x))`.
What they ask: "inf for large x, gradient NaN".
Published: log1p makes it stable.
Measured: from x = 88.73 (float32) the value is inf and the gradient NaN. `jax.nn.softplus` is finite in all formats.
"""

import jax
import jax.numpy as jnp

DOMAINS = {"x": "logit(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "exp-overflow"),
        "float16": ("unsafe", "exp-overflow"),
        "bfloat16": ("unsafe", "exp-overflow"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"x": 100.0}}


def loss(x):
    return jnp.log1p(jnp.exp(x)).mean()


def repaired(x):
    return jax.nn.softplus(x).mean()
