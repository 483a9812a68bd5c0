"""The Euclidean distance of two embeddings with `jnp.linalg.norm`.

What people write: `jnp.linalg.norm(a - b, axis=-1)`.
What they ask: "jax.grad of the norm at zero is NaN".
Published: use the built-in norm instead of a root by hand.
Measured: the built-in is the root of a sum of squares: NaN at a = b in every format, where PyTorch's norm has gradient 0. A double `where`
around it gives 0 there.
"""

import jax.numpy as jnp

DOMAINS = {"a": "real(8, 4, low=-10, high=10)", "b": "real(8, 4, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "norm-grad-at-zero"),
        "float16": ("unsafe", "norm-grad-at-zero"),
        "bfloat16": ("unsafe", "norm-grad-at-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"a": 1.0, "b": 1.0}}


def loss(a, b):
    return jnp.linalg.norm(a - b, axis=-1).mean()


def repaired(a, b):
    squares = jnp.sum((a - b) ** 2, axis=-1)
    safe = jnp.where(squares > 1e-4, squares, 1)
    return jnp.where(squares > 1e-4, jnp.sqrt(safe), 0).mean()
