"""Cross-entropy as the logarithm of `tf.nn.softmax`, against the built-in loss of logits.

What people write: `-tf.reduce_sum(t * tf.math.log(tf.nn.softmax(x)))`, as the first tutorials did.
What they ask: "the loss is NaN after a few hundred steps".
Published: add 1e-10 inside the logarithm.
Measured: inf where a logit lies 86.7 below another in float32 (87.4 with XLA): both flush subnormal numbers. Without that it would last
until 104, as in PyTorch. 1e-10 is finite in float32 and bfloat16, with the gradient exactly 0 on the worst mistakes; in float16 it is 0
itself. `softmax_cross_entropy_with_logits` is right in all formats and modes.
"""

import tensorflow as tf

DOMAINS = {"x": "logit(8, 4)", "t": "onehot(8, 4)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "log-of-zero"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
    "epsilon": {
        "float32": ("safe", None),
        "float16": ("unsafe", "epsilon-rounds-away"),
        "bfloat16": ("safe", None),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {
    "loss": {"x": [[-100.0, 100.0, 0.0, 0.0]], "t": [[1.0, 0.0, 0.0, 0.0]]},
    "epsilon": {"x": [[-100.0, 100.0, 0.0, 0.0]], "t": [[1.0, 0.0, 0.0, 0.0]]},
}


def loss(x, t):
    return tf.reduce_mean(-tf.reduce_sum(t * tf.math.log(tf.nn.softmax(x)), axis=-1))


def epsilon(x, t):
    return tf.reduce_mean(-tf.reduce_sum(t * tf.math.log(tf.nn.softmax(x) + 1e-10), axis=-1))


def repaired(x, t):
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=t, logits=x))
