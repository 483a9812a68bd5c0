"""Clipping an input, and clipping a result, with `tf.clip_by_value`.

What people write: `tf.sqrt(tf.clip_by_value(x, 0., 1.))` "so that the root is defined", or the clip around the logarithm.
What they ask: "I clip, the value is finite, and the gradient is not".
Published: clip_by_value protects the loss.
Measured: the root's value is finite and its gradient at 0 is inf, since the clip lets the gradient pass at its own ends. Clipped behind the
logarithm, x = 0 has the gradient NaN: 0 * inf. With a lower end above 0 both are finite, and the gradient is 0 below it.
"""

import tensorflow as tf

DOMAINS = {"x": "real(8, 1, low=-1, high=2)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "sqrt-grad-at-zero"),
        "float16": ("unsafe", "sqrt-grad-at-zero"),
        "bfloat16": ("unsafe", "sqrt-grad-at-zero"),
    },
    "behind": {
        "float32": ("unsafe", "log-of-negative"),
        "float16": ("unsafe", "log-of-negative"),
        "bfloat16": ("unsafe", "log-of-negative"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {"float32": ("clamp-kills-gradient",), "float16": ("clamp-kills-gradient",), "bfloat16": ("clamp-kills-gradient",)},
}
WITNESS = {"loss": {"x": 0.0}, "behind": {"x": -1.0}}


def loss(x):
    return tf.reduce_mean(tf.sqrt(tf.clip_by_value(x, 0.0, 1.0)))


def behind(x):
    return tf.reduce_mean(-tf.clip_by_value(tf.math.log(x), -100.0, 0.0))


def repaired(x):
    return tf.reduce_mean(tf.sqrt(tf.clip_by_value(x, 1e-3, 1.0)))
