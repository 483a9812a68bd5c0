"""The `tf.where` trap, and why it shows up only once the loss is compiled.

What people write: `tf.where(x > 0, tf.math.log(x), 0)` or the same with `tf.sqrt(x)`.
What they ask: "the bad branch is masked, the loss is finite, and still the gradient is NaN"; "it worked until I set jit_compile=True".
Published: both branches are differentiated; mask the argument too.
Measured: the logarithm's gradient is NaN at 0 in every mode. The root's is 0 there in eager mode and in `tf.function`, since TensorFlow's
own kernel takes 0 / 0 for 0 in the gradient of a root, and NaN with XLA, which divides. The double `where` is finite everywhere.
"""

import tensorflow as tf

MODES = ("eager", "function", "xla")
DOMAINS = {"x": "real(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "masked-branch-gradient"),
        "float16": ("unsafe", "masked-branch-gradient"),
        "bfloat16": ("unsafe", "masked-branch-gradient"),
    },
    "root": {
        "float32": ("unsafe", "masked-branch-gradient"),
        "float16": ("unsafe", "masked-branch-gradient"),
        "bfloat16": ("unsafe", "masked-branch-gradient"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
FAILS_IN = {"root": ("xla",)}
WARNINGS = {
    "repaired": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {"loss": {"x": 0.0}, "root": {"x": -1.0}}


def loss(x):
    return tf.reduce_mean(tf.where(x > 0, tf.math.log(x), tf.zeros_like(x)))


def root(x):
    return tf.reduce_mean(tf.where(x > 0, tf.sqrt(x), tf.zeros_like(x)))


def repaired(x):
    safe = tf.where(x > 0, x, tf.ones_like(x))
    return tf.reduce_mean(tf.where(x > 0, tf.sqrt(safe), tf.zeros_like(x)))
