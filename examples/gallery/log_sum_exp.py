"""log(sum(exp(x))) by hand, without and with the maximum taken out.

What people write: `torch.log(torch.exp(x).sum(-1))`.
What they ask: "loss is inf for logits around 90".
Published: subtract the maximum first.
Measured: in float32 exp overflows from x = 88.723, in float16 from 11.094: the loss is inf and the gradient NaN. With the maximum
taken out, loss and gradients are finite in all three formats.
"""

import torch

DOMAINS = {"x": "logit(8, 4, low=0)"}
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
    return torch.log(torch.exp(x).sum(-1)).mean()


def repaired(x):
    top = x.amax(-1, keepdim=True)
    return (top.squeeze(-1) + torch.log(torch.exp(x - top).sum(-1))).mean()
