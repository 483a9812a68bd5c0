"""Keras's cosine similarity of a zero vector.

What people write: `keras.losses.CosineSimilarity()` on embeddings that padding makes zero.
What they ask: "NaN gradients, but only on the GPU or with jit_compile=True".
Published: Keras normalises with an epsilon of 1e-12, so zero is fine.
Measured: finite in eager mode and in `tf.function`, with gradients of 1e6 for a batch of 8. With XLA it is NaN at 0: the epsilon is a
minimum behind the reciprocal root, whose gradient TensorFlow's own kernel takes for 0 where the minimum drops it, and XLA does not. In
float16 the gradient is cast back and is inf. A norm with 1e-4 under the root is finite in all modes.
"""

import keras
from keras import ops

MODES = ("eager", "function", "xla")
DOMAINS = {"a": "real(8, 4, low=-10, high=10)", "b": "real(8, 4, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "masked-branch-gradient"),
        "float16": ("unsafe", "cast-overflow"),
        "bfloat16": ("unsafe", "masked-branch-gradient"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("undecided", None), "bfloat16": ("safe", None)},
}
FAILS_IN = {"loss": {"float32": ("xla",), "bfloat16": ("xla",)}}
WITNESS = {"loss": {"a": 0.0, "b": 1.0}}


def loss(a, b):
    return keras.losses.CosineSimilarity()(a, b)


def unit(x):
    return x / ops.sqrt(ops.maximum(ops.sum(x * x, axis=-1, keepdims=True), 1e-4))


def repaired(a, b):
    return -ops.mean(ops.sum(unit(a) * unit(b), axis=-1))
