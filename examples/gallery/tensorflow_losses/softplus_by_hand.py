"""softplus by hand, log(1 + exp(x)), against `tf.nn.softplus`.

What people write: `tf.math.log(1 + tf.exp(x))`, also as log1p.
What they ask: "inf for large outputs, then NaN".
Published: log1p makes it stable.
Measured: from x = 88.73 (float32) the value is inf and the gradient NaN, with log1p as without. `tf.nn.softplus` is finite in all formats.
"""

import tensorflow as tf

DOMAINS = {"x": "logit(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "exp-overflow"),
        "float16": ("unsafe", "exp-overflow"),
        "bfloat16": ("unsafe", "exp-overflow"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"x": 100.0}}


def loss(x):
    return tf.reduce_mean(tf.math.log1p(tf.exp(x)))


def repaired(x):
    return tf.reduce_mean(tf.nn.softplus(x))
