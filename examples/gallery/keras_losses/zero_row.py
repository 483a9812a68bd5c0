"""Keras's categorical cross-entropy of a row without any probability.

What people write: `CategoricalCrossentropy()` on masked, thresholded or relu outputs.
What they ask: "Keras clips, and still the loss is NaN".
Published: the clip by epsilon() protects every logarithm.
Measured: before the clip a row is divided by its sum, and 0 / 0 is NaN, which no clip removes: in every format and mode. With p raised
to 1e-4 it is finite.
"""

import keras
from keras import ops

DOMAINS = {"p": "prob(8, 3)", "t": "onehot(8, 3)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "zero-over-zero"),
        "float16": ("unsafe", "zero-over-zero"),
        "bfloat16": ("unsafe", "zero-over-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("undecided", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {"float32": ("clamp-kills-gradient",), "float16": ("clamp-kills-gradient",), "bfloat16": ("clamp-kills-gradient",)},
}
WITNESS = {"loss": {"p": 0.0, "t": [[1.0, 0.0, 0.0]]}}


def loss(p, t):
    return keras.losses.CategoricalCrossentropy()(t, p)


def repaired(p, t):
    return keras.losses.CategoricalCrossentropy()(t, ops.maximum(p, 1e-4))
