"""Entropy of probabilities that may be zero.

What people write: `-(p * torch.log(p)).sum(-1)`; then `torch.special.entr`, which knows that 0 log 0 is 0.
What they ask: "entropy regularisation turns NaN late in training".
Published: `entr` and `xlogy` handle zero.
Measured: by hand p = 0 is NaN. `entr` is finite in value only: its gradient at 0 is inf in every format. With the logarithm's
argument clamped to the format's eps, loss and gradients are finite in all three.
"""

import torch

DOMAINS = {"p": "prob(8, 4)"}
EXPECTED = {
    "loss": {"float32": ("unsafe", "log-of-zero"), "float16": ("unsafe", "log-of-zero"), "bfloat16": ("unsafe", "log-of-zero")},
    "built_in": {
        "float32": ("unsafe", "log-of-zero"),
        "float16": ("unsafe", "log-of-zero"),
        "bfloat16": ("unsafe", "log-of-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {
    "loss": {"p": 0.0},
    "built_in": {"p": 0.0},
}


def loss(p):
    return -(p * torch.log(p)).sum(-1).mean()


def built_in(p):
    return torch.special.entr(p).sum(-1).mean()


def repaired(p):
    return -(p * torch.log(p.clamp(min=torch.finfo(p.dtype).eps))).sum(-1).mean()
