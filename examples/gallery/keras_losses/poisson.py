"""Keras's Poisson loss of an output that may be negative.

What people write: `loss="poisson"` on a linear output.
What they ask: "NaN in the first epoch".
Published: Keras adds its epsilon inside the logarithm.
Measured: log(p + 1e-7) is not finite from p = -1e-7 down, in every format and mode. The loss of softplus(p) is finite.
"""

import keras
from keras import ops

DOMAINS = {"p": "real(8, 1, low=-10, high=10)", "t": "nonnegative(8, 1, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "log-of-negative"),
        "float16": ("unsafe", "log-of-negative"),
        "bfloat16": ("unsafe", "log-of-negative"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"p": -0.5, "t": 1.0}}


def loss(p, t):
    return keras.losses.Poisson()(t, p)


def repaired(p, t):
    return keras.losses.Poisson()(t, ops.softplus(p))
