"""Standardising a batch that may be constant.

What people write: `(x - x.mean()) / x.std()`, for advantages or rewards; then `+ 1e-5`.
What they ask: "NaN when all rewards are equal".
Published: add a small epsilon to the deviation.
Measured: a constant batch is 0/0 in every format. With 1e-5 float32 and bfloat16 are finite; in float16 1e-5 is a subnormal number, and the
gradient overflows on a batch that is nearly constant. sqrt(var + 1e-3) is finite in all three.
"""

import torch

DOMAINS = {"x": "real(8, 1, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "zero-variance"),
        "float16": ("unsafe", "zero-variance"),
        "bfloat16": ("unsafe", "zero-variance"),
    },
    # where undecided, no failing input is known; the proof would need |x - mean(x)| <= sqrt(n) * std(x)
    "epsilon": {"float32": ("undecided", None), "float16": ("unsafe", "underflow-then-divide"), "bfloat16": ("undecided", None)},
    "repaired": {"float32": ("safe", None), "float16": ("undecided", None), "bfloat16": ("safe", None)},
}
WITNESS = {
    "loss": {"x": 1.0},
    "epsilon": {"x": [[3e-7], [1e-3], [-3e-7], [-1e-3], [3e-7], [1e-3], [-3e-7], [-1e-3]]},
}


def loss(x):
    return ((x - x.mean()) / x.std()).abs().mean()


def epsilon(x):
    return ((x - x.mean()) / (x.std() + 1e-5)).abs().mean()


def repaired(x):
    return ((x - x.mean()) / torch.sqrt(x.var() + 1e-3)).abs().mean()
