"""The root of Keras's mean squared error, as a loss class.

What people write: a `Loss` whose `call` returns `ops.sqrt(ops.mean(ops.square(y_true - y_pred)))`.
What they ask: "NaN when the model is perfect, for example in an overfitting test".
Published: it is the metric RootMeanSquaredError, so it may be a loss.
Measured: where prediction and target agree, the loss is 0 and the gradient NaN in every format and mode. A maximum under the
root is finite.
"""

import keras
from keras import ops

DOMAINS = {"p": "real(8, 1, low=-10, high=10)", "t": "real(8, 1, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "sqrt-grad-at-zero"),
        "float16": ("unsafe", "sqrt-grad-at-zero"),
        "bfloat16": ("unsafe", "sqrt-grad-at-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"p": 1.0, "t": 1.0}}


class RootMeanSquare(keras.losses.Loss):
    def call(self, t, p):
        return ops.sqrt(ops.mean(ops.square(t - p), axis=-1))


class Floored(keras.losses.Loss):
    def call(self, t, p):
        return ops.sqrt(ops.maximum(ops.mean(ops.square(t - p), axis=-1), 1e-4))


def loss(p, t):
    return RootMeanSquare()(t, p)


def repaired(p, t):
    return Floored()(t, p)
