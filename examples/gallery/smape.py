"""Symmetric relative error (SMAPE), |p - t| / (|p| + |t|).

What people write: the formula from the forecasting text book; the sum in the denominator is thought to be safe.
What they ask: "NaN only on some series" (those with a zero target and a zero forecast).
Published: SMAPE avoids the division by zero of MAPE.
Measured: p = t = 0 is 0/0, NaN in every format. With a floor of 1 under the denominator all formats are finite.
"""

import torch

DOMAINS = {"p": "real(8, 1)", "t": "real(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "zero-over-zero"),
        "float16": ("unsafe", "zero-over-zero"),
        "bfloat16": ("unsafe", "zero-over-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"p": 0.0, "t": 0.0}}


def loss(p, t):
    return (torch.abs(p - t) / (torch.abs(p) + torch.abs(t))).mean()


def repaired(p, t):
    return (torch.abs(p - t) / (torch.abs(p) + torch.abs(t)).clamp(min=1.0)).mean()
