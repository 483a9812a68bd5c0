"""The focal loss with gamma below 1.

What people write: (1 - pt)^gamma * bce with pt = exp(-bce), from logits, "so it is stable".
What they ask: "gamma = 2 works, gamma = 0.5 is NaN".
Published: any gamma >= 0 may be used.
Measured: for gamma = 0.5 a sure and right prediction (pt = 1) has the gradient 0.5 * 0^-0.5 = inf, and the whole is NaN in every
format while the loss reads 0. gamma = 0, 1, 1.5 and 2 are finite in all three formats.
"""

import torch
from torch.nn import functional as F

DOMAINS = {"x": "logit(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "pow-grad-at-zero"),
        "float16": ("unsafe", "pow-grad-at-zero"),
        "bfloat16": ("unsafe", "pow-grad-at-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"x": 100.0, "t": 1.0}}


def focal(x, t, gamma):
    bce = F.binary_cross_entropy_with_logits(x, t, reduction="none")
    return ((1 - torch.exp(-bce)) ** gamma * bce).mean()


def loss(x, t):
    return focal(x, t, gamma=0.5)


def repaired(x, t):
    return focal(x, t, gamma=2.0)
