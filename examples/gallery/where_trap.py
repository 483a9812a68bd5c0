"""The `where` trap, and the double `where` that avoids it.

What people write: `torch.where(x > 0, torch.sqrt(x), 0)`.
What they ask: "the bad branch is masked, the loss is finite, and still the gradient is NaN".
Published: both branches are differentiated; mask the argument too.
Measured: x <= 0 gives a NaN gradient in every format although the loss is finite. The double `where` is finite everywhere, though
steep: 1.7e21 at the smallest positive float32, 256 at that of float16, for a batch of 8.
"""

import torch

DOMAINS = {"x": "real(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "masked-branch-gradient"),
        "float16": ("unsafe", "masked-branch-gradient"),
        "bfloat16": ("unsafe", "masked-branch-gradient"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "repaired": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {"loss": {"x": -1.0}}


def loss(x):
    return torch.where(x > 0, torch.sqrt(x), 0.0).mean()


def repaired(x):
    safe = torch.where(x > 0, x, 1.0)
    return torch.where(x > 0, torch.sqrt(safe), 0.0).mean()
