"""An epsilon behind a difference: log(1 - p + 1e-8), in eager mode and compiled.

What people write: `-tf.math.log(1 - p + 1e-8)` for the class 0.
What they ask: "fine in the notebook, inf in model.fit".
Published: the epsilon keeps the logarithm finite.
Measured: at p = 1 it is 18.42 in eager float32. In `tf.function` and with XLA it is inf: both compute (1 + 1e-8) - p, and 1 + 1e-8 is 1.
In bfloat16 neither
moves it; in float16 1e-8 is 0. A maximum cannot be moved: log(max(1 - p, 1e-4)) is finite in all formats and modes.
"""

import tensorflow as tf

MODES = ("eager", "function", "xla")
DOMAINS = {"p": "prob(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "epsilon-removed-by-compiler"),
        "float16": ("unsafe", "epsilon-rounds-away"),
        "bfloat16": ("safe", None),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
FAILS_IN = {"loss": {"float32": ("function", "xla")}}
WARNINGS = {
    "loss": {"bfloat16": ("steep-gradient",)},
    "repaired": {"float32": ("clamp-kills-gradient",), "float16": ("clamp-kills-gradient",), "bfloat16": ("clamp-kills-gradient",)},
}
WITNESS = {"loss": {"p": 1.0}}


def loss(p):
    return tf.reduce_mean(-tf.math.log(1 - p + 1e-8))


def repaired(p):
    return tf.reduce_mean(-tf.math.log(tf.maximum(1 - p, 1e-4)))
