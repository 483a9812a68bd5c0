"""The program: what a target owns, Keras losses, errors in one line, and a TensorFlow that is afterwards as it was."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python import pywrap_tfe
from tensorflow.python.eager import backprop, context, execute, record
from tensorflow.python.framework import ops
from tensorflow.python.ops import gradients_util
from tests.frontends.tensorflow.harness import T, X, agrees, capture, nodes

from whynan.errors import TargetError
from whynan.frontends.tensorflow import MODES, load
from whynan.frontends.tensorflow.session import said

BOTH = pytest.mark.parametrize("mode", ["eager", "function"])


# ---------------------------------------------------------------- what a target owns


class Weighted(tf.Module):
    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(2.0)
        self.calls = tf.Variable(0.0, trainable=False)

    def __call__(self, x):
        self.calls.assign_add(1.0)
        return tf.reduce_sum(tf.exp(-self.scale) * x * x + self.scale) * self.calls


@BOTH
def test_a_modules_trainable_variables_are_parameters(mode):
    module = Weighted()
    trace = agrees(module, mode, x=X)
    assert set(trace.graph.inputs) == {"x", "scale"}
    assert module.calls.numpy() == 0.0
    assert module.scale.numpy() == 2.0


@BOTH
def test_parameters_take_the_values_they_are_given(mode):
    program = load(Weighted(), "loss")
    at = [program.run({"x": X, "scale": np.float32(s)}, ("scale",), mode).loss for s in (0.0, 1.0)]
    assert at[0] == pytest.approx((X * X).sum(), rel=1e-5)
    assert at[1] == pytest.approx((X * X).sum() / np.e + X.size, rel=1e-5)


@BOTH
def test_a_keras_layer_in_a_closure(mode):
    layer = keras.layers.Dense(2)
    layer.build((None, 3))

    def loss(x):
        return tf.reduce_sum(tf.nn.softplus(layer(x)))

    trace = agrees(loss, mode, x=X)
    assert {"x"} < set(trace.graph.inputs)
    assert {name.rsplit(".", 1)[-1] for name in trace.graph.inputs} == {"x", "kernel", "bias"}


def test_attributes_that_a_loss_changes_are_restored():
    class Counting:
        def __init__(self):
            self.seen = 0

        def __call__(self, x):
            self.seen += 1
            return tf.reduce_sum(x) * float(self.seen)

    target = Counting()
    program = load(target, "loss")
    assert program.run({"x": X}, ("x",), "eager").loss == program.run({"x": X}, ("x",), "eager").loss
    assert target.seen == 0


# ---------------------------------------------------------------- Keras


class Logarithm(keras.losses.Loss):
    def call(self, truth, guess):
        return keras.ops.mean(truth * keras.ops.log(guess + 1e-7), axis=-1)


@BOTH
def test_a_keras_loss_of_the_users_is_called_with_its_reduction(mode):
    trace = agrees(Logarithm(), mode, truth=T, guess=X)
    assert np.prod(trace.graph.nodes[trace.graph.outputs[0].node].shape) == 1
    (log,) = nodes(trace, "log")
    assert log.site.text == "keras.ops.log(guess + 1e-7)"


@BOTH
@pytest.mark.parametrize(
    "loss",
    [
        keras.losses.BinaryCrossentropy(from_logits=True),
        keras.losses.CategoricalCrossentropy(),
        keras.losses.Huber(),
        keras.losses.CosineSimilarity(),
        keras.losses.KLDivergence(),
    ],
    ids=lambda loss: type(loss).__name__,
)
def test_keras_losses_agree_with_their_plain_run(loss, mode):
    agrees(loss, mode, y_true=T, y_pred=X)


def test_sample_weights_go_by_name():
    weight = np.array([1.0, 0.0, 2.0, 1.0], np.float32)
    run = load(keras.losses.MeanSquaredError(), "loss").run({"y_true": T, "y_pred": X, "sample_weight": weight}, ("y_pred",), "eager")
    assert run.loss == pytest.approx(((X - T) ** 2).mean(1) @ weight / 4, rel=1e-5)


@BOTH
@pytest.mark.parametrize("generator", [keras.random.SeedGenerator(3), None], ids=["own", "global"])
def test_keras_random_numbers_are_the_same_in_every_run(generator, mode):
    def loss(x):
        return keras.ops.sum(x * keras.random.normal((4, 3), seed=generator))

    trace = agrees(loss, mode, x=X)
    assert nodes(trace, "random")
    assert any("random" in note for note in trace.graph.notes)


# ---------------------------------------------------------------- errors


@pytest.mark.parametrize("mode", MODES)
def test_a_loss_that_raises_says_why_in_one_line(mode):
    run = load(lambda x, t: tf.reduce_sum(x + t[:, :2]), "loss").run({"x": X, "t": T}, ("x",), mode)
    assert run.gradients == {}
    assert "\n" not in run.error
    assert "node" not in run.error
    assert "Op:" not in run.error
    assert "3" in run.error
    assert "2" in run.error


@pytest.mark.parametrize("mode", MODES)
def test_recording_a_loss_that_raises_names_it(mode):
    with pytest.raises(TargetError, match=r"the loss loss raised .*(Incompatible|must be equal)"):
        capture(lambda x, t: tf.reduce_sum(x + t[:, :2]), mode, x=X, t=T)


def test_an_input_signature_that_contradicts_the_domain():
    @tf.function(input_signature=[tf.TensorSpec((2,), tf.float32, name="x")])
    def loss(x):
        return tf.reduce_sum(x)

    run = load(loss, "loss").run({"x": X}, ("x",), "function")
    assert "x" in run.error
    assert "(2,)" in run.error or "shape" in run.error


def test_numpy_on_a_symbolic_tensor_names_the_argument():
    run = load(lambda x: tf.reduce_sum(np.log(x)), "loss").run({"x": X}, ("x",), "function")
    assert run.error.startswith("NotImplementedError: Cannot convert a symbolic")


@BOTH
def test_a_result_without_floats(mode):
    run = load(lambda x: tf.argmax(x), "loss").run({"x": X}, ("x",), mode)
    assert run.error == "TypeError: the loss returned a tensor of int64, in which there is no floating tensor"


def test_a_loss_that_ignores_its_inputs():
    with pytest.raises(TargetError, match="does not depend"):
        capture(lambda x: tf.constant(1.0), x=X)


def test_unknown_modes_and_targets():
    with pytest.raises(TargetError, match="no mode 'turbo'"):
        load(tf.reduce_sum, "loss").run({"x": X}, ("x",), "turbo")
    with pytest.raises(TargetError, match="cannot be called"):
        load(3, "three")


def test_messages_of_graphs_lose_their_listings():
    text = (
        "Graph execution error:\n\nDetected at node Log defined at (most recent call last):\n"
        '  File "loss.py", line 3, in loss\n\nIncompatible shapes: [4] vs. [3]\n\t [[{{node add}}]] [Op:__inference_step_12]'
    )
    assert said(tf.errors.InvalidArgumentError(None, None, text)) == "InvalidArgumentError: Incompatible shapes: [4] vs. [3]"
    text = 'in user code:\n\n    File "a.py", line 3, in loss  *\n        return x\n\n    ValueError: Shapes do not match.\n'
    assert said(ValueError(text)) == "ValueError: Shapes do not match."


# ---------------------------------------------------------------- afterwards


def surroundings():
    ctx = context.context()
    patched = [ops._EagerTensorBase.__bool__, ops._EagerTensorBase.numpy, execute.record_gradient, record.record_operation]
    return (
        [*patched, gradients_util._MaybeCompile, backprop._gradient_function],
        list(ctx.op_callbacks),
        (ctx._seed, vars(ctx).get("_rng")),
        tf.config.functions_run_eagerly(),
        tf.get_logger().level,
    )


@pytest.mark.parametrize("mode", MODES)
@pytest.mark.parametrize("fails", [False, True])
def test_nothing_stays_patched(mode, fails):
    before, calls = surroundings(), []

    def loss(x):
        if fails:
            raise ValueError("no")
        return tf.reduce_sum(tf.exp(x))

    program = load(loss, "loss")
    program.run({"x": X}, ("x",), mode)
    if fails:
        with pytest.raises(TargetError, match="ValueError: no"):
            program.capture({"x": X}, ("x",), mode)
    else:
        program.capture({"x": X}, ("x",), mode)
    assert surroundings() == before

    @tf.custom_gradient
    def watched(x):
        def grad(dy):
            calls.append(dy)
            return dy

        return x * 1.0, grad

    with tf.GradientTape() as tape:  # the tape's own gradient function is back
        v = tf.constant(2.0)
        tape.watch(v)
        y = watched(v) ** 2
    assert float(tape.gradient(y, v)) == 4.0
    assert len(calls) == 1


def test_the_tapes_gradient_function_is_restored():
    capture(lambda x: tf.reduce_sum(tf.exp(x)), x=X)
    seen = []

    def spy(*args):
        seen.append(args[0])
        return backprop._gradient_function(*args)

    pywrap_tfe.TFE_Py_RegisterGradientFunction(spy)
    try:
        capture(lambda x: tf.reduce_sum(tf.exp(x)), x=X)
        with tf.GradientTape() as tape:
            v = tf.constant(2.0)
            tape.watch(v)
            y = tf.exp(v)
        tape.gradient(y, v)
    finally:
        pywrap_tfe.TFE_Py_RegisterGradientFunction(backprop._gradient_function)
    assert seen == []  # a recording leaves TensorFlow's own function registered


def test_a_seed_of_the_users_goes_on():
    tf.random.set_seed(5)
    first = tf.random.uniform(()).numpy()
    tf.random.set_seed(5)
    load(lambda x: tf.reduce_sum(x), "loss").capture({"x": X}, ("x",), "eager")
    assert context.context()._seed == 5
    assert tf.random.uniform(()).numpy() == first
