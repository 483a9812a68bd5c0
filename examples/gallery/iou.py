"""The soft IoU (Jaccard) loss on empty masks, without and with smoothing.

What people write: 1 - intersection / union, then `+ 1e-8` above and below.
What they ask: "the loss is NaN on background-only crops".
Published: add an epsilon to numerator and denominator.
Measured: an empty union is 0/0 in every format. With 1e-8 float32 and bfloat16 are finite but the gradient reaches 1e8; in float16
1e-8 is 0 and nothing is repaired. With 1 all three are finite with gradients of at most 1.
"""

import torch

DOMAINS = {"p": "prob(1, 16)", "t": "binary(1, 16)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "zero-over-zero"),
        "float16": ("unsafe", "zero-over-zero"),
        "bfloat16": ("unsafe", "zero-over-zero"),
    },
    "smooth_1e8": {"float32": ("safe", None), "float16": ("unsafe", "epsilon-rounds-away"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "smooth_1e8": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {
    "loss": {"p": 0.0, "t": 0.0},
    "smooth_1e8": {"p": 0.0, "t": 0.0},
}


def iou(p, t, smooth):
    both = torch.sum(p * t)
    return 1 - (both + smooth) / (p.sum() + t.sum() - both + smooth)


def loss(p, t):
    return iou(p, t, smooth=0.0)


def smooth_1e8(p, t):
    return iou(p, t, smooth=1e-8)


def repaired(p, t):
    return iou(p, t, smooth=1.0)
