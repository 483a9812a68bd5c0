"""Root mean squared error: a square root that may see zero.

What people write: `torch.sqrt(mse)`, then `+ 1e-8` outside or inside the root.
What they ask: "NaN as soon as the prediction is perfect".
Published: add an epsilon inside the root; 1e-8 is the usual one.
Measured: at p = t the loss is 0 and the gradient NaN (inf * 0) in every format. An epsilon outside changes nothing. Inside, 1e-8 is
enough in float32 and bfloat16 but is 0 in float16; 1e-6 is finite in all three.
"""

import torch

DOMAINS = {"p": "real(8, 1, low=-10, high=10)", "t": "real(8, 1, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "sqrt-grad-at-zero"),
        "float16": ("unsafe", "sqrt-grad-at-zero"),
        "bfloat16": ("unsafe", "sqrt-grad-at-zero"),
    },
    "epsilon_outside": {
        "float32": ("unsafe", "sqrt-grad-at-zero"),
        "float16": ("unsafe", "sqrt-grad-at-zero"),
        "bfloat16": ("unsafe", "sqrt-grad-at-zero"),
    },
    "epsilon_1e8": {"float32": ("safe", None), "float16": ("unsafe", "epsilon-rounds-away"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {
    "loss": {"p": 1.0, "t": 1.0},
    "epsilon_outside": {"p": 1.0, "t": 1.0},
    "epsilon_1e8": {"p": 1.0, "t": 1.0},
}


def loss(p, t):
    return torch.sqrt(((p - t) ** 2).mean())


def epsilon_outside(p, t):
    return torch.sqrt(((p - t) ** 2).mean()) + 1e-8


def epsilon_1e8(p, t):
    return torch.sqrt(((p - t) ** 2).mean() + 1e-8)


def repaired(p, t):
    return torch.sqrt(((p - t) ** 2).mean() + 1e-6)
