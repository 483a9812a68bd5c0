"""Softmax over masked scores where a row may be empty.

What people write: `torch.softmax(scores.masked_fill(~mask, -inf), -1)`.
What they ask: "attention is NaN for padded queries".
Published: use a large negative number instead of -inf; 1e9 is usual.
Measured: a row without any true entry is NaN in every format. With `torch.finfo(dtype).min` such a row is uniform, and loss and
gradients are finite in all three. (-1e9 does not run in float16: PyTorch refuses the number.)
"""

import torch

DOMAINS = {"x": "logit(4, 6)", "mask": "mask(4, 6)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "all-masked-softmax"),
        "float16": ("unsafe", "all-masked-softmax"),
        "bfloat16": ("unsafe", "all-masked-softmax"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"x": 0.0, "mask": 0}}


def loss(x, mask):
    weights = torch.softmax(x.masked_fill(~mask, -torch.inf), -1)
    return (weights**2).sum(-1).mean()


def repaired(x, mask):
    weights = torch.softmax(x.masked_fill(~mask, torch.finfo(x.dtype).min), -1)
    return (weights**2).sum(-1).mean()
