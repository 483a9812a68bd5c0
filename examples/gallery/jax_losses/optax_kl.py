"""optax's Kullback-Leibler divergence of log-probabilities made by hand.

What people write: `optax.losses.kl_divergence(jnp.log(p), t)`.
What they ask: "NaN when a predicted probability is 0, even where the target is 0 too".
Published: the loss treats a zero target as 0.
Measured: it does so for log(t); the product 0 * log(p) is still 0 * -inf at p = t = 0: NaN in every format. With p raised to
1e-4 it is finite.
"""

import jax.numpy as jnp
import optax

DOMAINS = {"p": "prob(8, 4)", "t": "onehot(8, 4)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "log-of-zero"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {"float32": ("clamp-kills-gradient",), "float16": ("clamp-kills-gradient",), "bfloat16": ("clamp-kills-gradient",)},
}
WITNESS = {"loss": {"p": 0.0, "t": [[1.0, 0.0, 0.0, 0.0]]}}


def loss(p, t):
    return optax.losses.kl_divergence(jnp.log(p), t).mean()


def repaired(p, t):
    return optax.losses.kl_divergence(jnp.log(jnp.maximum(p, 1e-4)), t).mean()
