"""Binary cross-entropy with p clamped to [1e-8, 1 - 1e-8], as published under the name "stable".

What people write: `p.clamp(eps, 1 - eps)` with eps = 1e-8.
What they ask: "I clamp, and it is still NaN".
Published: the clamp keeps both logarithms finite.
Measured: 1 - 1e-8 is 1.0 in float32, float16 and bfloat16, so p = 1 still meets log(0): NaN at t = 1, inf at t = 0. An epsilon
taken from the format (`torch.finfo(p.dtype).eps`) is finite in all three; where the clamp holds, the gradient is zero.
"""

import torch

DOMAINS = {"p": "prob(8, 1)", "t": "binary(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "epsilon-rounds-away"),
        "float16": ("unsafe", "epsilon-rounds-away"),
        "bfloat16": ("unsafe", "epsilon-rounds-away"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {
        "float32": ("steep-gradient", "clamp-kills-gradient"),
        "float16": ("clamp-kills-gradient",),
        "bfloat16": ("clamp-kills-gradient",),
    },
}
WITNESS = {"loss": {"p": 1.0, "t": 1.0}}


def loss(p, t):
    p = p.clamp(1e-8, 1 - 1e-8)
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


def repaired(p, t):
    eps = torch.finfo(p.dtype).eps
    p = p.clamp(eps, 1 - eps)
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()
