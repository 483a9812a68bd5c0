"""Binary cross-entropy of `jax.nn.sigmoid`, against optax's loss of logits.

What people write: `-(t * jnp.log(jax.nn.sigmoid(x)) + (1 - t) * jnp.log(1 - jax.nn.sigmoid(x)))`.
What they ask: "NaN once the model is sure".
Published: a sigmoid is never 0 or 1.
Measured: at x = 100 it is 1, and the loss NaN, in every format. `optax.losses.sigmoid_binary_cross_entropy` is finite in all three.
"""

import jax
import jax.numpy as jnp
import optax

DOMAINS = {"x": "logit(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "log-of-zero"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"x": 100.0, "t": 1.0}}


def loss(x, t):
    p = jax.nn.sigmoid(x)
    return -(t * jnp.log(p) + (1 - t) * jnp.log(1 - p)).mean()


def repaired(x, t):
    return optax.losses.sigmoid_binary_cross_entropy(x, t).mean()
