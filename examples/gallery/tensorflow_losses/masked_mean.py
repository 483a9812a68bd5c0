"""A mean over a mask, and `tf.math.divide_no_nan`.

What people write: `tf.reduce_sum(x * mask) / tf.reduce_sum(mask)`, repaired with `divide_no_nan`.
What they ask: "NaN on a batch in which everything is padded".
Published: `divide_no_nan` gives 0 there, and its gradient is safe too.
Measured: true where the denominator is 0 or at least 1, as a count is. Where it may be small, the quotient of 1 and 1e-30 still has the
gradient -inf: only an exact 0 is caught.
"""

import tensorflow as tf

DOMAINS = {"x": "real(8, 1, low=-10, high=10)", "mask": "binary(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "zero-over-zero"),
        "float16": ("unsafe", "zero-over-zero"),
        "bfloat16": ("unsafe", "zero-over-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"x": 1.0, "mask": 0.0}}


def loss(x, mask):
    return tf.reduce_sum(x * mask) / tf.reduce_sum(mask)


def repaired(x, mask):
    return tf.math.divide_no_nan(tf.reduce_sum(x * mask), tf.reduce_sum(mask))
