"""A loss that returns a constant when it sees NaN.

What people write: `if torch.isnan(value): return torch.tensor(0.0, requires_grad=True)`.
What they ask: "no NaN any more, but the model does not learn on some batches".
Published: skip the bad batch by returning a dummy loss.
Measured: loss and gradients are finite in every format. With an empty mask the constant is not connected to the prediction: its
gradient is zero (None in autograd), and nothing says that the batch was skipped.
"""

import torch

DOMAINS = {"p": "real(8, 1, low=-10, high=10)", "t": "real(8, 1, low=-10, high=10)", "mask": "mask(8, 1)"}
EXPECTED = {
    # a proof would have to cover both sides of the branch on a value
    "loss": {"float32": ("undecided", None), "float16": ("undecided", None), "bfloat16": ("undecided", None)},
}
WARNINGS = {
    "loss": {"float32": ("gradient-detached",), "float16": ("gradient-detached",), "bfloat16": ("gradient-detached",)},
}


def loss(p, t, mask):
    value = ((p - t) ** 2 * mask).sum() / mask.sum()
    if torch.isnan(value):
        return torch.tensor(0.0, requires_grad=True)
    return value
