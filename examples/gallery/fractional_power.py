"""A fractional power of an error that may be zero.

What people write: `(torch.abs(t - p) ** 0.5).mean()`; with `+ 1e-8` after the first NaN.
What they ask: "p = t should be the optimum, why is the gradient NaN there?"
Published: add a small epsilon to the base.
Measured: at p = t the gradient is 0.5 * 0^-0.5 * 0 = NaN in every format. With 1e-8 float32 and bfloat16 are finite; in float16 1e-8
is 0. With 1e-6 all three are finite.
"""

import torch

DOMAINS = {"p": "real(8, 1, low=-10, high=10)", "t": "real(8, 1, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "pow-grad-at-zero"),
        "float16": ("unsafe", "pow-grad-at-zero"),
        "bfloat16": ("unsafe", "pow-grad-at-zero"),
    },
    "epsilon_1e8": {"float32": ("safe", None), "float16": ("unsafe", "epsilon-rounds-away"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {
    "loss": {"p": 1.0, "t": 1.0},
    "epsilon_1e8": {"p": 1.0, "t": 1.0},
}


def loss(p, t):
    return (torch.abs(t - p) ** 0.5).mean()


def epsilon_1e8(p, t):
    return ((torch.abs(t - p) + 1e-8) ** 0.5).mean()


def repaired(p, t):
    return ((torch.abs(t - p) + 1e-6) ** 0.5).mean()
