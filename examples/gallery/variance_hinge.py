"""A hinge on the standard deviation of a batch, as in VICReg.

What people write: `torch.relu(1 - x.std(0))`; the paper writes sqrt(var + 1e-4).
What they ask: "is the epsilon inside the root needed?"
Published: the gradient of `std` is NaN on a constant batch.
Measured: on an exactly constant batch PyTorch gives `std` the gradient 0. It fails beside it: where the deviation is nonzero and
subnormal (1e-40 in float32, below about 1e-6 in float16), dividing by it overflows. With 1e-4 inside all three are finite.
"""

import torch

DOMAINS = {"x": "real(8, 1, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "underflow-then-divide"),
        "float16": ("unsafe", "underflow-then-divide"),
        "bfloat16": ("unsafe", "underflow-then-divide"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {
    "loss": {
        "float32": {"x": [[1e-40], [0.0]] * 4},
        "float16": {"x": [[1e-6], [0.0]] * 4},
        "bfloat16": {"x": [[1e-40], [0.0]] * 4},
    },
}


def loss(x):
    return torch.relu(1 - x.std(0)).mean()


def repaired(x):
    return torch.relu(1 - torch.sqrt(x.var(0) + 1e-4)).mean()
