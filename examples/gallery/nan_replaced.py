"""A loss that replaces its own NaN by 0.

What people write: `torch.nan_to_num(loss)` or `torch.where(torch.isnan(loss), 0, loss)` before the mean.
What they ask: "the loss is fine, yet all weights become NaN".
Published: `nan_to_num` cures NaN losses.
Measured: it cures the number that is printed. At p = t = 0 the loss reads 0 and the gradient is NaN in every format, because
backward still passes through the log(0).
"""

import torch

DOMAINS = {"p": "prob(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "masked-branch-gradient"),
        "float16": ("unsafe", "masked-branch-gradient"),
        "bfloat16": ("unsafe", "masked-branch-gradient"),
    },
    "with_where": {
        "float32": ("unsafe", "masked-branch-gradient"),
        "float16": ("unsafe", "masked-branch-gradient"),
        "bfloat16": ("unsafe", "masked-branch-gradient"),
    },
}
WITNESS = {
    "loss": {"p": 0.0, "t": 0.0},
    "with_where": {"p": 0.0, "t": 0.0},
}


def pointwise(p, t):
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p))


def loss(p, t):
    return torch.nan_to_num(pointwise(p, t)).mean()


def with_where(p, t):
    each = pointwise(p, t)
    return torch.where(torch.isnan(each), 0.0, each).mean()
