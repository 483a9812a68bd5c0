"""Cosine similarity of a zero vector, by hand and built in.

What people write: `(a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))`.
What they ask: "an all-zero embedding (padding) makes the loss NaN".
Published: `F.cosine_similarity` has an eps of 1e-8 and is safe.
Measured: by hand a zero vector is 0/0. The built-in is finite in float32 and bfloat16 (its gradient at a zero vector reaches
1e8 / 8 for a batch of 8); in float16 its eps is 0, and a zero vector gives NaN. With eps=1e-4 it is finite in all three.
"""

from torch.nn import functional as F

DOMAINS = {"a": "real(8, 4, low=-10, high=10)", "b": "real(8, 4, low=-10, high=10)"}
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
    "loss": {"a": 0.0, "b": 1.0},
    "built_in": {"a": 0.0, "b": 1.0},
}


def loss(a, b):
    return (1 - (a * b).sum(-1) / (a.norm(dim=-1) * b.norm(dim=-1))).mean()


def built_in(a, b):
    return (1 - F.cosine_similarity(a, b, dim=-1)).mean()


def repaired(a, b):
    return (1 - F.cosine_similarity(a, b, dim=-1, eps=1e-4)).mean()
