"""Gaussian negative log-likelihood with a predicted log-variance.

What people write: 0.5 * (s + (t - mu)^2 * exp(-s)), the form that needs no division.
What they ask: "I predict the log-variance as advised, and the loss is inf".
Published: predicting the log-variance is numerically stable.
Measured: it moves the failure: exp(-s) overflows for s below -88.72 in float32 and below -11.09 in float16; at mu = t the loss is
NaN (0 * inf). With s clamped to [-5, 5] all formats are finite, and s beyond it gets no gradient.
"""

import torch

DOMAINS = {"mu": "real(8, 1, low=-10, high=10)", "s": "logit(8, 1)", "t": "real(8, 1, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "exp-overflow"),
        "float16": ("unsafe", "exp-overflow"),
        "bfloat16": ("unsafe", "exp-overflow"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {
        "float32": ("clamp-kills-gradient",),
        "float16": ("clamp-kills-gradient",),
        "bfloat16": ("clamp-kills-gradient",),
    },
}
WITNESS = {"loss": {"mu": 0.0, "s": -100.0, "t": 0.0}}


def loss(mu, s, t):
    return 0.5 * (s + (t - mu) ** 2 * torch.exp(-s)).mean()


def repaired(mu, s, t):
    return loss(mu, s.clamp(-5, 5), t)
