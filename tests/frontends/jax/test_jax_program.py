"""JAX losses as programs: what runs gives what JAX gives, in both modes, and leaves JAX as it was."""

import functools

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from jax import lax

from whynan.errors import TargetError
from whynan.frontends.jax import MODES, load
from whynan.frontends.jax.inside import core, source_info
from whynan.ir.frontend import Run

X = np.array([1.0, 2.0, 3.0], np.float32)

both = pytest.mark.parametrize("mode", MODES)


def run(loss, mode="jit", wrt=("x",), **inputs) -> Run:
    return load(loss, "loss").run(inputs, wrt, mode)


@both
def test_a_run_gives_the_loss_and_its_gradients(mode):
    def loss(x, t):
        return jnp.mean(jnp.log(x) * t)

    found = run(loss, mode, ("x", "t"), x=X, t=2 * X)
    value, (by_x, by_t) = jax.value_and_grad(loss, (0, 1))(X, 2 * X)
    assert found.error == ""
    assert found.loss == pytest.approx(float(value), rel=1e-6)
    np.testing.assert_allclose(found.gradients["x"], by_x, rtol=1e-6)
    np.testing.assert_allclose(found.gradients["t"], by_t, rtol=1e-6)
    assert found.gradients["x"].dtype == np.float32


@both
def test_all_floating_results_are_summed(mode):
    def loss(x):
        return {"a": jnp.log(x), "b": (x.sum(), jnp.argmax(x), "text")}

    found = run(loss, mode, x=X)
    assert found.loss == pytest.approx(np.log(X).sum() + X.sum(), rel=1e-6)
    np.testing.assert_allclose(found.gradients["x"], 1 / X + 1, rtol=1e-6)


@both
@pytest.mark.parametrize("dtype", [np.float64, np.float16, ml_dtypes.bfloat16])
def test_the_dtype_of_an_input_is_kept_and_the_setting_is_not_changed(mode, dtype):
    found = run(lambda x: jnp.log(x).sum(), mode, x=X.astype(dtype))
    assert found.loss.dtype == dtype and found.gradients["x"].dtype == dtype
    assert jnp.asarray(np.ones(1)).dtype == np.float32


@both
def test_without_64_bit_types_integers_are_those_that_jax_computes_in(mode):
    seen = []

    def loss(x, i):
        seen.append(i.dtype)
        return x[i].sum()

    assert run(loss, mode, x=X, i=np.array([0, 2])).loss == 4
    assert set(seen) == {np.dtype("int32")}


@both
def test_other_objects_are_part_of_the_program(mode):
    def loss(x, axis, reduction=None, keep=False):
        y = jnp.log(x).sum(axis, keepdims=keep)
        return y.mean() if reduction == "mean" else y.sum()

    program = load(loss, "loss")
    square = np.full((2, 2), 2, np.float32)
    means = [program.run({"x": square, "axis": 0, "reduction": r, "keep": True}, ("x",), mode).loss for r in ("mean", None, "mean")]
    np.testing.assert_allclose(means, [2 * np.log(2), 4 * np.log(2), 2 * np.log(2)], rtol=1e-6)


def test_an_array_of_one_number_that_python_must_know_is_given_as_a_number():
    def loss(x, axis, smooth):
        return (jnp.log(x).sum(axis) + (0.5 if smooth > 0 else 0.0)).sum()

    program = load(loss, "loss")
    square = np.ones((2, 3), np.float32)
    given = {"x": square, "axis": np.array(1), "smooth": np.float32(1)}
    assert program.run(given, ("x",), "jit").loss == 1.0
    assert program.run(given | {"axis": np.array(0)}, ("x",), "jit").loss == 1.5
    assert program.run(given | {"smooth": np.float32(-1)}, ("x",), "jit").loss == 0.0
    looked = program.capture(given, ("x",), "jit").graph
    assert {(looked.nodes[a.node].attrs["name"], a.low, a.high) for a in looked.assumptions} == {("axis", 1, 1), ("smooth", 1, 1)}


@both
def test_positional_arguments_partials_and_jitted_functions(mode):
    def loss(x, /, t, *, scale):
        return (x * t * scale).sum()

    assert run(functools.partial(loss, scale=2.0), mode, x=X, t=X).loss == 28
    assert run(jax.jit(functools.partial(loss, scale=2.0)), mode, x=X, t=X).loss == 28
    assert run(jax.jit(lambda x, n: x[:n].sum(), static_argnames="n"), mode, x=X, n=2).loss == 3


@both
def test_an_input_that_the_loss_ignores_has_a_zero_gradient(mode):
    found = run(lambda x, u: x.sum(), mode, ("x", "u"), x=X, u=X)
    np.testing.assert_array_equal(found.gradients["u"], np.zeros(3))
    assert list(run(lambda x, u: x.sum(), mode, ("x", "i", "u"), x=X, u=np.arange(3)).gradients) == ["x"]


def test_the_modes_are_programs_of_their_own():
    def loss(x):
        return -jnp.log(1.0 - x + 1e-8).sum()

    one = np.array([1.0, 0.5], np.float32)
    assert run(loss, "jit", x=one).loss == np.inf  # XLA adds up the constants: 1 + 1e-8 is 1
    assert run(loss, "eager", x=one).loss == pytest.approx(-np.log(1e-8) + np.log(2), rel=1e-6)


@both
def test_the_users_own_choice_of_64_bit_types_holds(mode):
    with jax.enable_x64(True):
        program = load(lambda x, i: x[i].sum() * jnp.ones(2).sum(), "loss")
        found = program.run({"x": X, "i": np.array([0, 2])}, ("x",), mode)
        graph = program.capture({"x": X, "i": np.array([0, 2])}, ("x",), mode).graph
    assert found.loss.dtype == np.float64 and found.gradients["x"].dtype == np.float32
    assert graph.nodes[graph.outputs[0].node].format.name == "float64"


def test_a_step_is_compiled_once():
    traced = []

    def loss(x):
        traced.append(x)
        return jnp.log(x).sum()

    program = load(loss, "loss")
    for _ in range(5):
        program.run({"x": X}, ("x",), "jit")
    assert len(traced) == 1
    program.run({"x": X[:2]}, ("x",), "jit")
    assert len(traced) == 2


@both
def test_an_error_of_the_loss_is_reported_not_raised(mode):
    found = run(lambda x: jnp.dot(x, jnp.ones(7)), mode, x=X)
    assert found.error.startswith("TypeError: dot_general requires")
    assert found.loss.size == 0 and not found.gradients
    none = run(lambda x: jnp.argmax(x), mode, x=X).error
    assert none == "TypeError: the loss returned an array of int32, in which there is no floating array"


def test_a_look_at_a_traced_value_is_reported_with_its_line_and_argument():
    def loss(x, t):
        return x.sum() if t[0] > 0 else x.mean()

    error = run(loss, "jit", x=X, t=X).error
    assert error.startswith("TracerBoolConversionError: Attempted boolean conversion of traced array with shape bool[] (")
    assert error.endswith("return x.sum() if t[0] > 0 else x.mean(); it depends on t)")
    assert run(loss, "eager", x=X, t=X).loss == 6


def test_what_is_no_function_or_no_mode_is_refused():
    with pytest.raises(TargetError, match="cannot be called"):
        load(3, "three")
    with pytest.raises(TargetError, match="JAX has no mode 'xla'"):
        run(jnp.sum, "xla", a=X)


@both
def test_jax_is_left_as_it_was(mode):
    names = ("jax_enable_x64", "jax_debug_nans", "jax_debug_infs", "jax_default_device", "jax_disable_jit", "jax_platforms")
    before = {n: getattr(jax.config, n) for n in names}
    program = load(jax.nn.log_softmax, "log_softmax")
    program.run({"x": X.astype(np.float64)}, ("x",), mode)
    program.capture({"x": X.astype(np.float64)}, ("x",), mode)
    with pytest.raises(TargetError):
        load(lambda x: 1 / 0, "loss").capture({"x": X}, ("x",), mode)
    assert {n: getattr(jax.config, n) for n in names} == before
    assert source_info._include_paths == [] and core.trace_ctx.is_top_level()
    assert float(jax.grad(lambda v: jnp.log(v).sum())(jnp.asarray(X))[1]) == 0.5


@both
def test_checks_that_jax_would_make_do_not_hide_what_it_computes(mode):
    with jax.debug_nans(True):
        found = run(lambda x: jnp.log(x - 2).sum(), mode, x=X)
    assert not found.error and np.isnan(found.loss)


@pytest.mark.slow
@both
def test_control_flow_runs(mode):
    def loss(x):
        first = lax.cond(x[0] > 0, jnp.log, jnp.abs, x[0])
        total, _ = lax.scan(lambda c, v: (c + jnp.log(v), None), first, x)
        return total + lax.fori_loop(0, 3, lambda i, c: c * 0.5, x).sum()

    found = run(loss, mode, x=X)
    value, gradient = jax.value_and_grad(loss)(X)
    assert found.loss == pytest.approx(float(value), rel=1e-6)
    np.testing.assert_allclose(found.gradients["x"], gradient, rtol=1e-6)
