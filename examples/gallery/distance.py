"""The Euclidean distance of two embeddings, by hand and with the built-in norm.

What people write: `torch.sqrt(((a - b) ** 2).sum(-1))` in triplet and contrastive losses.
What they ask: "NaN when anchor and positive are the same picture".
Published: `torch.norm` has the same NaN at zero.
Measured: by hand, a = b gives NaN gradients in every format. `torch.linalg.vector_norm` defines its gradient at zero as zero: it is finite
in all three formats, also between subnormal and equal vectors.
"""

import torch

DOMAINS = {"a": "real(8, 4, low=-10, high=10)", "b": "real(8, 4, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "sqrt-grad-at-zero"),
        "float16": ("unsafe", "sqrt-grad-at-zero"),
        "bfloat16": ("unsafe", "sqrt-grad-at-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"a": 1.0, "b": 1.0}}


def loss(a, b):
    return torch.sqrt(((a - b) ** 2).sum(-1)).mean()


def repaired(a, b):
    return torch.linalg.vector_norm(a - b, dim=-1).mean()
