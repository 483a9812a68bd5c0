"""Mean squared error of unclipped differences, and clipped to +-100.

What people write: `((t - p) ** 2).mean()`; clipped when the loss reads inf.
What they ask: "MSE is just a square, how can it overflow?"
Published: clip the difference.
Measured: on |x| <= 1e4 float32 and bfloat16 are finite (4e8). In float16 a difference of 256 already squares to inf (the largest
value is 65504). Clipped to +-100 it is finite in float16 too, with no gradient beyond; the Huber loss is finite and keeps it.
"""

import torch
from torch.nn import functional as F

DOMAINS = {"p": "real(8, 1)", "t": "real(8, 1)"}
EXPECTED = {
    "loss": {"float32": ("safe", None), "float16": ("unsafe", "square-overflow"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
    "huber": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {
        "float32": ("clamp-kills-gradient",),
        "float16": ("clamp-kills-gradient",),
        "bfloat16": ("clamp-kills-gradient",),
    },
}
WITNESS = {"loss": {"p": 0.0, "t": 1000.0}}


def loss(p, t):
    return ((t - p) ** 2).mean()


def repaired(p, t):
    return (torch.clamp(t - p, -100, 100) ** 2).mean()


def huber(p, t):
    return F.huber_loss(p, t)
