"""A softmax at the end of the model and `from_logits=True` in the loss.

What people write: a model that ends in `tf.nn.softmax`, with `CategoricalCrossentropy(from_logits=True)`.
What they ask: "the loss is stuck at 0.55 although the accuracy is 100 %".
Published: from_logits=True is more stable, so use it.
Measured: finite in all formats. In eager mode, of three classes, a sure and right one costs 0.5514 and a sure and wrong one 1.5514; on both
the gradient is exactly 0. In `tf.function` Keras sees the softmax in the graph, warns, and takes its input: 0 and 200. TensorFlow's own
loss applies it twice in both.
"""

import keras
import tensorflow as tf

DOMAINS = {"z": "logit(8, 3)", "t": "onehot(8, 3)"}
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
    return keras.losses.CategoricalCrossentropy(from_logits=True)(t, tf.nn.softmax(z))


def by_tensorflow(z, t):
    return tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(labels=t, logits=tf.nn.softmax(z)))


def repaired(z, t):
    return keras.losses.CategoricalCrossentropy(from_logits=True)(t, z)
