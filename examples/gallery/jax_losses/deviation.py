"""The standard deviation of a batch with `jnp.std`.

What people write: `jnp.std(x)` in a variance loss.
What they ask: "NaN gradient on a constant batch".
Published: use the built-in instead of the root of the variance.
Measured: the built-in is the root of the variance: its gradient on a constant batch is NaN in every format. A maximum under the root is
finite.
"""

import jax.numpy as jnp

DOMAINS = {"x": "real(8, 1, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "sqrt-grad-at-zero"),
        "float16": ("unsafe", "sqrt-grad-at-zero"),
        "bfloat16": ("unsafe", "sqrt-grad-at-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"x": 1.0}}


def loss(x):
    return jnp.std(x)


def repaired(x):
    return jnp.sqrt(jnp.maximum(jnp.var(x), 1e-4))
