"""The claims of docs/claims.md about JAX and optax, run. A test's docstring is the claim; its assertions are what was measured."""

import numpy as np
import pytest

jax = pytest.importorskip("jax")
optax = pytest.importorskip("optax")
jnp = jax.numpy

pytestmark = pytest.mark.slow
MODES = ("jit", "eager")
nan, inf = float("nan"), float("inf")


def run(mode, loss, x, dtype=np.float32):
    """The loss and its gradient as NumPy arrays."""

    def step(x):
        value, pullback = jax.vjp(loss, x)
        return value, pullback(jnp.ones_like(value))[0]

    value, gradient = (jax.jit(step) if mode == "jit" else step)(jnp.asarray(x, dtype))
    return np.asarray(value).astype(float), np.asarray(gradient).astype(float)


def outcomes(loss, x, **options):
    """`run` in both modes, which must agree."""
    found = [run(mode, loss, x, **options) for mode in MODES]
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5)
    return found[0]


def is_nan(x):
    return bool(np.isnan(x).all())


def test_where():
    """`jnp.where` hides the bad branch."""
    value, gradient = outcomes(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0), [-1.0])
    assert (value, is_nan(gradient)) == (0, True)
    assert outcomes(lambda x: jnp.where(x > 0, jnp.sqrt(jnp.where(x > 0, x, 1)), 0), [-1.0]) == (0, 0)


def test_nan_to_num():
    """`jnp.nan_to_num` cures a NaN loss."""
    value, gradient = outcomes(lambda p: jnp.nan_to_num(-p * jnp.log(p)), [0.0])
    assert (value, is_nan(gradient)) == (0, True)


def test_an_epsilon_that_the_compiler_moves():
    """log(1 - p + 1e-8) is finite in JAX."""

    def loss(p):
        return -jnp.log(1 - p + 1e-8)

    assert run("eager", loss, [1.0])[0] == pytest.approx(18.42, abs=0.01)
    assert run("jit", loss, [1.0]) == (inf, inf)


def test_an_epsilon_in_half_precision():
    """log(p + 1e-8) is finite in half precision."""
    assert outcomes(lambda p: -jnp.log(p + 1e-8), [0.0], dtype=np.float16) == (inf, -inf)
    assert np.isfinite(outcomes(lambda p: -jnp.log(p + 1e-8), [0.0], dtype=jnp.bfloat16)[0])


def test_norm_at_zero():
    """`jnp.linalg.norm` has the gradient 0 at the zero vector."""
    assert is_nan(outcomes(jnp.linalg.norm, np.zeros(3))[1])
    value, gradient = outcomes(lambda x: optax.safe_norm(x, 1e-6), np.zeros(3))
    assert value == np.float32(1e-6)
    assert not gradient.any()


def test_deviation_of_a_constant_batch():
    """`jnp.std` is safe on a constant batch."""
    assert is_nan(outcomes(jnp.std, np.ones(3))[1])


def test_softmax_of_nothing():
    """`jax.nn.softmax` copes with a row of -inf."""
    value, gradient = outcomes(lambda x: jax.nn.softmax(x), np.full(3, -inf))
    assert is_nan(value) and is_nan(gradient)
    none = np.zeros(3, bool)
    assert not outcomes(lambda x: jax.nn.softmax(x, where=none), np.zeros(3))[0].any()
    assert is_nan(outcomes(lambda x: jax.nn.softmax(jnp.where(none, x, -1e9)), np.zeros(3), dtype=np.float16)[0])
    assert outcomes(lambda x: jax.nn.softmax(jnp.where(none, x, -1e9)), np.zeros(3))[0].tolist() == pytest.approx([1 / 3] * 3)


def test_xlogy():
    """`xlogy(p, p)` and `entr(p)` handle p = 0."""
    value, gradient = outcomes(lambda p: jax.scipy.special.xlogy(p, p), [0.0])
    assert (value, is_nan(gradient)) == (0, True)
    assert outcomes(jax.scipy.special.entr, [0.0]) == (0, inf)


def test_softplus_by_hand():
    """`jnp.log1p(jnp.exp(x))` is stable."""
    value, gradient = outcomes(lambda x: jnp.log1p(jnp.exp(x)), [88.73])
    assert (value, is_nan(gradient)) == (inf, True)
    assert outcomes(jax.nn.softplus, [88.73])[1] == 1


@pytest.mark.parametrize(
    ("label", "loss", "gradient"),
    [(3, nan, [1 / 3, 1 / 3, 1 / 3]), (-1, np.log(3), [1 / 3, 1 / 3, -2 / 3])],
)
def test_labels_out_of_range(label, loss, gradient):
    """optax checks its labels."""
    value, found = outcomes(lambda x: optax.losses.softmax_cross_entropy_with_integer_labels(x, np.array([label])), np.zeros((1, 3)))
    assert value.tolist() == pytest.approx([loss], nan_ok=True)
    assert found[0].tolist() == pytest.approx(gradient)


def test_indices_out_of_range():
    """An index out of range is an error in JAX."""
    assert outcomes(lambda x: x[7], [1.0, 2.0, 3.0])[0] == 3
    assert is_nan(outcomes(lambda x: jnp.take_along_axis(x, np.array([7]), 0), [1.0, 2.0, 3.0])[0])


def test_cosine_distance_at_zero():
    """`optax.losses.cosine_distance` guards the zero vector."""
    value, gradient = outcomes(lambda x: optax.losses.cosine_distance(x, np.ones(3, np.float32)), np.zeros(3))
    assert is_nan(value) and is_nan(gradient)
    assert np.isfinite(outcomes(lambda x: optax.losses.cosine_distance(x, np.ones(3, np.float32), epsilon=1e-3), np.zeros(3))[1]).all()


def test_a_class_that_cannot_be():
    """A logit of -inf excludes a class from `optax.losses.softmax_cross_entropy`."""
    value, gradient = outcomes(lambda x: optax.losses.softmax_cross_entropy(x, np.array([0, 1, 0], np.float32)), [-inf, 0.0, 0.0])
    assert is_nan(value)
    assert gradient.tolist() == [0, -0.5, 0.5]


def test_python_branches():
    """`if jnp.isnan(loss)` and NumPy's functions may be used in a loss."""
    with pytest.raises(jax.errors.TracerBoolConversionError):
        run("jit", lambda x: x if not jnp.isnan(x).any() else 0 * x, [1.0])
    for mode in MODES:
        with pytest.raises(jax.errors.TracerArrayConversionError):
            run(mode, lambda x: np.log(x), [1.0])


@pytest.fixture
def debug_nans():
    jax.config.update("jax_debug_nans", True)
    yield
    jax.config.update("jax_debug_nans", False)


def test_debug_nans(debug_nans):
    """`jax_debug_nans` stops where the loss goes wrong."""
    assert jnp.log(jnp.zeros(1)) == -inf
    assert jax.jit(jax.grad(lambda x: jnp.log(x).sum()))(jnp.zeros(1)) == inf
    with pytest.raises(FloatingPointError):
        jax.jit(jax.grad(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0).sum()))(-jnp.ones(1))
    with pytest.raises(FloatingPointError):  # a NaN that the mask removes, and that has no gradient
        jnp.where(jnp.zeros(1) > 0, jnp.sqrt(-jnp.ones(1)), 0)
    assert jax.jit(lambda x: jnp.where(x > 0, jnp.sqrt(x), 0))(-jnp.ones(1)) == 0


def update(transformation, gradient):
    """What a transformation makes of that gradient and of one of [2] beside it."""
    parameters = {"a": jnp.ones(len(gradient)), "b": jnp.ones(1)}
    found, _ = transformation.update({"a": jnp.array(gradient), "b": jnp.array([2.0])}, transformation.init(parameters), parameters)
    return [*np.asarray(found["a"]).tolist(), *np.asarray(found["b"]).tolist()]


@pytest.mark.parametrize(("gradient", "left"), [([nan, 1.0], [nan, nan, nan]), ([inf, 1.0], [nan, 0, 0]), ([1e30, 1.0], [0, 0, 0])])
def test_clip_by_global_norm(gradient, left):
    """`optax.clip_by_global_norm` protects the parameters from a bad gradient."""
    assert update(optax.clip_by_global_norm(1.0), gradient) == pytest.approx(left, nan_ok=True)


@pytest.mark.parametrize(("gradient", "left"), [([nan, 1.0], [nan, 1, 1]), ([inf, 1.0], [1, 1, 1])])
def test_clip(gradient, left):
    """`optax.clip` protects the parameters from a bad gradient."""
    assert update(optax.clip(1.0), gradient) == pytest.approx(left, nan_ok=True)


@pytest.mark.parametrize(("gradient", "left"), [([nan, 1.0], [0, 1, 2]), ([inf, 1.0], [inf, 1, 2])])
def test_zero_nans(gradient, left):
    """`optax.zero_nans` removes bad gradients."""
    assert update(optax.zero_nans(), gradient) == left


@pytest.mark.parametrize("bad", [nan, inf])
def test_apply_if_finite(bad):
    """`optax.apply_if_finite` skips a step with a bad gradient."""
    assert update(optax.apply_if_finite(optax.sgd(1.0), 3), [bad, 1.0]) == [0, 0, 0]
    assert update(optax.apply_if_finite(optax.sgd(1.0), 3), [0.5, 1.0]) == [-0.5, -1, -2]
