"""Watched JAX steps of objects: Flax NNX modules that a step changes in place, jitted methods; how arguments are called."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax import nnx
from tests.watch.test_jax import same

from whynan import watch
from whynan.watching.jax.wiring import named_arrays


def test_objects_of_nnx_that_a_step_changes_in_place():
    class Model(nnx.Module):
        def __init__(self, rngs):
            self.first = nnx.Linear(3, 4, rngs=rngs)
            self.norm = nnx.BatchNorm(4, rngs=rngs)

        def __call__(self, x):
            return self.norm(self.first(x)).sum(axis=-1)

    model = Model(nnx.Rngs(0))
    optimizer = nnx.Optimizer(model, optax.adam(1e-2), wrt=nnx.Param)

    @nnx.jit
    def train(model, optimizer, x, y):
        loss, grads = nnx.value_and_grad(lambda m: jnp.mean(jnp.exp(m(x)) / y))(model)
        optimizer.update(model, grads)
        return loss

    x, y = np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32), np.ones(6, np.float32)
    watched = watch(train, folder=None, policy="skip")
    first = jax.tree.map(np.array, nnx.state(model))
    watched(model, optimizer, x, y)
    good = jax.tree.map(np.array, nnx.state((model, optimizer)))
    assert not same(first, jax.tree.map(np.array, nnx.state(model)))
    y[2] = 0
    watched(model, optimizer, x, y)
    assert same(nnx.state((model, optimizer)), good), "the objects hold what they held before"
    (incident,) = watched.incidents
    assert incident.cause == "div-by-zero" and incident.sample == 2  # told by trying: batch norm mixes the samples
    assert incident.parameter.startswith("model.") and "optimizer" not in incident.parameter
    watched(model, optimizer, x, np.ones(6, np.float32))
    assert watched.bad_steps == 1 and not same(nnx.state((model, optimizer)), good)


class Rooted(nnx.Module):
    def __init__(self, rngs):
        self.scale = nnx.Linear(3, 3, use_bias=False, rngs=rngs)

    def __call__(self, x):
        return jnp.sqrt(jnp.abs(self.scale(x)))


class Roots(nnx.Module):
    def __init__(self, rngs):
        self.blocks = nnx.List([Rooted(rngs), Rooted(rngs)])

    def features(self, x):
        for block in self.blocks:
            x = block(x)
        return x


def test_layers_parameters_and_data_of_a_step_of_objects_have_the_users_names():
    @nnx.jit
    def train(net, optimizer, batch):
        loss, grads = nnx.value_and_grad(lambda m: m.features(batch["x"]).mean())(net)
        optimizer.update(net, grads)
        return loss

    net, own = Roots(nnx.Rngs(0)), Rooted.__call__
    optimizer = nnx.Optimizer(net, optax.adam(1e-2), wrt=nnx.Param)
    watched = watch(train, folder=None, policy="skip")
    x = np.ones((4, 3), np.float32)
    watched(net, optimizer, {"x": x})
    x[2] = 0
    watched(net, optimizer, {"x": x})
    x[2, 1] = np.nan
    watched(net, optimizer, batch={"x": x})
    zero, nan = watched.incidents
    assert zero.cause == "sqrt-grad-at-zero" and zero.layer == "blocks.0" and "batch['x'][2, 0] = 0" in str(zero)
    assert zero.parameter == "net.blocks[0].scale.kernel"
    assert nan.finding.message == "batch['x'][2, 1] is NaN before anything is computed." and nan.suspects.samples == (2,)
    assert Rooted.__call__ is own and not any("whynan" in name for name in (*vars(net), *vars(net.blocks[0]))), "nothing stays"


class Trainer:
    rate = 0.5

    @partial(jax.jit, static_argnums=(0, 2), donate_argnames="state")
    def step(self, batch, power, state):
        loss, grad = jax.value_and_grad(lambda w: jnp.mean(jnp.log(batch["x"] @ w) ** power))(state)
        return state - self.rate * grad, loss


def test_a_jitted_method_with_arguments_that_are_static_and_donated():
    trainer = Trainer()
    watched = watch(trainer.step, folder=None, policy="skip")
    x, old = np.ones((4, 3), np.float32), jnp.ones(3)
    new, loss = watched({"x": x}, 2, old)
    assert np.allclose(new, 1 - trainer.rate * 2 * np.log(3) / 3) and np.isclose(loss, np.log(3) ** 2)
    kept, _ = watched({"x": np.where(np.arange(4)[:, None] == 1, 0, x)}, 2, new)
    (incident,) = watched.incidents
    assert same(kept, new) and incident.cause == "log-of-zero" and "batch['x'][1, 0] = 0" in str(incident)
    assert incident.parameter == "state"


@pytest.mark.parametrize("how", ["named", "together"])
def test_objects_given_by_name_or_in_a_tuple_are_guarded(how):
    def train(net, optimizer, x):
        loss, grads = nnx.value_and_grad(lambda m: jnp.log(m.features(x)).mean())(net)
        optimizer.update(net, grads)
        return loss

    net = Roots(nnx.Rngs(0))
    both = (net, nnx.Optimizer(net, optax.adam(1e-2), wrt=nnx.Param))
    watched = watch(nnx.jit(train if how == "named" else lambda run, x: train(*run, x)), folder=None, policy="skip")

    def step(x):
        watched(net=both[0], optimizer=both[1], x=x) if how == "named" else watched(both, x)

    x = np.ones((4, 3), np.float32)
    step(x)
    good = jax.tree.map(np.array, nnx.state(both))
    step(np.where(np.arange(4)[:, None] == 2, 0, x))
    (incident,) = watched.incidents
    assert same(nnx.state(both), good) and incident.cause == "log-of-zero" and "x[2, 0] = 0" in str(incident)
    assert incident.parameter == ("net" if how == "named" else "run[0]") + ".blocks[0].scale.kernel"
    step(x)
    assert watched.bad_steps == 1 and not same(nnx.state(both), good)


def step_of(state, *batch, rate=0.1, **more): ...


@pytest.mark.parametrize(
    ("function", "args", "kwargs", "names"),
    [
        (step_of, ({"w": 1.0}, [2.0]), {"rate": [3.0]}, ["state['w']", "batch[0][0]", "rate[0]"]),
        (jax.jit(step_of), ({"w": 1.0}, [2.0]), {"extra": [3.0]}, ["state['w']", "batch[0][0]", "extra[0]"]),
        (partial(step_of, None), ([2.0], [2.0]), {}, ["batch[0][0]", "batch[1][0]"]),
        (nnx.jit(step_of), ([2.0],), {}, ["state[0]"]),
        (lambda *args: None, ([2.0],), {}, ["args[0][0]"]),
        (max, ([2.0],), {}, ["args[0][0]"]),
    ],
)
def test_arguments_have_the_names_that_the_step_has_for_them(function, args, kwargs, names):
    assert list(named_arrays(function, args, kwargs)) == names
