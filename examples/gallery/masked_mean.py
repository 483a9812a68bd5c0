"""The mean over a mask that may be empty.

What people write: `(error * mask).sum() / mask.sum()`, then `+ 1e-8` below.
What they ask: "NaN on the last batch, the one that is all padding".
Published: add an epsilon to the count.
Measured: an empty mask is 0/0 in every format. `mask.sum() + 1e-8` is finite for float32 and bfloat16 inputs; with float16 inputs
the count is promoted to float32, the gradient 1e8 is cast back to float16 as inf, and times the mask's 0 it is NaN.
`clamp(min=1)` on the count is finite in all three.
"""

import torch

DOMAINS = {"p": "real(8, 1, low=-10, high=10)", "t": "real(8, 1, low=-10, high=10)", "mask": "mask(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "zero-over-zero"),
        "float16": ("unsafe", "zero-over-zero"),
        "bfloat16": ("unsafe", "zero-over-zero"),
    },
    "epsilon": {"float32": ("safe", None), "float16": ("unsafe", "cast-overflow"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {
    "loss": {"p": 1.0, "t": 0.0, "mask": 0},
    "epsilon": {"p": 1.0, "t": 0.0, "mask": 0},
}


def loss(p, t, mask):
    return torch.sum((p - t) ** 2 * mask) / mask.sum()


def epsilon(p, t, mask):
    return torch.sum((p - t) ** 2 * mask) / (mask.sum() + 1e-8)


def repaired(p, t, mask):
    return torch.sum((p - t) ** 2 * mask) / mask.sum().clamp(min=1)
