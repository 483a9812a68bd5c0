"""A loss that replaces its own NaN by 0.

What people write: `torch.nan_to_num(loss, 0, 0, 0)` or `torch.where(torch.isfinite(loss), loss, 0)` before the mean.
What they ask: "the loss is fine, yet all weights become NaN".
Published: `nan_to_num` cures NaN losses.
Measured: it cures the number that is printed. At p = t = 0 the loss reads 0 and the gradient is NaN in every format, because
backward still passes through the log(0). (`nan_to_num` without arguments turns inf into 3.4e38, and a mean of eight is inf again.)
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
    return torch.nan_to_num(pointwise(p, t), nan=0.0, posinf=0.0, neginf=0.0).mean()


def with_where(p, t):
    each = pointwise(p, t)
    return torch.where(torch.isfinite(each), each, 0.0).mean()
