"""Binary cross-entropy with an epsilon inside each logarithm: log(p + 1e-8), log(1 - p + 1e-8).

What people write: the epsilon added to the argument instead of a clamp.
What they ask: "is log(p + eps) enough?"
Published: yes, for any eps.
Measured: in eager PyTorch yes for float32 and bfloat16, since 1 - p is exactly 0 before 1e-8 is added (losses up to 18.4, gradients
up to 1.25e7 for a batch of 8). In float16 1e-8 itself is 0, and everything is as without it. With 1e-4 float16 is finite too.
"""

import torch

DOMAINS = {"p": "prob(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {"float32": ("safe", None), "float16": ("unsafe", "epsilon-rounds-away"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "loss": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {"loss": {"p": 0.0, "t": 0.0}}


def loss(p, t):
    return -(t * torch.log(p + 1e-8) + (1 - t) * torch.log(1 - p + 1e-8)).mean()


def repaired(p, t):
    return -(t * torch.log(p + 1e-4) + (1 - t) * torch.log(1 - p + 1e-4)).mean()
