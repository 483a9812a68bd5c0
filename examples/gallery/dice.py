"""The Dice loss on empty masks, without and with smoothing.

What people write: 1 - 2 |p t| / (|p| + |t|), with `smooth` from 1e-8 to 1.
What they ask: "NaN on images without any object".
Published: any small `smooth` repairs it.
Measured: p = t = 0 is 0/0 in every format. With 1e-7 float32 and bfloat16 are finite with a gradient of 1e7, and float16 is not:
1e-7 is a subnormal number there and the gradient overflows. With smooth = 1 all three are finite with gradients of at most 1.
"""

import torch

DOMAINS = {"p": "prob(1, 16)", "t": "binary(1, 16)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "zero-over-zero"),
        "float16": ("unsafe", "zero-over-zero"),
        "bfloat16": ("unsafe", "zero-over-zero"),
    },
    "smooth_1e7": {"float32": ("safe", None), "float16": ("unsafe", "underflow-then-divide"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "smooth_1e7": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {
    "loss": {"p": 0.0, "t": 0.0},
    "smooth_1e7": {"p": 0.0, "t": 0.0},
}


def dice(p, t, smooth):
    return 1 - (2 * torch.sum(p * t) + smooth) / (p.sum() + t.sum() + smooth)


def loss(p, t):
    return dice(p, t, smooth=0.0)


def smooth_1e7(p, t):
    return dice(p, t, smooth=1e-7)


def repaired(p, t):
    return dice(p, t, smooth=1.0)
