"""The Dice loss as a class of one's own, and Keras's.

What people write: `1 - 2 * sum(t * p) / (sum(t) + sum(p))` in a `Loss`.
What they ask: "NaN on images without any object".
Published: `keras.losses.Dice` guards it.
Measured: by hand an empty mask is 0 / 0: NaN in every format and mode. `keras.losses.Dice` adds 1e-7 to the denominator
and is finite in all three, but an empty mask costs 1 whatever is predicted, with the gradient 0. With smooth = 1 it costs 0 if nothing is
predicted, and has a gradient.
"""

import keras
from keras import ops

DOMAINS = {"p": "prob(1, 16)", "t": "binary(1, 16)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "zero-over-zero"),
        "float16": ("unsafe", "zero-over-zero"),
        "bfloat16": ("unsafe", "zero-over-zero"),
    },
    "built_in": {"float32": ("safe", None), "float16": ("undecided", None), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"p": 0.0, "t": 0.0}}


class Dice(keras.losses.Loss):
    def __init__(self, smooth=0.0):
        super().__init__()
        self.smooth = smooth

    def call(self, t, p):
        shared = ops.sum(t * p, axis=-1)
        return 1 - (2 * shared + self.smooth) / (ops.sum(t, axis=-1) + ops.sum(p, axis=-1) + self.smooth)


def loss(p, t):
    return Dice()(t, p)


def built_in(p, t):
    return keras.losses.Dice()(t, p)


def repaired(p, t):
    return Dice(smooth=1.0)(t, p)
