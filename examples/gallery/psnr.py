"""Peak signal-to-noise ratio as a loss.

What people write: 10 * log10(mse), to be minimised; then `+ 1e-8`.
What they ask: "identical images give -inf".
Published: add a small epsilon to the error.
Measured: p = t is log10(0), -inf with a NaN gradient, in every format. With 1e-8 float32 and bfloat16 are finite; in float16 1e-8 is
0. With 1e-3 all three are finite.
"""

import torch

DOMAINS = {"p": "prob(8, 1)", "t": "prob(8, 1)"}
EXPECTED = {
    "loss": {"float32": ("unsafe", "log-of-zero"), "float16": ("unsafe", "log-of-zero"), "bfloat16": ("unsafe", "log-of-zero")},
    "epsilon_1e8": {"float32": ("safe", None), "float16": ("unsafe", "epsilon-rounds-away"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {
    "loss": {"p": 1.0, "t": 1.0},
    "epsilon_1e8": {"p": 1.0, "t": 1.0},
}


def loss(p, t):
    return 10 * torch.log10(((p - t) ** 2).mean())


def epsilon_1e8(p, t):
    return 10 * torch.log10(((p - t) ** 2).mean() + 1e-8)


def repaired(p, t):
    return 10 * torch.log10(((p - t) ** 2).mean() + 1e-3)
