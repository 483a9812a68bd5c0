"""An epsilon behind a difference, log(1 - p + 1e-8), under `jit` and without.

What people write: `-jnp.log(1 - p + 1e-8)` for the class 0.
What they ask: "finite when I call it, inf inside my jitted train step".
Published: the epsilon keeps the logarithm finite.
Measured: at p = 1 it is 18.42 in float32 without `jit`. Under `jit` it is inf: XLA computes (1 + 1e-8) - p, and 1 + 1e-8 is 1. It leaves
bfloat16 alone; in float16 1e-8 is 0. A maximum cannot be moved: log(max(1 - p, 1e-4)) is finite in all formats.
"""

import jax.numpy as jnp

MODES = ("jit", "eager")
DOMAINS = {"p": "prob(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "epsilon-removed-by-compiler"),
        "float16": ("unsafe", "epsilon-rounds-away"),
        "bfloat16": ("safe", None),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
FAILS_IN = {"loss": {"float32": ("jit",)}}
WARNINGS = {
    "loss": {"bfloat16": ("steep-gradient",)},
    "repaired": {"float32": ("clamp-kills-gradient",), "float16": ("clamp-kills-gradient",), "bfloat16": ("clamp-kills-gradient",)},
}
WITNESS = {"loss": {"p": 1.0}}


def loss(p):
    return -jnp.log(1 - p + 1e-8).mean()


def repaired(p):
    return -jnp.log(jnp.maximum(1 - p, 1e-4)).mean()
