"""Scaling rows to length 1, by hand and with `F.normalize`.

What people write: `x / x.norm(dim=-1, keepdim=True)` before a contrastive loss.
What they ask: "NaN embeddings after a dead ReLU layer".
Published: `F.normalize` guards the zero vector with eps = 1e-12.
Measured: by hand a zero row is 0/0. `F.normalize` is finite in float32 and bfloat16 with gradients up to 1.25e11 for a batch of 8; in
float16 its 1e-12 is 0 and a zero row is NaN as before. eps=1e-3 is finite in all three.
"""

from torch.nn import functional as F

DOMAINS = {"x": "real(8, 4, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "zero-over-zero"),
        "float16": ("unsafe", "zero-over-zero"),
        "bfloat16": ("unsafe", "zero-over-zero"),
    },
    "built_in": {"float32": ("safe", None), "float16": ("unsafe", "epsilon-rounds-away"), "bfloat16": ("safe", None)},
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WARNINGS = {
    "built_in": {"float32": ("steep-gradient",), "bfloat16": ("steep-gradient",)},
}
WITNESS = {
    "loss": {"x": 0.0},
    "built_in": {"x": 0.0},
}


def loss(x):
    return (x / x.norm(dim=-1, keepdim=True)).sum(-1).mean()


def built_in(x):
    return F.normalize(x, dim=-1).sum(-1).mean()


def repaired(x):
    return F.normalize(x, dim=-1, eps=1e-3).sum(-1).mean()
