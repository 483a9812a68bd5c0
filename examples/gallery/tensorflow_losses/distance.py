"""The Euclidean distance of two embeddings with `tf.norm`.

What people write: `tf.norm(a - b, axis=-1)`, in triplet and contrastive losses.
What they ask: "NaN as soon as two embeddings coincide".
Published: use the built-in norm instead of a root by hand.
Measured: `tf.norm` is the root of a sum of squares and nothing else: its gradient at a = b is NaN in every format and mode, where PyTorch's
norm has gradient 0. A maximum under the root is finite everywhere.
"""

import tensorflow as tf

DOMAINS = {"a": "real(8, 4, low=-10, high=10)", "b": "real(8, 4, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "norm-grad-at-zero"),
        "float16": ("unsafe", "norm-grad-at-zero"),
        "bfloat16": ("unsafe", "norm-grad-at-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"a": 1.0, "b": 1.0}}


def loss(a, b):
    return tf.reduce_mean(tf.norm(a - b, axis=-1))


def repaired(a, b):
    squares = tf.reduce_sum((a - b) ** 2, axis=-1)
    return tf.reduce_mean(tf.sqrt(tf.maximum(squares, 1e-4)))
