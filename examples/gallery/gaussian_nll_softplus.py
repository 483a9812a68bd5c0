"""Gaussian negative log-likelihood with the variance softplus(s).

What people write: `var = F.softplus(s)`, since softplus is always positive.
What they ask: "the variance is positive by construction, and still NaN".
Published: softplus makes the variance positive.
Measured: softplus(-100) is 3.8e-44 in float32, whose reciprocal is inf, and 0 in float16 and bfloat16. A floor of 1e-3 under
it is finite in float32 and bfloat16; in float16 (t - mu)^2 / 1e-3 overflows on this domain, a floor of 0.1 does not.
"""

import torch
from torch.nn import functional as F

DOMAINS = {"mu": "real(8, 1, low=-10, high=10)", "s": "logit(8, 1)", "t": "real(8, 1, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "underflow-then-divide"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
    "floor_1e3": {"float32": ("safe", None), "float16": ("unsafe", "product-overflow"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {
    "loss": {"mu": -10.0, "s": -100.0, "t": 10.0},
    "floor_1e3": {"mu": -10.0, "s": -100.0, "t": 10.0},
}


def nll(mu, var, t):
    return 0.5 * (torch.log(var) + (t - mu) ** 2 / var).mean()


def loss(mu, s, t):
    return nll(mu, F.softplus(s), t)


def floor_1e3(mu, s, t):
    return nll(mu, F.softplus(s) + 1e-3, t)


def repaired(mu, s, t):
    return nll(mu, F.softplus(s) + 0.1, t)
