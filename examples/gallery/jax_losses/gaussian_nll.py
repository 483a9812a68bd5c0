"""Gaussian negative log-likelihood with a predicted log-variance.

What people write: `0.5 * (s + (p - t)**2 / jnp.exp(s))`.
What they ask: "the likelihood explodes".
Published: predict the log-variance and nothing can fail.
Measured: under `jit` XLA multiplies by exp(-s) instead, which is inf from s = -88.73 down in float32. For p - t = 1 the gradient is -inf at
s = -87 and NaN at -87.5 already, where the loss is still 5e37: exp(s) is subnormal there, and XLA flushes it to zero. With s clamped to
[-4, 4] all is finite in all three formats.
"""

import jax.numpy as jnp

DOMAINS = {"p": "real(8, 1, low=-10, high=10)", "t": "real(8, 1, low=-10, high=10)", "s": "logit(8, 1)"}
EXPECTED = {
    "loss": {
        "float32": ("unsafe", "exp-overflow"),
        "float16": ("unsafe", "exp-overflow"),
        "bfloat16": ("unsafe", "exp-overflow"),
    },
    "repaired": {"float32": ("safe", None), "float16": ("safe", None), "bfloat16": ("safe", None)},
}
WITNESS = {"loss": {"p": 1.0, "t": 0.0, "s": -100.0}}


def loss(p, t, s):
    return (0.5 * (s + (p - t) ** 2 / jnp.exp(s))).mean()


def repaired(p, t, s):
    s = jnp.clip(s, -4, 4)
    return (0.5 * (s + (p - t) ** 2 * jnp.exp(-s))).mean()
