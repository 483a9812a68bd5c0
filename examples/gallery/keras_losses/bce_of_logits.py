"""`BinaryCrossentropy()` on the output of a model that ends without a sigmoid.

What people write: `Dense(1)` at the end and `loss=keras.losses.BinaryCrossentropy()`.
What they ask: "the loss stays at 7.7 or so and the accuracy does not move".
Published: lower the learning rate.
Measured: nothing is ever NaN. The loss takes the logit for a probability and clips it to [1e-7, 1 - 1e-7]: outside (0, 1) the gradient is
exactly 0, and the loss of a wrong sign is 16.118, which is -log(1e-7). With from_logits=True it learns.
"""

import keras

DOMAINS = {"z": "logit(16, 1)", "t": "binary(16, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("safe", "logits-as-probabilities"),
        "float16": ("unsafe", "cast-overflow"),
        "bfloat16": ("safe", "logits-as-probabilities"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"z": 1.2e-7, "t": 1.0}}


def loss(z, t):
    return keras.losses.BinaryCrossentropy()(t, z)


def repaired(z, t):
    return keras.losses.BinaryCrossentropy(from_logits=True)(t, z)
