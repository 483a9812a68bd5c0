"""optax's cosine distance of a zero vector.

What people write: `optax.losses.cosine_distance(a, b)` on embeddings that padding makes zero.
What they ask: "NaN on padded tokens".
Published: the library guards the zero vector.
Measured: its epsilon is 0 by default: NaN in every format. With epsilon=1e-3 it is finite in all three.
"""

import optax

DOMAINS = {"a": "real(8, 4, low=-10, high=10)", "b": "real(8, 4, low=-10, high=10)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "div-by-zero"),
        "float16": ("unsafe", "div-by-zero"),
        "bfloat16": ("unsafe", "div-by-zero"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("undecided", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"a": 0.0, "b": 1.0}}


def loss(a, b):
    return optax.losses.cosine_distance(a, b).mean()


def repaired(a, b):
    return optax.losses.cosine_distance(a, b, epsilon=1e-3).mean()
