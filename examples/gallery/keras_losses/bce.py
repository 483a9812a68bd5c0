"""Keras's binary cross-entropy of probabilities, as an object and as a function.

What people write: `keras.losses.BinaryCrossentropy()` or `keras.losses.binary_crossentropy`, with mixed precision.
What they ask: "NaN only with mixed_float16".
Published: Keras clips by epsilon() = 1e-7, so it cannot fail.
Measured: true in float32. The object casts to float32 first, where the clip holds, but in float16 the gradient at p = 1.2e-7 is cast back
and is inf. The function computes in the format it is given, where 1 - 1e-7 is 1: inf at p = 1 in float16 and bfloat16.
"""

import keras

DOMAINS = {"p": "prob(16, 1)", "t": "binary(16, 1)"}
EXPECTED = {
    "loss": {"float32": ("safe", None), "float16": ("unsafe", "cast-overflow"), "bfloat16": ("safe", None)},
    "function": {
        "float32": ("safe", None),
        "float16": ("unsafe", "epsilon-rounds-away"),
        "bfloat16": ("unsafe", "epsilon-rounds-away"),
    },
}
WARNINGS = {
    "loss": {"float32": ("clamp-kills-gradient",), "bfloat16": ("clamp-kills-gradient",)},
    "function": {"float32": ("clamp-kills-gradient",)},
}
WITNESS = {"loss": {"p": 1.2e-7, "t": 1.0}, "function": {"p": 1.0, "t": 0.0}}


def loss(p, t):
    return keras.losses.BinaryCrossentropy()(t, p)


def function(p, t):
    return keras.ops.mean(keras.losses.binary_crossentropy(t, p))
