"""A fractional power of a signed error.

What people write: `torch.pow(t - p, 1.5).mean()`, the absolute value forgotten.
What they ask: "NaN from the first step".
Published: torch.pow is defined for all reals.
Measured: a negative base with exponent 1.5 is NaN in every format. With the absolute value all three are finite, at p = t too.
"""

import torch

DOMAINS = {"p": "real(8, 1, low=-10, high=10)", "t": "real(8, 1, low=-10, high=10)"}
EXPECTED = {
    "loss": {"float32": ("unsafe", "pow-domain"), "float16": ("unsafe", "pow-domain"), "bfloat16": ("unsafe", "pow-domain")},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"p": 1.0, "t": 0.0}}


def loss(p, t):
    return torch.pow(t - p, 1.5).mean()


def repaired(p, t):
    return torch.pow(torch.abs(t - p), 1.5).mean()
