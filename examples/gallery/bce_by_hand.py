"""Binary cross-entropy by hand, without a guard.

What people write: -(t log p + (1 - t) log(1 - p)).
What they ask: "loss becomes NaN once the network is sure of itself".
Published: use the built-in `binary_cross_entropy`, which clamps the logarithm at -100.
Measured: by hand, p = 0 or 1 gives NaN in every format (0 * inf). The built-in is finite in float32 and bfloat16, with gradients
up to 1.25e11 for a batch of 8; in float16 its inner 1e-12 rounds to 0 and its gradient at p = t = 0 is NaN while the loss reads 0.
"""

import torch
from torch.nn import functional as F

DOMAINS = {"p": "prob(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {"float32": ("unsafe", "log-of-zero"), "float16": ("unsafe", "log-of-zero"), "bfloat16": ("unsafe", "log-of-zero")},
    "repaired": {"float32": ("safe", None), "float16": ("unsafe", "epsilon-rounds-away"), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {
    "loss": {"p": 0.0, "t": 0.0},
    "repaired": {"p": 0.0, "t": 0.0},
}


def loss(p, t):
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


def repaired(p, t):
    return F.binary_cross_entropy(p, t)
