"""The log-cosh loss by hand.

What people write: `torch.log(torch.cosh(p - t))`.
What they ask: "log-cosh is robust against outliers, so why is it inf?"
Published: log-cosh behaves like |x| for large x.
Measured: the formula does, its evaluation does not: cosh overflows from 89.416 in float32 and 11.79 in float16; the loss is inf and the
gradient NaN. d + softplus(-2 d) - log 2 is the same function, finite in all three formats.
"""

import math

import torch
from torch.nn import functional as F

DOMAINS = {"p": "real(8, 1)", "t": "real(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "exp-overflow"),
        "float16": ("unsafe", "exp-overflow"),
        "bfloat16": ("unsafe", "exp-overflow"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"p": 1000.0, "t": 0.0}}


def loss(p, t):
    return torch.log(torch.cosh(p - t)).mean()


def repaired(p, t):
    d = p - t
    return (d + F.softplus(-2 * d) - math.log(2.0)).mean()
