"""A watched JAX step: divergence and a sudden fault are told apart from losses and the norm of the state."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import whynan
from whynan.errors import NonFiniteError
from whynan.watching.record import DIVERGENCE

WEIGHTS = np.linspace(-2, 2, 10, dtype=np.float32)[:, None]


def trained(rate, steps, bad_row=-1):
    """The incident that ends the training, None if none does."""

    def loss(p, x, y):
        return jnp.mean((jnp.maximum(x @ p["a"], 0) @ p["b"] - y) ** 2)

    @jax.jit
    def step(p, x, y):
        value, gradient = jax.value_and_grad(loss)(p, x, y)
        return jax.tree.map(lambda a, b: a - rate * b, p, gradient), value

    rng = np.random.default_rng(0)
    p = {"a": 0.3 * rng.normal(size=(10, 32)).astype("f"), "b": 0.2 * rng.normal(size=(32, 1)).astype("f")}
    watched = whynan.watch(step, folder=None)
    try:
        for i in range(steps):
            x = rng.normal(size=(32, 10)).astype("f")
            y = x @ WEIGHTS
            x[3] *= 1e10 if i == bad_row else 1
            p, _ = watched(p, x, y)
    except NonFiniteError as error:
        return error.incident
    return None


@pytest.mark.parametrize("rate", [1.0, 10.0, 1e4])
def test_a_learning_rate_too_high(rate):
    incident = trained(rate, 100)
    assert incident.kind == DIVERGENCE and incident.cause == "divergence" and incident.finding.site is None
    assert "the norm of the parameters from" in incident.finding.message


def test_a_finite_bad_row_one_step_before():
    incident = trained(0.05, 60, bad_row=50)
    assert incident.step == 51 and incident.kind != DIVERGENCE
    assert any("look at step 50" in a for a in incident.advice)


def test_a_healthy_run():
    assert trained(0.02, 60) is None


def test_a_gradient_norm_among_the_metrics_and_unchanged_numbers():
    @jax.jit
    def step(p, x):
        value, g = jax.value_and_grad(lambda p: jnp.mean(jnp.tanh(x @ p) ** 2))(p)
        return p - 0.1 * g, {"loss": value, "grad_norm": jnp.linalg.norm(g)}

    x = np.linspace(-1, 1, 60, dtype=np.float32).reshape(12, 5)
    p = q = np.ones((5, 33), np.float32)
    norms = []
    with whynan.watch(step, folder=None) as watched:
        for _ in range(20):
            p, found = watched(p, x)
            q, _ = step(q, x)
            norms.append(float(found["grad_norm"]))
        assert watched.step == 20 and [m.gradient_norm for m in watched.flight] == norms
        assert watched.flight[1].parameter_norm > 0 and watched.flight[0].update_ratio > 0
    assert np.array_equal(p, q)
