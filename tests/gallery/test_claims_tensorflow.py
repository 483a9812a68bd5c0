"""The claims of docs/claims.md about TensorFlow and Keras, run. A test's docstring is the claim; its assertions are what was measured."""

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

if keras.backend.backend() != "tensorflow":
    pytest.skip("what is said of Keras was measured on its TensorFlow backend", allow_module_level=True)

pytestmark = pytest.mark.slow
MODES = ("eager", "function", "xla")


def run(mode, loss, *inputs, dtype=np.float32):
    """The loss and its gradient by each input, as NumPy arrays; None for a gradient that does not exist."""

    def step(*tensors):
        with tf.GradientTape() as tape:
            tape.watch(tensors)
            value = loss(*tensors)
        return value, tape.gradient(value, tensors)

    compiled = {"eager": step, "function": tf.function(step), "xla": tf.function(step, jit_compile=True)}[mode]
    value, gradients = compiled(*(tf.constant(np.asarray(x, dtype)) for x in inputs))
    return value.numpy().astype(float), *(None if g is None else g.numpy().astype(float) for g in gradients)


def outcomes(loss, *inputs, modes=MODES, **options):
    """`run` in several modes, all of which must agree."""
    found = [run(mode, loss, *inputs, **options) for mode in modes]
    for other in found[1:]:
        for a, b in zip(found[0], other, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-5)
    return found[0]


# ---------------------------------------------------------------- what is fed in


def test_logits_to_a_loss_of_probabilities():
    """`BinaryCrossentropy()` copes with logits, it only learns slower."""
    one = np.ones((1, 1), np.float32)
    for z in (-5, 1.5, 8):
        assert outcomes(lambda p: keras.losses.BinaryCrossentropy()(one, p), [[z]])[1] == 0
    assert outcomes(lambda p: keras.losses.BinaryCrossentropy()(one, p), [[-5]])[0] == pytest.approx(16.118, abs=1e-3)
    assert outcomes(lambda p: keras.losses.BinaryCrossentropy()(0 * one, p), [[8]])[0] == pytest.approx(15.942, abs=1e-3)
    assert outcomes(lambda p: keras.losses.BinaryCrossentropy(from_logits=True)(one, p), [[-5]])[1] == pytest.approx(-0.9933, abs=1e-4)


def test_sigmoid_before_from_logits():
    """`from_logits=True` is the stable form, so it belongs behind a sigmoid too."""
    loss = keras.losses.BinaryCrossentropy(from_logits=True)
    for target, z, costs in ((0.0, -20, 0.6931), (1.0, 20, 0.3133)):
        wanted = np.full((1, 1), target, np.float32)
        for found in (
            run("eager", lambda p, t=wanted: loss(t, tf.sigmoid(p)), [[z]]),
            outcomes(lambda p, t=wanted: tf.nn.sigmoid_cross_entropy_with_logits(t, tf.sigmoid(p)), [[z]]),
        ):
            assert found[0] == pytest.approx(costs, abs=1e-4)
            assert abs(found[1]) < 1e-8
        for mode in ("function", "xla"):
            with pytest.warns(UserWarning, match="produced by a Sigmoid activation"):
                assert run(mode, lambda p, t=wanted: loss(t, tf.sigmoid(p)), [[z]])[0] < 1e-8


def test_softmax_before_from_logits():
    """`from_logits=True` belongs behind a softmax."""
    loss, target = keras.losses.CategoricalCrossentropy(from_logits=True), np.array([[1, 0, 0]], np.float32)
    for z, costs, right in ((100, 0.5514, 0), (-100, 1.5514, 200)):
        for found in (
            run("eager", lambda p: loss(target, tf.nn.softmax(p)), [[z, -z, -100]]),
            outcomes(lambda p: tf.nn.softmax_cross_entropy_with_logits(target, tf.nn.softmax(p)), [[z, -z, -100]]),
        ):
            assert found[0] == pytest.approx(costs, abs=1e-4)
            assert not found[1].any()
        for mode in ("function", "xla"):
            with pytest.warns(UserWarning, match="produced by a Softmax activation"):
                assert run(mode, lambda p: loss(target, tf.nn.softmax(p)), [[z, -z, -100]])[0] == right


def test_keras_looks_for_the_logits():
    """Keras finds the logits behind a sigmoid by itself."""
    one = np.ones((1, 1), np.float32)
    value, gradient = run("eager", lambda z: keras.losses.BinaryCrossentropy()(one, tf.sigmoid(z)), [[-100]])
    assert (value, gradient) == (pytest.approx(16.118, abs=1e-3), 0)
    for mode in ("function", "xla"):
        assert run(mode, lambda z: keras.losses.BinaryCrossentropy()(one, tf.sigmoid(z)), [[-100]]) == (100, -1)
    assert outcomes(lambda z: keras.losses.BinaryCrossentropy()(one, keras.activations.sigmoid(z)), [[-100]]) == (100, -1)


@pytest.mark.parametrize("label", [3, -1])
def test_labels_out_of_range(label):
    """A label out of range gives NaN."""

    def loss(logits):
        return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=np.array([label, 0]), logits=logits)

    for mode in ("eager", "function"):
        with pytest.raises(tf.errors.InvalidArgumentError, match=f"label value of {label} which is outside the valid range"):
            run(mode, loss, np.zeros((2, 3)))
    value, gradient = run("xla", loss, np.zeros((2, 3)))
    assert np.isnan(value).tolist() == [True, False]
    assert np.isnan(gradient).all(axis=-1).tolist() == [True, False]


def test_a_row_without_probability():
    """Keras clips probabilities, so `CategoricalCrossentropy()` cannot be NaN."""
    value, gradient = outcomes(lambda p: keras.losses.CategoricalCrossentropy()(np.array([[1, 0, 0]], np.float32), p), np.zeros((1, 3)))
    assert np.isnan(value)
    assert np.isnan(gradient).all()


# ---------------------------------------------------------------- looking for NaN


def test_no_such_function():
    """Check the loss with `tf.debugging.is_nan`."""
    assert not hasattr(tf.debugging, "is_nan")
    assert not hasattr(tf, "is_nan")
    assert all((tf.math.is_nan, tf.math.is_finite, tf.debugging.check_numerics, tf.debugging.enable_check_numerics))


@pytest.mark.parametrize("function", [np.isnan, np.log])
def test_numpy_on_a_symbolic_tensor(function):
    """NumPy's functions may be used in a loss."""
    for mode in ("function", "xla"):
        with pytest.raises(NotImplementedError, match=r"Cannot convert a symbolic tf.Tensor .* to a numpy array"):
            run(mode, lambda p: tf.reduce_sum(function(p)), [1.0])
    assert run("eager", lambda p: tf.reduce_sum(np.log(p)), [1.0]) == (0, None)


def test_check_numerics():
    """`tf.debugging.check_numerics(loss)` finds the NaN."""

    def masked(p):
        return tf.debugging.check_numerics(tf.where(p > 0, tf.math.log(p), 0.0), "loss")

    value, gradient = outcomes(masked, [0.0])
    assert value == 0
    assert np.isnan(gradient)
    with pytest.raises(tf.errors.InvalidArgumentError, match="Tensor had Inf"):
        run("function", lambda p: tf.debugging.check_numerics(tf.math.log(p), "loss"), [0.0])
    assert run("xla", lambda p: tf.debugging.check_numerics(tf.math.log(p), "loss"), [0.0])[0] == -np.inf


def test_enable_check_numerics():
    """`tf.debugging.enable_check_numerics()` stops where the NaN arises."""

    def harmless(p):
        return tf.where(p > 0, 1 / tf.stop_gradient(p), 0.0) * p

    assert outcomes(harmless, [0.0]) == (0, 0)
    tf.debugging.enable_check_numerics()
    try:
        for mode in ("eager", "function"):
            with pytest.raises(tf.errors.InvalidArgumentError, match="Detected Infinity or NaN"):
                run(mode, harmless, [0.0])
        with pytest.raises(tf.errors.InvalidArgumentError, match="unsupported operations"):
            run("xla", harmless, [1.0])
    finally:
        tf.debugging.disable_check_numerics()


def test_replacing_nan():
    """Replace the NaN of a loss by 0 with `tf.where`."""

    def replaced(p):
        each = -p * tf.math.log(p)
        return tf.where(tf.math.is_nan(each), 0.0, each)

    value, gradient = outcomes(replaced, [0.0])
    assert value == 0
    assert np.isnan(gradient)


# ---------------------------------------------------------------- clipping


def test_the_where_trap_of_a_root():
    """TensorFlow does not have the `where` trap: the gradient of a masked root is 0."""

    def root(x):
        return tf.where(x > 0, tf.sqrt(x), 0.0)

    assert outcomes(root, [-1.0], modes=("eager", "function")) == (0, 0)
    assert np.isnan(run("xla", root, [-1.0])[1])
    assert np.isnan(outcomes(lambda x: tf.where(x > 0, tf.math.log(x), 0.0), [0.0])[1])


def test_clip_by_value_of_an_input():
    """Clip the input with `tf.clip_by_value`, and its gradient is safe."""
    assert outcomes(lambda x: tf.sqrt(tf.clip_by_value(x, 0.0, 1.0)), [0.0]) == (0, np.inf)
    assert outcomes(lambda x: tf.acos(tf.clip_by_value(x, -1.0, 1.0)), [1.0]) == (0, -np.inf)
    assert outcomes(lambda x: -tf.math.log(tf.clip_by_value(x, 1e-7, 1.0)), [-1.0])[1] == 0


def test_clip_by_value_of_a_result():
    """Clip the logarithm with `tf.clip_by_value` or `tf.maximum`."""
    for clip in (lambda x: tf.clip_by_value(x, -100.0, 0.0), lambda x: tf.maximum(x, -100.0)):
        value, gradient = outcomes(lambda x, c=clip: -c(tf.math.log(x)), [0.0])
        assert value == 100
        assert np.isnan(gradient)


def test_clip_by_value_of_nan():
    """`tf.clip_by_value` removes NaN."""
    found = {mode: run(mode, lambda x: tf.clip_by_value(tf.sqrt(x), 0.0, 1.0), [-1.0]) for mode in MODES}
    assert all(np.isnan(value) for value, _ in found.values())
    assert {mode: float(gradient[0]) for mode, (_, gradient) in found.items()} == pytest.approx(
        {"eager": 0, "function": 0, "xla": np.nan}, nan_ok=True
    )


def after_one_step(gradient, **clip):
    """Two variables of ones after a step of SGD with rate 1: one with that gradient, the other with the gradient 2."""
    first, second = keras.Variable(np.ones(len(gradient), np.float32)), keras.Variable(np.ones(1, np.float32))
    optimizer = keras.optimizers.SGD(1.0, **clip)
    optimizer.build([first, second])
    optimizer.apply([tf.constant(gradient, tf.float32), tf.constant([2.0])], [first, second])
    return [*np.asarray(first).tolist(), *np.asarray(second).tolist()]


nan, inf = float("nan"), float("inf")


@pytest.mark.parametrize(("gradient", "left"), [([nan, 1.0], [nan, nan, 0]), ([inf, 1.0], [nan, 1, 0]), ([1e30, 1.0], [1, 1, 0])])
def test_clipnorm(gradient, left):
    """`clipnorm` protects the weights from a bad gradient."""
    assert after_one_step(gradient, clipnorm=1.0) == pytest.approx(left, nan_ok=True)


@pytest.mark.parametrize(("gradient", "left"), [([nan, 1.0], [nan, 0, 0]), ([inf, 1.0], [0, 0, 0]), ([1e30, 1.0], [0, 0, 0])])
def test_clipvalue(gradient, left):
    """`clipvalue` protects the weights from a bad gradient."""
    assert after_one_step(gradient, clipvalue=1.0) == pytest.approx(left, nan_ok=True)


@pytest.mark.parametrize("bad", [nan, inf, 1e30])
def test_global_clipnorm(bad):
    """`global_clipnorm` protects the weights from a bad gradient."""
    assert np.isnan(after_one_step([bad, 1.0], global_clipnorm=1.0)).all()


# ---------------------------------------------------------------- epsilons


def test_an_epsilon_that_the_compiler_moves():
    """log(1 - p + 1e-8) is finite in TensorFlow."""

    def loss(p):
        return -tf.math.log(1 - p + 1e-8)

    assert run("eager", loss, [1.0])[0] == pytest.approx(18.42, abs=0.01)
    assert [run(mode, loss, [1.0])[0] for mode in ("function", "xla")] == [inf, inf]
    assert [run(mode, lambda p: -tf.math.log(p + 1e-8), [0.0])[0] for mode in MODES] == pytest.approx([18.42] * 3, abs=0.01)


def test_an_epsilon_in_half_precision():
    """log(p + 1e-8) is finite in mixed precision."""
    assert outcomes(lambda p: -tf.math.log(p + 1e-8), [0.0], dtype=np.float16) == (inf, -inf)


@pytest.mark.parametrize(("dtype", "fails"), [("float32", False), ("float16", True), ("bfloat16", True)])
def test_the_epsilon_of_keras(dtype, fails):
    """Keras clips by `epsilon()` = 1e-7, which is enough."""
    wide = tf.as_dtype(dtype).as_numpy_dtype
    target = np.zeros((1, 1), wide)
    assert keras.config.epsilon() == 1e-7
    value, _ = outcomes(lambda p: keras.losses.binary_crossentropy(target, p), [[1.0]], dtype=wide)
    assert bool(np.isinf(value)) is fails
    assert np.isfinite(outcomes(lambda p: keras.losses.BinaryCrossentropy()(target, p), [[1.0]], dtype=wide)[0])


# ---------------------------------------------------------------- built-ins


def test_divide_no_nan():
    """`tf.math.divide_no_nan` has a safe gradient."""
    assert outcomes(lambda x: tf.math.divide_no_nan(1.0, x), [0.0]) == (0, 0)
    assert outcomes(lambda x: tf.math.divide_no_nan(1.0, x), [1e-30])[1] == -inf


def test_multiply_no_nan():
    """`tf.math.multiply_no_nan(log(p), p)` cures 0 * log(0)."""
    value, gradient = outcomes(lambda p: tf.math.multiply_no_nan(tf.math.log(p), p), [0.0])
    assert value == 0
    assert np.isnan(gradient)
    assert outcomes(lambda p: tf.math.xlogy(p, p), [0.0]) == (0, 0)


def test_norm_at_zero():
    """The built-in norm has the gradient 0 at the zero vector."""
    for norm in (tf.norm, keras.ops.norm):
        assert np.isnan(outcomes(norm, np.zeros(3))[1]).all()
    assert np.isnan(outcomes(tf.math.reduce_euclidean_norm, np.zeros(3), modes=("eager", "function"))[1]).all()


def test_deviation_of_a_constant_batch():
    """`tf.math.reduce_std` is safe on a constant batch."""
    assert np.isnan(outcomes(tf.math.reduce_std, np.ones(3))[1]).all()


def test_l2_normalize_at_zero():
    """`tf.math.l2_normalize` is NaN at the zero vector."""
    value, gradient = outcomes(lambda x: tf.reduce_sum(tf.math.l2_normalize(x)), np.zeros(3))
    assert value == 0
    assert gradient.tolist() == pytest.approx([1e6] * 3)


def test_cosine_similarity_at_zero():
    """`keras.losses.CosineSimilarity` is safe at the zero vector."""

    def loss(x):
        return keras.losses.CosineSimilarity()(np.ones((1, 3), np.float32), x)

    _, gradient = outcomes(loss, np.zeros((1, 3)), modes=("eager", "function"))
    assert gradient[0].tolist() == pytest.approx([-1e7 / 3**0.5] * 3, rel=1e-3)
    assert np.isnan(run("xla", loss, np.zeros((1, 3)))[1]).all()


def test_losses_of_keras_that_guard_themselves():
    """Keras's logarithmic, percentage and divergence losses divide by zero or take its logarithm."""
    zero = np.zeros((1, 1), np.float32)
    value, gradient = run("eager", lambda p: keras.losses.MeanSquaredLogarithmicError()(zero, p), [[-2.0]])
    assert (value, gradient) == (0, 0)
    assert outcomes(lambda p: keras.losses.MeanAbsolutePercentageError()(zero, p), [[1.0]]) == (1e9, 1e9)
    half = np.array([[0, 1]], np.float32)
    assert outcomes(lambda p: keras.losses.KLDivergence()(half, p), [[0.0, 1.0]])[1].tolist() == [[0, -1]]


def test_poisson_of_a_negative_prediction():
    """`keras.losses.Poisson` is safe, since it adds an epsilon."""
    one = np.ones((1, 1), np.float32)
    assert np.isnan(outcomes(lambda p: keras.losses.Poisson()(one, p), [[-0.5]])[0])
    assert outcomes(lambda p: keras.losses.Poisson()(one, p), [[0.0]])[1] == pytest.approx(-1e7, rel=1e-3)
