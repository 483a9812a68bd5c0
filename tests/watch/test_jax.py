"""A watched JAX step that goes bad: expression, cause, sample and parameter are named, and the state is as before."""

from functools import partial

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from whynan import watch
from whynan.errors import NonFiniteError
from whynan.watching.record import BAD_DATA, CUSTOM_BACKWARD, DIVERGENCE, OPERATION, OVERFLOW

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
    optimizer = optimizer or optax.sgd(1e-2, momentum=0.9)

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


def test_norm_gradient_at_zero():
    def loss(params, batch):
        return jnp.mean(jnp.linalg.norm(batch["x"] * params["scale"], axis=-1))

    good = batch_of()
    incident = fails(loss, changed(good, "x", 3, 0), {"scale": jnp.ones(3)}, healthy=good)
    assert incident.cause == "norm-grad-at-zero" and incident.finding.phase == "backward" and incident.failed == "gradient"
    assert incident.finding.site.text == 'jnp.linalg.norm(batch["x"] * params["scale"], axis=-1)'
    assert incident.suspects.samples == (3,) and incident.suspects.alone == (3,) and incident.parameter == "params['scale']"


def test_gradients_are_not_taken_for_those_of_an_optimizers_state():
    optimizer = optax.MultiSteps(optax.chain(optax.clip(1.0), optax.adam(1e-3)), 2)

    @jax.jit
    def step(*, state, batch):
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(jnp.log(batch["x"] @ p["w"])))(state["params"])
        updates, opt = optimizer.update(jax.tree.map(lambda g: g / 2, grads), state["opt"], state["params"])
        return {"opt": opt, "params": optax.apply_updates(state["params"], updates)}, loss

    params = {"w": jnp.ones(3)}
    with pytest.raises(NonFiniteError) as caught:
        watch(step, folder=None)(state={"opt": optimizer.init(params), "params": params}, batch={"x": np.zeros((1, 3), np.float32)})
    assert caught.value.incident.parameters == ("state['params']['w']",)
    assert "batch['x'][0, 0] = 0" in str(caught.value)


def test_square_root_gradient_at_zero():
    def loss(params, batch):
        return jnp.mean(jnp.sqrt(jnp.square(forward(params, batch["x"]) * batch["y"])))

    good = batch_of()
    incident = fails(loss, changed(good, "y", 1, 0), healthy=good)
    assert incident.cause == "sqrt-grad-at-zero" and incident.finding.phase == "backward"
    assert incident.finding.site.text.startswith("jnp.sqrt(") and incident.suspects.samples == (1,)


def test_the_where_trap():
    def loss(params, batch):
        z = forward(params, batch["x"]) ** 2 * batch["y"]
        return jnp.mean(jnp.where(z > 0, jnp.log(z), 0.0))

    good = batch_of()
    incident = fails(loss, changed(good, "y", 2, 0), healthy=good)
    assert incident.cause == "masked-branch-gradient" and incident.finding.site.text == "jnp.log(z)"
    assert incident.finding.phase == "backward" and incident.suspects.samples == (2,) and incident.suspects.alone == (2,)


def the_trap(z):
    return jnp.where(z > 0, jnp.log(z), 0.0)


@pytest.mark.parametrize(("of", "cause"), [(jnp.log, "log-of-zero"), (the_trap, "masked-branch-gradient")])
def test_a_step_that_computes_gradients_alone_is_told_of_what_was_differentiated(of, cause):
    def loss(params, batch):
        return jnp.mean(of(batch["x"] @ params["w"]))

    @jax.jit
    def step(params, batch):
        return jax.tree.map(lambda p, g: p - 1e-2 * g, params, jax.grad(loss)(params, batch))

    good = {"x": np.ones((4, 3), np.float32)}
    watched = watch(step, folder=None)
    params = watched({"w": jnp.ones(3)}, good)
    with pytest.raises(NonFiniteError) as caught:
        watched(params, changed(good, "x", 2, 0))
    incident = caught.value.incident
    assert incident.cause == cause and incident.finding.phase == "backward" and incident.parameters == ("params['w']",)
    assert incident.finding.op == "log" and incident.suspects.samples == (2,)


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_bad_data(value):
    def loss(params, batch):
        return jnp.mean((forward(params, batch["x"]) - batch["y"]) ** 2)

    good = batch_of(8)
    incident = fails(loss, changed(good, "x", (5, 1), value), healthy=good)
    assert incident.kind == BAD_DATA
    assert incident.cause == "nonfinite-input"
    assert incident.suspects.samples == (5,) and incident.suspects.alone == (5,)
    (element,) = incident.suspects.elements
    assert (element.name, element.index) == ("batch['x']", (5, 1)) and np.array_equal(element.value, value, equal_nan=True)


def test_overflow_of_exp_then_division():
    def loss(params, batch):
        e = jnp.exp(batch["x"] * params["scale"])
        return jnp.mean(e[:, 0] / e.sum(axis=-1))

    good = batch_of()
    incident = fails(loss, changed(good, "x", (1, 0), 100), {"scale": jnp.ones(3)}, healthy=good)
    assert incident.cause == "exp-overflow" and incident.kind == OVERFLOW
    assert incident.finding.site.text == 'jnp.exp(batch["x"] * params["scale"])' and incident.suspects.samples == (1,)
    assert incident.suspects.elements[0].value == 100


def test_softmax_of_an_empty_row():
    def loss(params, batch):
        scores = jnp.where(batch["mask"], batch["x"] * params["scale"], -jnp.inf)
        return jnp.mean(jax.nn.softmax(scores, axis=-1) @ params["out"])

    good = batch_of(mask=np.ones((4, 3), bool))
    incident = fails(loss, changed(good, "mask", 2, False), {"scale": jnp.ones(3), "out": jnp.ones(3)}, healthy=good)
    assert incident.cause == "all-masked-softmax" and incident.finding.site.text == "jax.nn.softmax(scores, axis=-1)"
    assert incident.suspects.samples == (2,) and incident.suspects.alone == (2,)


def test_a_row_masked_out_among_others_that_are_masked_in_part():
    def loss(params, batch):
        scores = jnp.einsum("btd,bsd->bts", batch["x"] * params["scale"], batch["x"])
        return jnp.mean(jax.nn.softmax(jnp.where(batch["mask"][:, None, :], scores, -jnp.inf), axis=-1) @ params["out"])

    mask = np.ones((4, 3), bool)
    mask[:, 0] = False  # infinities of the mask's own, in all samples
    good = {"x": np.linspace(-1, 1, 24).reshape(4, 3, 2).astype(np.float32), "mask": mask}
    incident = fails(loss, changed(good, "mask", 2, False), {"scale": jnp.ones(2), "out": jnp.ones(3)}, healthy=good)
    assert incident.cause == "all-masked-softmax" and "gives NaN" in incident.finding.message
    assert incident.suspects.samples == (2,)


def test_overflow_in_half_precision():
    def loss(params, batch):
        h = batch["x"].astype(jnp.float16) @ params["w"].astype(jnp.float16)
        return jnp.mean((h * h).astype(jnp.float32))

    good = batch_of()
    incident = fails(loss, changed(good, "x", 1, 300), {"w": jnp.ones((3, 2))}, healthy=good)
    assert incident.kind == OVERFLOW and incident.finding.site.text == "h * h" and incident.suspects.samples == (1,)


def test_half_precision_parameters():
    def loss(params, batch):
        return jnp.mean(jnp.log(batch["y"].astype(jnp.bfloat16) * params["w"]))

    good = batch_of()
    incident = fails(loss, changed(good, "y", 3, 0), {"w": jnp.ones((), jnp.bfloat16)}, healthy=good)
    assert incident.cause == "log-of-zero" and incident.suspects.samples == (3,)


@jax.custom_vjp
def root(x):
    return jnp.sqrt(x)


def _root_forward(x):
    return root(x), x


def _root_backward(x, g):
    steepness = 1 / x
    return (g * steepness,)


root.defvjp(_root_forward, _root_backward)


def test_a_backward_of_the_users_own():
    def loss(params, batch):
        return jnp.mean(root(jnp.abs(forward(params, batch["x"]) * batch["y"])))

    good = batch_of()
    incident = fails(loss, changed(good, "y", 2, 0), healthy=good)
    assert incident.kind == CUSTOM_BACKWARD and incident.finding.phase == "backward"
    assert incident.finding.site.text == "1 / x" and incident.finding.site.function == "_root_backward"
    assert incident.suspects.samples == (2,)


def test_division_by_an_empty_mask():
    def loss(params, batch):
        error = (forward(params, batch["x"]) - batch["y"]) ** 2
        return (error * batch["mask"]).sum() / batch["mask"].sum()

    good = batch_of(mask=np.ones(4, np.float32))
    incident = fails(loss, {**good, "mask": np.zeros(4, np.float32)}, healthy=good)
    assert incident.cause == "zero-over-zero" and incident.finding.site.text == '(error * batch["mask"]).sum() / batch["mask"].sum()'
    assert incident.suspects.alone == (), "any sample fails alone: it is no sample's doing"
    assert "batch['mask'][0] = 0" in str(incident)
    assert incident.sample is None


def test_an_index_outside_of_the_embedding():
    def loss(params, batch):
        return jnp.mean(jnp.take(params["table"], batch["word"], axis=0) ** 2)

    good = {"word": np.arange(6) % 5}
    incident = fails(loss, changed(good, "word", 4, 7), {"table": jnp.ones((5, 2))}, healthy=good)
    assert incident.finding.site.text == 'jnp.take(params["table"], batch["word"], axis=0)'
    assert incident.kind == BAD_DATA and "outside of the array" in incident.finding.message
    assert incident.suspects.samples == (4,), str(incident)
    assert "batch['word'][4] = 7" in str(incident)


def test_a_learning_rate_100_times_too_high_is_divergence():
    def loss(params, batch):
        return jnp.mean((batch["x"] @ params["w"] - batch["y"]) ** 2)

    step, optimizer = stepper(loss, optax.sgd(10.0))
    params = {"w": jnp.ones(3)}
    state, watched, batch = optimizer.init(params), watch(step, folder=None, policy="stop"), batch_of()
    while not watched.stopped and watched.step < 200:
        params, state, _ = watched(params, state, batch)
    (incident,) = watched.incidents
    assert incident.kind == DIVERGENCE and incident.advice and all(np.isfinite(params["w"]))


# ---------------------------------------------------------------- no alarm


def passes(loss_fn, batch, params=None, has_aux=False):
    """Take two steps that must be applied; the watch and what came out."""
    optimizer = optax.sgd(1e-3)

    @jax.jit
    def step(params, opt_state, batch):
        out, grads = jax.value_and_grad(loss_fn, has_aux=has_aux)(params, batch)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, *(out if has_aux else (out,))

    params = parameters() if params is None else params
    state = optimizer.init(params)
    watched = watch(step, folder=None)
    for _ in range(2):
        params, state, *out = watched(params, state, batch)
    assert watched.step == 2 and not watched.incidents
    return watched, out


def test_a_mask_of_minus_infinity_is_harmless():
    def loss(params, batch):
        scores = jnp.where(batch["mask"], batch["x"] * params["scale"], -jnp.inf)
        return jnp.mean(jax.nn.softmax(scores, axis=-1) @ params["out"])

    mask = np.ones((4, 3), bool)
    mask[1, 2] = False
    passes(loss, batch_of(mask=mask), {"scale": jnp.ones(3), "out": jnp.ones(3)})


def test_a_masked_row_that_where_removes_is_harmless():
    def loss(params, batch):
        alive = batch["mask"].any(axis=-1, keepdims=True)
        scores = jnp.where(batch["mask"], batch["x"] * params["scale"], -jnp.inf)
        weights = jnp.where(alive, jax.nn.softmax(jnp.where(alive, scores, 0.0), axis=-1), 0.0)
        return jnp.mean(weights @ params["out"])

    mask = np.ones((4, 3), bool)
    mask[1] = False
    passes(loss, batch_of(mask=mask), {"scale": jnp.ones(3), "out": jnp.ones(3)})


def test_a_gradient_that_relu_erases_is_harmless():
    def loss(params, batch):
        return jnp.mean(jnp.sqrt(jax.nn.relu(batch["x"][:, 0] * params["scale"])))  # the root's derivative at 0 is infinite

    passes(loss, batch_of(), {"scale": jnp.ones(())})


def test_a_metric_that_is_only_logged_is_harmless():
    def loss(params, batch):
        error = (forward(params, batch["x"]) - batch["y"]) ** 2
        return jnp.mean(error), {"ratio": error.sum() / jnp.zeros(())}

    _, (value, metrics) = passes(loss, batch_of(), has_aux=True)
    assert np.isfinite(value) and not np.isfinite(metrics["ratio"])
