"""The hinge loss written with `torch.max` and with `relu`.

What people write: `torch.max(zeros, 1 - y * s)`; some advise relu "because max has a wrong gradient".
What they ask: "which of the two is stable?"
Published: relu is the stable form.
Measured: both are finite in all formats, with the same value and the same gradient, but at the tie y * s = 1: there `torch.max`
gives half the gradient (-0.5 for one element), relu gives 0, and `clamp(min=0)` all of it (-1).
"""

import torch

DOMAINS = {"s": "logit(8, 1)", "y": "real(8, 1, low=-1, high=1)"}
EXPECTED = {
    "loss": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}


def loss(s, y):
    return torch.max(torch.zeros_like(s), 1 - y * s).mean()


def repaired(s, y):
    return torch.relu(1 - y * s).mean()
