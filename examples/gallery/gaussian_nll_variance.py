"""Gaussian negative log-likelihood with a predicted variance that may be zero.

What people write: log(var) + (t - mu)^2 / var, with var from a ReLU or a square.
What they ask: "negative log-likelihood explodes or is NaN".
Published: `F.gaussian_nll_loss` clamps the variance at eps = 1e-6.
Measured: var = 0 is NaN in every format. The built-in is finite in float32 and bfloat16, with gradients beyond 1e13; in float16
the quotient by 1e-6 overflows.
"""

import torch
from torch.nn import functional as F

DOMAINS = {
    "mu": "real(8, 1, low=-10, high=10)",
    "var": "nonnegative(8, 1, high=100)",
    "t": "real(8, 1, low=-10, high=10)",
}
EXPECTED = {
    "loss": {"float32": ("unsafe", "log-of-zero"), "float16": ("unsafe", "log-of-zero"), "bfloat16": ("unsafe", "log-of-zero")},
    "built_in": {"float32": ("safe", None), "float16": ("unsafe", "underflow-then-divide"), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "built_in": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {
    "loss": {"mu": -10.0, "var": 0.0, "t": 10.0},
    "built_in": {"mu": -10.0, "var": 0.0, "t": 10.0},
}


def loss(mu, var, t):
    return 0.5 * (torch.log(var) + (t - mu) ** 2 / var).mean()


def built_in(mu, var, t):
    return F.gaussian_nll_loss(mu, t, var)
