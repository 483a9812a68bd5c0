"""The standard deviation of a batch with `tf.math.reduce_std`.

What people write: `tf.math.reduce_std(x)` in a diversity or a variance loss.
What they ask: "NaN when all outputs are equal, right at the start".
Published: use the built-in instead of the root of the variance.
Measured: the built-in is the root of the variance: its gradient on a constant batch is NaN in every format and mode. A maximum under the
root is finite everywhere.
"""

import tensorflow as tf

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
    return tf.math.reduce_std(x)


def repaired(x):
    return tf.sqrt(tf.maximum(tf.math.reduce_variance(x), 1e-4))
