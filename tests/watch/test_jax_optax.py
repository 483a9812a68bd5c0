"""`whynan.optax.guard`: no bad update is ever applied, under every transformation that optimizers are used with."""

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

import whynan.optax
from whynan import watch
from whynan.errors import NonFiniteError

PARAMS = {"a": jnp.arange(3.0), "b": jnp.ones((2, 2), jnp.bfloat16)}
GOOD = {"a": jnp.ones(3), "b": jnp.ones((2, 2), jnp.bfloat16)}
NAN = {"a": jnp.array([1.0, jnp.nan, 1.0]), "b": jnp.ones((2, 2), jnp.bfloat16)}
INF = {"a": jnp.ones(3), "b": jnp.full((2, 2), jnp.inf, jnp.bfloat16)}


def same(a, b):
    return jax.tree.all(jax.tree.map(lambda x, y: np.array_equal(x, y), a, b))


def applied(optimizer, gradients, params=PARAMS):
    """The parameters and the state after these gradients, one after the other."""

    @jax.jit
    def step(params, state, g):
        updates, state = optimizer.update(g, state, params)
        return optax.apply_updates(params, updates), state

    state = optimizer.init(params)
    for g in gradients:
        params, state = step(params, state, g)
    return params, state


def test_bad_updates_are_as_if_they_had_not_been():
    params, state = applied(whynan.optax.guard(optax.adam(0.1)), [GOOD, NAN, INF, NAN, NAN, NAN, NAN, GOOD])
    wanted, inner = applied(optax.adam(0.1), [GOOD, GOOD])
    assert same(params, wanted) and same(state.inner_state, inner)
    assert whynan.optax.bad_steps(state) == 6 and whynan.optax.in_a_row(state) == 0


def test_however_many_in_a_row():
    params, state = applied(whynan.optax.guard(optax.sgd(0.1, momentum=0.9)), [NAN] * 20)
    assert same(params, PARAMS) and whynan.optax.in_a_row(state) == whynan.optax.bad_steps(state) == 20
    ruined, _ = applied(optax.apply_if_finite(optax.sgd(0.1), 5), [NAN] * 20)
    assert not np.isfinite(ruined["a"]).all(), "what this is compared with lets them through"


def test_updates_that_the_optimizer_itself_makes_bad():
    zero = {"a": jnp.zeros(3), "b": jnp.zeros((2, 2), jnp.bfloat16)}  # Adam without an epsilon divides 0 by 0
    params, state = applied(whynan.optax.guard(optax.adam(0.1, eps=0)), [zero])
    assert same(params, PARAMS) and whynan.optax.bad_steps(state) == 1
    params, _ = applied(whynan.optax.guard(optax.adam(0.1, eps=0), check_updates=False), [zero])
    assert not np.isfinite(params["a"]).all()


@pytest.mark.parametrize(
    "wrap",
    [
        lambda o: o,
        lambda o: optax.chain(optax.clip_by_global_norm(1.0), o),
        lambda o: optax.multi_transform({"x": o, "y": optax.sgd(0.1)}, {"a": "x", "b": "x"}),
        lambda o: optax.masked(o, {"a": True, "b": True}),
        lambda o: optax.inject_hyperparams(lambda learning_rate: optax.chain(o, optax.scale(learning_rate)))(learning_rate=0.5),
    ],
    ids=["alone", "chain", "multi_transform", "masked", "inject_hyperparams"],
)
def test_inside_of_other_transformations(wrap):
    params, state = applied(wrap(whynan.optax.guard(optax.adam(0.1))), [GOOD, NAN, GOOD])
    wanted, _ = applied(wrap(optax.adam(0.1)), [GOOD, GOOD])
    assert same(params, wanted) and whynan.optax.bad_steps(state) == 1


def test_around_other_transformations():
    inner = optax.inject_hyperparams(optax.adam)(learning_rate=0.1)
    params, state = applied(whynan.optax.guard(inner), [NAN, GOOD])
    assert same(params, applied(inner, [GOOD])[0]) and whynan.optax.bad_steps(state) == 1
    several = optax.MultiSteps(optax.sgd(0.1), every_k_schedule=2).gradient_transformation()
    params, state = applied(whynan.optax.guard(several), [GOOD, NAN, GOOD])
    assert same(params, applied(several, [GOOD, GOOD])[0]), "a bad part of a step is left out of its sum"


def test_extra_arguments_reach_the_optimizer():
    plateau = optax.chain(optax.sgd(0.1), optax.contrib.reduce_on_plateau(patience=1))
    guarded = whynan.optax.guard(plateau)
    state = guarded.init(PARAMS)
    updates, state = guarded.update(GOOD, state, PARAMS, value=jnp.float32(1.0))
    assert whynan.optax.bad_steps(state) == 0 and float(updates["a"][0]) != 0


def test_under_scan_and_vmap():
    optimizer = whynan.optax.guard(optax.adam(0.1))
    gradients = jax.tree.map(lambda *g: jnp.stack(g), GOOD, NAN, GOOD)

    def step(carry, g):
        params, state = carry
        updates, state = optimizer.update(g, state, params)
        return (optax.apply_updates(params, updates), state), whynan.optax.bad_steps(state)

    def run(params, gradients):
        return jax.lax.scan(step, (params, optimizer.init(params)), gradients)

    (params, _), counts = jax.jit(run)(PARAMS, gradients)
    wanted = applied(optax.adam(0.1), [GOOD, GOOD])[0]
    assert np.allclose(params["a"], wanted["a"]) and counts.tolist() == [0, 1, 1]
    each = jax.tree.map(lambda g: g[:, None], gradients)  # three runs of one step each
    (params, state), _ = jax.vmap(run, in_axes=(None, 0))(PARAMS, each)
    assert np.isfinite(params["a"]).all() and state.bad_steps.tolist() == [0, 1, 0] and whynan.optax.bad_steps(state) == 1


def test_under_pmap():
    optimizer = whynan.optax.guard(optax.sgd(0.1))
    wide = jax.tree.map(lambda x: x[None], PARAMS)

    def step(params, g):
        updates, state = optimizer.update(jax.lax.pmean(g, "d"), optimizer.init(params), params)
        return optax.apply_updates(params, updates), state

    params, state = jax.pmap(step, axis_name="d")(wide, jax.tree.map(lambda x: x[None], NAN))
    assert same(params, wide) and whynan.optax.bad_steps(state) == 1


def test_a_train_state_of_flax():
    state = TrainState.create(apply_fn=None, params=PARAMS, tx=whynan.optax.guard(optax.adam(0.1)))
    after = jax.jit(lambda s, g: s.apply_gradients(grads=g))(state, NAN)
    assert same(after.params, PARAMS) and whynan.optax.bad_steps(after) == whynan.optax.in_a_row(after) == 1


def test_integer_and_complex_parameters():
    params = {"z": jnp.ones(2, jnp.complex64)}
    after, state = applied(whynan.optax.guard(optax.sgd(0.1)), [{"z": jnp.array([1.0, jnp.nan * 1j])}], params)
    assert same(after, params) and whynan.optax.bad_steps(state) == 1
    assert whynan.optax.bad_steps(optax.adam(0.1).init(PARAMS)) == 0


def test_a_watched_step_explains_what_the_guard_dropped():
    optimizer = whynan.optax.guard(optax.adam(0.1))

    @jax.jit
    def step(params, state, x):
        loss, grads = jax.value_and_grad(lambda p: jnp.mean(jnp.sqrt(jnp.abs(x * p["w"]))))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, loss

    params = {"w": jnp.ones(2)}
    watched = watch(step, folder=None, policy="skip", patience=2)
    x = np.ones((4, 2), np.float32)
    x[3, 1] = 0
    new, state, _ = watched(params, optimizer.init(params), x)
    (incident,) = watched.incidents
    assert incident.cause == "sqrt-grad-at-zero" and incident.suspects.samples == (3,) and incident.parameter == "params['w']"
    assert same(new, params) and whynan.optax.bad_steps(state) == watched.bad_steps == 1
    with pytest.raises(NonFiniteError):
        watched(new, state, x)


def test_the_state_can_be_given_to_a_step_that_donates_it():
    guarded = whynan.optax.guard(optax.adam(0.1))
    params = {"w": jnp.ones(2)}
    step = jax.jit(lambda state, grads, params: guarded.update(grads, state, params), donate_argnums=0)
    _, state = step(guarded.init(params), {"w": jnp.array([1.0, jnp.nan])}, params)
    assert whynan.optax.bad_steps(state) == 1
