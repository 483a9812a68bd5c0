"""log(1 + exp(x)) by hand.

What people write: `torch.log1p(torch.exp(x))`, the logistic loss from the text book.
What they ask: "log1p is the stable one, is it not?"
Published: log1p makes it stable.
Measured: log1p helps for small exp(x); for x = 100 exp(x) is inf in float32, and so is the loss, with a NaN gradient. `F.softplus`
is finite in all three formats.
"""

import torch
from torch.nn import functional as F

DOMAINS = {"x": "logit(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "exp-overflow"),
        "float16": ("unsafe", "exp-overflow"),
        "bfloat16": ("unsafe", "exp-overflow"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"x": 100.0}}


def loss(x):
    return torch.log1p(torch.exp(x)).mean()


def repaired(x):
    return F.softplus(x).mean()
