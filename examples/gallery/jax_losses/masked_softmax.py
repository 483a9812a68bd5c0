"""Attention scores masked with -inf.

What people write: `jax.nn.softmax(jnp.where(mask, x, -jnp.inf))`.
What they ask: "NaN for padded rows".
Published: use -1e9 instead of -inf.
Measured: a row without any true entry is NaN in every format. -1e9 is finite in float32 and bfloat16, and in float16 it is -inf again.
`jnp.finfo(x.dtype).min` is finite in all three, and so is `jax.nn.softmax(x, where=mask)`, which gives 0 for such a row.
"""

import jax
import jax.numpy as jnp

DOMAINS = {"x": "real(8, 4, low=-10, high=10)", "mask": "mask(8, 4)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "all-masked-softmax"),
        "float16": ("unsafe", "all-masked-softmax"),
        "bfloat16": ("unsafe", "all-masked-softmax"),
    },
    "minus_1e9": {"float32": ("safe", None), "float16": ("unsafe", "all-masked-softmax"), "bfloat16": ("undecided", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("undecided", None)},
}
WITNESS = {"loss": {"x": 0.0, "mask": 0.0}, "minus_1e9": {"x": 0.0, "mask": 0.0}}


def loss(x, mask):
    return (jax.nn.softmax(jnp.where(mask, x, -jnp.inf), axis=-1) * x).sum()


def minus_1e9(x, mask):
    return (jax.nn.softmax(jnp.where(mask, x, -1e9), axis=-1) * x).sum()


def repaired(x, mask):
    return (jax.nn.softmax(jnp.where(mask, x, jnp.finfo(x.dtype).min), axis=-1) * x).sum()
