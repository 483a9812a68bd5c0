"""Custom autograd functions: one with a wrong gradient, one with an unstable one.

What people write: their own `backward`, here for softplus, with a factor forgotten or exp(x) / (1 + exp(x)) spelled out.
What they ask: "the loss goes down slowly" or "is NaN, though forward is F.softplus".
Published: a custom backward makes the loss stable.
Measured: forgetting the factor is finite everywhere and off by a factor 2 from finite differences in float64. Spelled out, exp(100)
overflows and inf / inf makes the gradient NaN in every format. sigmoid(x) agrees with finite differences and is finite.
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
    "wrong": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "wrong": {
        "float32": ("custom-gradient-wrong",),
        "float16": ("custom-gradient-wrong",),
        "bfloat16": ("custom-gradient-wrong",),
    },
}
WITNESS = {"loss": {"x": 100.0}}


def softplus_with(derivative):
    class Softplus(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return F.softplus(x)

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * derivative(x)

    return Softplus.apply


def wrong(x):
    return softplus_with(lambda x: 2 * torch.sigmoid(x))(x).mean()


def loss(x):
    return softplus_with(lambda x: torch.exp(x) / (1 + torch.exp(x)))(x).mean()


def repaired(x):
    return softplus_with(torch.sigmoid)(x).mean()
