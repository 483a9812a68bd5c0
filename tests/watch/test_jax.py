"""A watched JAX step that goes bad: expression, cause, sample and parameter are named, and the state is as before."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from whynan.errors import NonFiniteError
from whynan.watch.jax import watch
from whynan.watch.record import OPERATION

KEY = jax.random.key(0)


def parameters(inside=3, hidden=4):
    a, b = jax.random.split(KEY)
    return {"hidden": {"w": jax.random.normal(a, (inside, hidden)), "b": jnp.zeros(hidden)}, "out": jax.random.normal(b, (hidden,))}


def forward(params, x):
    with jax.named_scope("hidden"):
        h = jnp.tanh(x @ params["hidden"]["w"] + params["hidden"]["b"])
    with jax.named_scope("out"):
        return h @ params["out"]


def stepper(loss_fn, optimizer=None, jit=jax.jit):
    """A usual training step for a loss of parameters and batch."""
    optimizer = optimizer or optax.adam(1e-2)

    def step(params, opt_state, batch):
        loss, grads = jax.value_and_grad(loss_fn)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    return jit(step), optimizer


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y, equal_nan=True), a, b))


def fails(loss_fn, batch, params=None, jit=jax.jit, healthy=None, **options):
    """Take healthy steps, then one that must fail; its incident. The state that the error leaves behind is compared with a copy."""
    step, optimizer = stepper(loss_fn, jit=jit)
    params = parameters() if params is None else params
    state = optimizer.init(params)
    watched = watch(step, folder=None, **options)
    for _ in range(2 if healthy is not None else 0):
        params, state, _ = watched(params, state, healthy)
    before = jax.tree.map(np.array, (params, state))
    with pytest.raises(NonFiniteError) as caught:
        watched(params, state, batch)
    assert same((params, state), before), "the parameters are as they were"
    incident = caught.value.incident
    assert incident.step == (2 if healthy is not None else 0) and incident.reproduced and incident.how == "eager"
    return incident


def batch_of(n=4, **more):
    x = np.linspace(-1, 1, 3 * n).reshape(n, 3).astype(np.float32)
    return {"x": x, "y": np.ones(n, np.float32), **more}


def changed(batch, name, index, value):
    """A batch with one element changed."""
    array = np.array(batch[name])
    array[index] = value
    return {**batch, name: array}


@pytest.mark.parametrize("jit", [jax.jit, partial(jax.jit, donate_argnums=(0, 1)), lambda f: f], ids=["jit", "donated", "plain"])
def test_log_of_zero_in_the_loss(jit):
    def loss(params, batch):
        q = jax.nn.sigmoid(forward(params, batch["x"])) * batch["y"]
        return -jnp.mean(jnp.log(q))

    good = batch_of()
    incident = fails(loss, changed(good, "y", 2, 0), jit=jit, healthy=good)
    assert incident.cause == "log-of-zero" and incident.finding.site.text == "jnp.log(q)" and incident.finding.phase == "forward"
    assert incident.kind == OPERATION and incident.failed == "loss"
    assert incident.suspects.samples == (2,) and incident.suspects.alone == (2,)
    assert "batch['y'][2] = 0" in str(incident)
    assert set(incident.parameters) <= {"params['hidden']['b']", "params['hidden']['w']", "params['out']"}
