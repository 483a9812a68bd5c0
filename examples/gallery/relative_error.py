"""Relative error, |t - p| / |p|, bare and with an epsilon.

What people write: the error divided by the prediction, then `+ 1e-7` when it turns NaN.
What they ask: "why is my loss NaN although I added an epsilon?"
Published: an epsilon in the denominator makes the division safe.
Measured: bare, p = 0 gives an infinite loss and a NaN gradient (t is at least 1 here; with t = 0 it would be 0/0). With 1e-7 the
loss is finite in float32 and bfloat16, but a gradient reaches 1e17 at p = 0: one such step ends a run. In float16 1e-7 is a
subnormal number, and the quotient overflows.
"""

import torch

DOMAINS = {"p": "real(8, 1)", "t": "real(8, 1, low=1)"}
EXPECTED = {
    "loss": {"float32": ("unsafe", "div-by-zero"), "float16": ("unsafe", "div-by-zero"), "bfloat16": ("unsafe", "div-by-zero")},
    "repaired": {"float32": ("safe", None), "float16": ("unsafe", "underflow-then-divide"), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {
    "loss": {"p": 0.0, "t": 1.0},
    "repaired": {"p": 0.0, "t": 1.0},
}


def loss(p, t):
    return (torch.abs(t - p) / torch.abs(p)).mean()


def repaired(p, t):
    return (torch.abs(t - p) / (torch.abs(p) + 1e-7)).mean()
