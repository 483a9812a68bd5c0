"""A sigmoid at the end of the model and `from_logits=True` in the loss.

What people write: a model that ends in `tf.sigmoid`, with `BinaryCrossentropy(from_logits=True)`.
What they ask: "the loss does not fall below 0.31 for ones and 0.69 for zeros".
Published: from_logits=True is more stable, so use it.
Measured: finite in all formats. In eager mode the sigmoid is applied twice: a sure and right 1 costs 0.3133, a sure and right 0 costs
0.6931, and the gradient by the logit is below 1e-8 from |z| = 20 on. In `tf.function` Keras sees the sigmoid in the graph, warns, and takes
its input: the same source is another loss. TensorFlow's own loss applies it twice in both.
"""

import keras
import tensorflow as tf

DOMAINS = {"z": "logit(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
    "by_tensorflow": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "loss": {"float32": ("double-softmax",), "float16": ("double-softmax",), "bfloat16": ("double-softmax",)},
    "by_tensorflow": {"float32": ("double-softmax",), "float16": ("double-softmax",), "bfloat16": ("double-softmax",)},
}


def loss(z, t):
    return keras.losses.BinaryCrossentropy(from_logits=True)(t, tf.sigmoid(z))


def by_tensorflow(z, t):
    return tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=t, logits=tf.sigmoid(z)))


def repaired(z, t):
    return keras.losses.BinaryCrossentropy(from_logits=True)(t, z)
