"""Entropy of probabilities that may be zero: p * log(p), `multiply_no_nan` and `xlogy`.

What people write: `-tf.reduce_sum(p * tf.math.log(p))`, repaired with `tf.math.multiply_no_nan(tf.math.log(p), p)`.
What they ask: "0 * log(0) is NaN".
Published: multiply_no_nan gives 0 where p is 0.
Measured: the value is then 0, and the gradient NaN in every format and mode. `tf.math.xlogy(p, p)` is 0 with gradient 0 at p = 0 (in JAX
the function of the same name has a NaN gradient there).
"""

import tensorflow as tf

DOMAINS = {"p": "prob(8, 4)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "log-of-zero"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
    "no_nan": {
        "float32": ("unsafe", "log-of-zero"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"p": 0.0}, "no_nan": {"p": 0.0}}


def loss(p):
    return -tf.reduce_sum(p * tf.math.log(p))


def no_nan(p):
    return -tf.reduce_sum(tf.math.multiply_no_nan(tf.math.log(p), p))


def repaired(p):
    return -tf.reduce_sum(tf.math.xlogy(p, p))
