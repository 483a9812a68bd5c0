"""Entropy of probabilities that may be zero, with `xlogy` and `entr`.

What people write: `-jax.scipy.special.xlogy(p, p)` or `jax.scipy.special.entr(p)`, to be safe at 0.
What they ask: "the value is 0, and the gradient NaN or inf".
Published: xlogy handles p = 0.
Measured: its value does. Its gradient by both arguments at once is NaN at p = 0, that of `entr` inf, in every format. (In TensorFlow the
gradient of xlogy(p, p) is 0 there.) With p masked inside the logarithm it is finite.
"""

import jax
import jax.numpy as jnp

DOMAINS = {"p": "prob(8, 4)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "log-of-zero"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
    "entr": {
        "float32": ("unsafe", "log-of-zero"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"p": 0.0}, "entr": {"p": 0.0}}


def loss(p):
    return -jax.scipy.special.xlogy(p, p).sum()


def entr(p):
    return jax.scipy.special.entr(p).sum()


def repaired(p):
    return -jnp.where(p > 0, p * jnp.log(jnp.where(p > 0, p, 1)), 0).sum()
