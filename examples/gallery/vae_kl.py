"""The KL term of a variational autoencoder.

What people write: -0.5 * sum(1 + logvar - mu^2 - exp(logvar)).
What they ask: "KL is inf in the first epochs".
Published: clamp logvar, for example at 10.
Measured: exp(logvar) overflows from 88.723 in float32 and 11.094 in float16. Clamped at 10 float32 and bfloat16 are finite; in float16
the sum of four exp(10) is inf. Clamped to [-5, 5] all three are finite, and beyond it logvar has no gradient.
"""

import torch

DOMAINS = {"mu": "real(8, 4, low=-10, high=10)", "logvar": "logit(8, 4)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "exp-overflow"),
        "float16": ("unsafe", "exp-overflow"),
        "bfloat16": ("unsafe", "exp-overflow"),
    },
    "clamped_at_10": {"float32": ("safe", None), "float16": ("unsafe", "sum-overflow"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "clamped_at_10": {"float32": ("clamp-kills-gradient",), "bfloat16": ("clamp-kills-gradient",)},
    "repaired": {
        "float32": ("clamp-kills-gradient",),
        "float16": ("clamp-kills-gradient",),
        "bfloat16": ("clamp-kills-gradient",),
    },
}
WITNESS = {
    "loss": {"mu": 0.0, "logvar": 100.0},
    "clamped_at_10": {"mu": 0.0, "logvar": 100.0},
}


def loss(mu, logvar):
    return -0.5 * (1 + logvar - mu**2 - torch.exp(logvar)).sum(-1).mean()


def clamped_at_10(mu, logvar):
    return loss(mu, logvar.clamp(max=10))


def repaired(mu, logvar):
    return loss(mu, logvar.clamp(-5, 5))
