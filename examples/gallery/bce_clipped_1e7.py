"""Binary cross-entropy with p clipped to [1e-7, 1 - 1e-7], the Keras habit carried over to PyTorch.

What people write: `torch.clamp(p, 1e-7, 1 - 1e-7)`.
What they ask: "it was fine until I turned on mixed precision".
Published: 1e-7 is the smallest epsilon that survives in float32.
Measured: true in float32 (finite, gradients up to 1.25e6 for a batch of 8, zero where the clip holds). In float16 and bfloat16
1 - 1e-7 is 1.0, and p = 1 gives log(0).
"""

import torch

DOMAINS = {"p": "prob(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("safe", None),
        "float16": ("unsafe", "epsilon-rounds-away"),
        "bfloat16": ("unsafe", "epsilon-rounds-away"),
    },
}
WARNINGS = {
    "loss": {"float32": ("steep-gradient", "clamp-kills-gradient")},
}
WITNESS = {"loss": {"p": 1.0, "t": 0.0}}


def loss(p, t):
    p = torch.clamp(p, 1e-7, 1 - 1e-7)
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()
