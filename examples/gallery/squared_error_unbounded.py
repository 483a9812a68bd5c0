"""Mean squared error where the prediction may be anything up to 1e20, as it is in a diverging run.

What people write: nothing special: `((t - p) ** 2).mean()`.
What they ask: "the loss went to inf in one step".
Published: float32 reaches 3e38, so an overflow cannot come from a square.
Measured: 1e20 squared is inf in float32 and bfloat16: a square overflows from 1.8447e19. Clipped to +-100 the loss is finite
and the gradient beyond is 0, so the run stays where it is.
"""

import torch

DOMAINS = {"p": "real(8, 1, low=-1e20, high=1e20)", "t": "real(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "square-overflow"),
        "float16": ("unsafe", "sum-overflow"),  # the difference overflows before its square does
        "bfloat16": ("unsafe", "square-overflow"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {
        "float32": ("clamp-kills-gradient",),
        "float16": ("clamp-kills-gradient",),
        "bfloat16": ("clamp-kills-gradient",),
    },
}
WITNESS = {"loss": {"p": 1e20, "t": 0.0}}


def loss(p, t):
    return ((t - p) ** 2).mean()


def repaired(p, t):
    return (torch.clamp(t - p, -100, 100) ** 2).mean()
