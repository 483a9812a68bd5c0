"""Causes of failures in compiled JAX programs, where XLA computes what the source calls by other operations."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from whynan.analysis.blame import blame
from whynan.frontends.jax import load


def inverse_of_tanh(x):
    return jnp.sum(jnp.arctanh(x))


def root_as_a_power(x):
    return jnp.sum(x**0.5)


def masked_row(x):
    return jnp.sum(jax.nn.logsumexp(jnp.where(x > 5, x, -jnp.inf), axis=-1))


def residual(x):
    slope = jax.grad(lambda p: 2 * jnp.sqrt(jnp.sum(p * p)))(x)
    return jnp.sum(slope * slope)


def heading(x):
    return jnp.sum(jnp.cos(jnp.arctan2(x[:1], x[1:])))


def trap_of_a_root(x):
    return jnp.sum(jnp.where(x > 0, jnp.sqrt(x), 0.0))


def trap_of_a_power(x):
    return jnp.sum(jnp.where(x > 0, x**1.5, 0.0))


CASES = [
    (inverse_of_tanh, [0.0, 2.0], ("inverse-trig-domain", "atanh", "forward", "jnp.arctanh(x)")),
    (inverse_of_tanh, [0.0, 1.0], ("inverse-trig-domain", "atanh", "forward", "jnp.arctanh(x)")),
    (root_as_a_power, [0.0, 1.0], ("pow-grad-at-zero", "pow", "backward", "x**0.5")),
    (
        masked_row,
        [0.0, 1.0],
        ("all-masked-softmax", "logsumexp", "forward", "jax.nn.logsumexp(jnp.where(x > 5, x, -jnp.inf), axis=-1)"),
    ),
    (residual, [0.0, 0.0], ("sqrt-grad-at-zero", "sqrt", "forward", "jnp.sqrt(jnp.sum(p * p))")),
    (trap_of_a_root, [-1.0, 2.0], ("masked-branch-gradient", "sqrt", "backward", "jnp.sqrt(x)")),  # its slope at -1 is NaN, not inf
    (trap_of_a_power, [-1.0, 2.0], ("masked-branch-gradient", "pow", "backward", "x**1.5")),
    (heading, [-7e-45, -7e-45], ("atan2-at-origin", "atan2", "forward", "jnp.arctan2(x[:1], x[1:])")),
]


@pytest.mark.parametrize(("loss", "x", "right"), CASES, ids=[f"{loss.__name__}-{k}" for k, (loss, _, _) in enumerate(CASES)])
def test_the_cause_is_that_of_what_the_source_calls(loss, x, right) -> None:
    why = blame(load(loss, "loss").capture({"x": np.asarray(x, np.float32)}, ("x",), "jit"))
    assert why is not None and why.site is not None
    assert (why.cause, why.op, why.phase, why.site.text) == right
    assert "const" not in why.message
