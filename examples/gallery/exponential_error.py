"""mean(exp(|t - p|)): an error that punishes outliers exponentially.

What people write: the exponential of an unbounded difference; then a clamp inside when it becomes inf.
What they ask: "why is my custom loss inf, and why does it stop learning once I clamp it?"
Published: clamp the argument and it is stable.
Measured: exp overflows from |t - p| = 88.723 in float32 and 11.094 in float16. Clamped at 10 the loss is finite in all three
formats, but every element further off than 10 has gradient exactly 0: the outliers are the ones that no longer learn.
"""

import torch

DOMAINS = {"p": "real(8, 1)", "t": "real(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "exp-overflow"),
        "float16": ("unsafe", "exp-overflow"),
        "bfloat16": ("unsafe", "exp-overflow"),
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
WITNESS = {"loss": {"p": 0.0, "t": 1000.0}}


def loss(p, t):
    return torch.exp((t - p).abs()).mean()


def repaired(p, t):
    return torch.exp((t - p).abs().clamp(max=10)).mean()
