"""Mean squared logarithmic error where the prediction is not bounded below.

What people write: (log(1 + p) - log(1 + t))^2 with p straight from a linear layer.
What they ask: "MSLE is NaN although all targets are positive".
Published: the 1 + protects against zero.
Measured: against zero, not against p < -1: the logarithm of a negative number is NaN in every format. With p clamped at 0 all three
are finite, and negative predictions get no gradient.
"""

import torch

DOMAINS = {"p": "real(8, 1, low=-10, high=100)", "t": "nonnegative(8, 1, high=100)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "log-of-negative"),
        "float16": ("unsafe", "log-of-negative"),
        "bfloat16": ("unsafe", "log-of-negative"),
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
WITNESS = {"loss": {"p": -2.0, "t": 0.0}}


def loss(p, t):
    return ((torch.log(1 + p) - torch.log(1 + t)) ** 2).mean()


def repaired(p, t):
    return ((torch.log1p(p.clamp(min=0)) - torch.log1p(t)) ** 2).mean()
