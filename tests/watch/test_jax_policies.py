"""What a watched JAX step does about bad steps: policies, donated arguments, steps guarded on the device, states of Flax."""

import os
import subprocess
import sys
from functools import partial
from pathlib import Path

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from flax.training.train_state import TrainState

from whynan import watch
from whynan.errors import NonFiniteError, WhynanError
from whynan.watching.jax.watcher import JaxWatch
from whynan.watching.policy import Options
from whynan.watching.record import BAD_STATE, UNEXPLAINED

OPTIMIZER = optax.adam(0.1)


def loss_fn(params, x, y):
    return jnp.mean((jnp.log(jnp.abs(x)) @ params["w"] - y) ** 2)


def plain(params, opt_state, x, y):
    loss, grads = jax.value_and_grad(loss_fn)(params, x, y)
    updates, opt_state = OPTIMIZER.update(grads, opt_state, params)
    return optax.apply_updates(params, updates), opt_state, loss


step = jax.jit(plain)
donating = partial(jax.jit, donate_argnums=(0, 1))(plain)
GOOD = (np.full((4, 2), 2.0, np.float32), np.ones(4, np.float32))
BAD = (np.array([[2, 2], [2, 0], [2, 2], [2, 2]], np.float32), GOOD[1])


def begun():
    params = {"w": jnp.ones(2)}
    return params, OPTIMIZER.init(params)


def run(watched, batches):
    """All batches one after the other; the state after each step."""
    params, state = begun()
    states = [(jax.tree.map(np.array, (params, state)))]
    for x, y in batches:
        params, state, _ = watched(params, state, x, y)
        states.append(jax.tree.map(np.array, (params, state)))
    return states


def same(a, b):
    return jax.tree.all(jax.tree.map(np.array_equal, a, b))


def on_device(function, late=4, **options):
    return JaxWatch(function, Options(folder=None, **options), on_device=True, late=late)


WATCHES = {
    "cpu": lambda **o: watch(step, folder=None, **o),
    "cpu, donated": lambda **o: watch(donating, folder=None, **o),
    "device": lambda **o: on_device(step, **o),
    "device, donated": lambda **o: on_device(donating, **o),
}


@pytest.mark.parametrize("made", WATCHES.values(), ids=WATCHES.keys())
def test_skip(made):
    watched = made(policy="skip", patience=3)
    states = run(watched, [GOOD, BAD, BAD, GOOD])
    assert same(states[1], states[3]) and not same(states[3], states[4])
    assert same(states[4], run(step, [GOOD, GOOD])[-1]), "as if the bad steps had not been"
    assert (watched.step, watched.bad_steps) == (4, 2) and [m.outcome for m in watched.flight] == ["applied", "skip", "skip", "applied"]
    assert watched.incidents[0].cause == "log-of-zero" and watched.incidents[0].suspects.alone == (1,)


@pytest.mark.parametrize("made", [WATCHES["cpu"], WATCHES["device, donated"]], ids=["cpu", "device"])
def test_the_last_of_too_many_in_a_row_raises_and_is_not_applied(made):
    watched = made(policy="skip", patience=2, incidents=1)
    params, state = begun()
    params, state, _ = watched(params, state, *BAD)
    before = jax.tree.map(np.array, (params, state))
    with pytest.raises(NonFiniteError) as caught:
        watched(jax.tree.map(jnp.copy, params), jax.tree.map(jnp.copy, state), *BAD)
    assert caught.value.in_a_row == 2 and same((params, state), before)


@pytest.mark.parametrize("function", [step, donating], ids=["kept", "donated"])
def test_a_verdict_that_is_read_late(function):
    watched = on_device(function, late=3)
    params, state, _ = watched(*begun(), *GOOD)
    good = jax.tree.map(np.array, (params, state))
    batches = iter([BAD, GOOD, GOOD, GOOD, GOOD, GOOD])

    def until_it_raises():
        nonlocal params, state
        for batch in batches:
            params, state, _ = watched(params, state, *batch)

    with pytest.raises(NonFiniteError) as caught:
        until_it_raises()
    incident = caught.value.incident
    assert same((params, state), good), "steps after the bad one are held back until it is known"
    assert incident.step == 1 and incident.suspects.samples == (1,) and incident.finding.site.text == "jnp.log(jnp.abs(x))"
    params, state, _ = watched(params, state, *GOOD)  # who catches the error may go on
    assert not same((params, state), good)


def test_the_last_steps_are_read_at_the_end():
    with pytest.raises(NonFiniteError), on_device(step) as watched:
        watched(*begun(), *BAD)
    watched = on_device(step)
    params, state, _ = watched(*begun(), *GOOD)
    watched(params, state, *GOOD)
    watched.close()
    assert watched.step == 2 and watched.flight[1].parameter_norm > 0


@pytest.mark.parametrize(("made", "disk"), [("cpu", False), ("cpu, donated", True), ("device", True), ("device, donated", False)])
def test_rollback(made, disk, tmp_path):
    watched = WATCHES[made](policy="rollback", every=2, snapshots=tmp_path if disk else None, incidents=1)
    states = run(watched, [GOOD, GOOD, GOOD, BAD, GOOD])
    assert same(states[4], states[2]) and not same(states[3], states[2]), "the snapshot after two steps"
    assert np.allclose(states[5][0]["w"], states[3][0]["w"])


def test_stop():
    watched = watch(step, folder=None, policy="stop")
    states = run(watched, [GOOD, BAD])
    assert watched.stopped and same(states[1], states[2])


@pytest.mark.parametrize("made", [WATCHES["cpu, donated"], WATCHES["device, donated"]], ids=["cpu", "device"])
def test_retry_without_the_bad_samples(made):
    watched = made(policy="retry")
    states = run(watched, [GOOD, BAD])
    rest = (np.delete(BAD[0], 1, 0), np.delete(BAD[1], 1, 0))
    assert np.allclose(states[2][0]["w"], run(step, [GOOD, rest])[-1][0]["w"])
    assert watched.bad_steps == 1


def test_the_users_own_wish():
    seen = []
    watched = watch(step, folder=None, on_incident=lambda incident: seen.append(incident) or "skip")
    assert same(*run(watched, [BAD])) and len(seen) == len(watched.incidents) == 1
    with pytest.raises(WhynanError, match="no policy"):
        watch(step, policy="ignore")


def test_a_watch_inside_of_what_is_traced_says_where_it_belongs():
    with pytest.raises(WhynanError, match=r"whynan.watch\(jax.jit\(f\)\)"):
        jax.jit(watch(step, folder=None))(*begun(), *GOOD)


# ---------------------------------------------------------------- results and states of any structure


def test_the_loss_is_found_or_named():
    def one(w, x):
        loss, g = jax.value_and_grad(lambda w: jnp.mean(jnp.log(x * w)))(w)
        return {"ratio": jnp.mean(x) / jnp.zeros(()), "loss": loss}, w - 0.1 * g

    w, x = jnp.ones(3), np.ones((4, 3), np.float32)
    watched = watch(jax.jit(one), folder=None)
    watched(w, x)  # the ratio is infinite, and only logged
    with pytest.raises(NonFiniteError, match="log"):
        watched(w, 0 * x)
    named = watch(jax.jit(one), loss="ratio", folder=None, policy="skip")
    named(w, x)
    assert named.bad_steps == 1 and named.incidents[0].cause == "div-by-zero"
    with pytest.raises(WhynanError, match=r"\['loss'\].*\['ratio'\]"):
        watch(jax.jit(one), loss="accuracy")(w, x)


def test_a_result_of_the_shape_of_an_input_is_not_taken_for_its_successor():
    @jax.jit
    def autoencoder(w, x):
        def loss_fn(w):
            back = x @ w
            return jnp.mean((back - x) ** 2), back

        (loss, back), g = jax.value_and_grad(loss_fn, has_aux=True)(w)
        return w - 0.1 * g, back, loss

    watched = watch(autoencoder, folder=None)
    watched(jnp.eye(3), np.ones((5, 3), np.float32))
    assert watched._wiring.carried == ((0, 0),)


def test_a_sum_of_metrics_in_the_state_does_not_count():
    @jax.jit
    def train(state, x):
        loss, g = jax.value_and_grad(lambda w: jnp.mean(x * w**2))(state["w"])
        return {"w": state["w"] - 0.1 * g, "seen": state["seen"] + jnp.log(x).sum()}, loss

    watched = watch(train, folder=None)
    state, _ = watched({"w": jnp.ones(()), "seen": jnp.zeros(())}, np.zeros(4, np.float32))
    assert not watched.incidents and not np.isfinite(state["seen"])


def test_an_infinity_that_the_state_began_with_is_its_own():
    @jax.jit
    def train(state, x):
        loss, g = jax.value_and_grad(lambda w: jnp.mean(x * w**2))(state["w"])
        best = jnp.minimum(state["best"], jnp.where(loss > 1, jnp.inf, loss))
        return {"w": state["w"] - 0.1 * g * jnp.where(jnp.isinf(best), 1.0, 0.5), "best": best}, loss

    watched = watch(train, folder=None)
    state, _ = watched({"w": jnp.ones(()), "best": jnp.asarray(jnp.inf)}, np.full(4, 2, np.float32))
    assert not watched.incidents and np.isinf(state["best"])


def test_an_optimizer_that_overflows_is_told_apart_from_the_gradient():
    def train(params, opt_state, x):
        loss, g = jax.value_and_grad(lambda p: jnp.mean(x * p))(params)
        updates, opt_state = optimizer.update(g, opt_state, params)
        return optax.apply_updates(params, updates), opt_state, loss

    optimizer = optax.adam(0.1)
    params = jnp.ones(())
    watched = watch(jax.jit(train), folder=None, policy="skip")
    watched(params, optimizer.init(params), np.full(4, 1e30, np.float32))  # its square is infinite
    (incident,) = watched.incidents
    assert incident.failed == "update" and incident.cause == "square-overflow" and np.isfinite(incident.loss)
    assert incident.finding.phase == "forward" and "opt_state[0].nu would not be finite after the update" in str(incident)


def test_a_number_that_the_optimizer_keeps_is_no_data():
    params, state = begun()
    broken = (state[0]._replace(nu=jax.tree.map(lambda v: v.at[1].set(np.nan), state[0].nu)), *state[1:])
    watched = watch(jax.jit(plain), folder=None, policy="skip")
    watched(params, broken, *GOOD)
    (incident,) = watched.incidents
    assert incident.kind == BAD_STATE and incident.sample is None
    assert "before the step opt_state[0].nu['w'][1] = NaN" in " ".join(str(incident).split())


def test_a_step_that_looks_at_values():
    def train(params, x):
        loss, g = jax.value_and_grad(lambda p: jnp.mean(jnp.log(x) * p))(params)
        return params - (0.1 if float(loss) > 0 else 0.2) * g, loss

    watched = watch(train, folder=None, policy="skip")
    params, _ = watched(jnp.ones(()), np.ones(4, np.float32))
    after, _ = watched(params, np.zeros(4, np.float32))
    assert same(params, after) and watched.incidents[0].kind == UNEXPLAINED and "traced" in watched.incidents[0].unexplained


class Net(nn.Module):
    @nn.compact
    def __call__(self, x):
        x = nn.BatchNorm(use_running_average=False)(nn.Dense(4)(x))
        return nn.Dense(1, name="head")(Root(name="root")(x))[:, 0]


class Root(nn.Module):
    @nn.compact
    def __call__(self, x):
        scale = self.param("scale", nn.initializers.ones, (4,))
        return jnp.sqrt(jnp.abs(x * scale * (x > -100)))


class State(TrainState):
    batch_stats: object = None


def test_a_train_state_of_flax_with_statistics_and_random_keys():
    net, x = Net(), np.random.default_rng(0).normal(size=(6, 3)).astype(np.float32)
    variables = jax.jit(net.init)(jax.random.key(0), x)
    state = State.create(apply_fn=net.apply, params=variables["params"], tx=optax.adam(1e-2), batch_stats=variables["batch_stats"])

    @jax.jit
    def train(state, batch, key):
        def loss_fn(params):
            noise = jax.random.normal(key, batch["x"].shape) * 1e-3
            out, new = state.apply_fn({"params": params, "batch_stats": state.batch_stats}, batch["x"] + noise, mutable=["batch_stats"])
            return jnp.mean((out - batch["y"]) ** 2), new

        (loss, new), grads = jax.value_and_grad(loss_fn, has_aux=True)(state.params)
        return state.apply_gradients(grads=grads, batch_stats=new["batch_stats"]), {"loss": loss}

    watched = watch(train, folder=None, policy="skip")
    batch = {"x": x, "y": np.ones(6, np.float32)}
    state, _ = watched(state, batch, jax.random.key(1))
    bad = {**batch, "x": x.copy()}
    bad["x"][4, 2] = np.nan
    after, _ = watched(state, bad, jax.random.key(2))
    assert same(after, state), "parameters, optimizer, statistics and step count"
    (incident,) = watched.incidents
    assert incident.suspects.samples == (4,) and incident.suspects.elements[0].index == (4, 2)
    zero = state.replace(params={**state.params, "root": {"scale": jnp.zeros(4)}})
    watched(zero, batch, jax.random.key(3))
    assert watched.incidents[1].cause == "sqrt-grad-at-zero" and watched.incidents[1].layer == "root"
    assert watched.incidents[1].parameter == "state.params['root']['scale']"


def test_many_steps_in_one_scan():
    def epoch(params, opt_state, xs, ys):
        def body(carry, batch):
            *carry, loss = plain(*carry, *batch)
            return tuple(carry), loss

        (params, opt_state), losses = jax.lax.scan(body, (params, opt_state), (xs, ys))
        return params, opt_state, losses.mean()

    watched = watch(jax.jit(epoch), folder=None, policy="skip")
    good, bad = (jnp.stack([b[0] for b in bs]) for bs in ([GOOD, GOOD, GOOD], [GOOD, BAD, GOOD]))
    ys = jnp.stack([GOOD[1]] * 3)
    params, state, _ = watched(*begun(), good, ys)
    after, *_ = watched(params, state, bad, ys)
    (incident,) = watched.incidents
    assert same(after, params) and incident.cause == "log-of-zero" and incident.finding.site.text == "jnp.log(jnp.abs(x))"


@pytest.mark.parametrize("made", [WATCHES["cpu"], WATCHES["device, donated"]], ids=["cpu", "device, donated"])
def test_nothing_is_kept_of_steps_that_are_over(made):
    watched = made()
    params, state = begun()
    counts = []
    for i in range(60):
        batch = tuple(jnp.asarray(b) for b in GOOD)
        params, state, _ = watched(params, state, *batch)
        if i in (19, 59):
            watched.flush()
            counts.append(len(jax.live_arrays()))
    assert counts[0] == counts[1]


@pytest.mark.slow
def test_steps_on_arrays_that_are_spread_over_devices(tmp_path):
    root = Path(__file__).parents[2]
    flags = {"JAX_PLATFORMS": "cpu", "XLA_FLAGS": "--xla_force_host_platform_device_count=4", "PYTHONPATH": f"{root / 'src'}:{root}"}
    run = [sys.executable, "-m", "tests.watch.jax_sharded", str(tmp_path)]
    done = subprocess.run(run, env={**os.environ, **flags}, capture_output=True, text=True, timeout=600)
    assert done.returncode == 0, done.stderr[-4000:]
