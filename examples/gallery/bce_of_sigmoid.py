"""Binary cross-entropy of a sigmoid, against the same loss from logits.

What people write: `torch.sigmoid(x)`, then the formula by hand.
What they ask: "a sigmoid can never be 0 or 1, so where does the log(0) come from?"
Published: use `binary_cross_entropy_with_logits`.
Measured: the sigmoid is exactly 1.0 for x = 100 in every format, and log(1 - 1.0) is -inf; with t = 1 the loss is NaN. From logits
the loss is finite with gradients of at most 1 per element in all three formats.
"""

import torch
from torch.nn import functional as F

DOMAINS = {"x": "logit(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {"float32": ("unsafe", "log-of-zero"), "float16": ("unsafe", "log-of-zero"), "bfloat16": ("unsafe", "log-of-zero")},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"x": 100.0, "t": 1.0}}


def loss(x, t):
    p = torch.sigmoid(x)
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


def repaired(x, t):
    return F.binary_cross_entropy_with_logits(x, t)
