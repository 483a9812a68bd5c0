"""A loss that replaces its own NaN by 0, the way it is done with `tf.math.is_nan`.

What people write: `tf.where(tf.math.is_nan(each), 0., each)` before the mean (often as `tf.debugging.is_nan`, which does not exist).
What they ask: "the loss is fine, yet all weights become NaN".
Published: replacing the NaN cures it.
Measured: at p = t = 0 the loss reads 0 and the gradient is NaN in every format and mode, because it still passes through the log(0).
`tf.math.xlogy` is finite there, but not where t = 1 meets p = 0.
"""

import tensorflow as tf

DOMAINS = {"p": "prob(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "masked-branch-gradient"),
        "float16": ("unsafe", "masked-branch-gradient"),
        "bfloat16": ("unsafe", "masked-branch-gradient"),
    },
    "xlogy": {
        "float32": ("unsafe", "log-of-zero"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
}
WITNESS = {"loss": {"p": 0.0, "t": 0.0}, "xlogy": {"p": 0.0, "t": 1.0}}


def loss(p, t):
    each = -t * tf.math.log(p)
    each = tf.where(tf.math.is_finite(each), each, tf.zeros_like(each))
    return tf.reduce_mean(each)


def xlogy(p, t):
    return tf.reduce_mean(-tf.math.xlogy(t, p))
