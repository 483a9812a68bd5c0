"""The wrong thing fed in, in TensorFlow and Keras: eagerly and as a graph, and Keras models."""

from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf

import whynan
from whynan import binary, classes, integers, logit, onehot, prob, real
from whynan.analysis.finding import Finding

pytestmark = pytest.mark.slow

BOTH = ("eager", "function")
X = real(4, 5, low=-3, high=3)


def found(loss: Any, **domains: Any) -> list[Finding]:
    """The findings of kind contract."""
    return [f for f in whynan.check(loss, framework="tensorflow", modes=BOTH, **domains).findings if f.kind == "contract"]


def clamped(p, t):
    q = tf.clip_by_value(p, 1e-7, 1 - 1e-7)
    return -tf.reduce_mean(t * tf.math.log(q) + (1 - t) * tf.math.log(1 - q))


def softmax_twice(x, t):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=t, logits=tf.nn.softmax(x))


def sigmoid_twice(x, t):
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=t, logits=tf.sigmoid(x))


def cross_entropy(x, t):
    return tf.nn.sparse_softmax_cross_entropy_with_logits(labels=t, logits=x)


def with_logits(x, t):
    return tf.nn.sigmoid_cross_entropy_with_logits(labels=t, logits=x)


def rounded(p, t):
    return tf.reduce_mean((tf.round(p) - t) ** 2)


@pytest.mark.parametrize(
    ("loss", "cause", "domains"),
    [
        (clamped, "logits-as-probabilities", {"p": logit(4), "t": binary(4)}),
        (softmax_twice, "double-softmax", {"x": logit(4, 3), "t": classes(3, 4)}),
        (sigmoid_twice, "double-softmax", {"x": logit(4), "t": binary(4)}),
        (cross_entropy, "target-out-of-range", {"x": logit(4, 3), "t": integers(0, 3, 4)}),
        (with_logits, "target-out-of-range", {"x": logit(4), "t": real(4, low=-1, high=1, grad=False)}),
        (rounded, "gradient-detached", {"p": prob(4), "t": binary(4)}),
        (keras.losses.BinaryCrossentropy(), "logits-as-probabilities", {"y_pred": logit(4, 1), "y_true": binary(4, 1)}),
    ],
)
def test_the_mistake_is_found_in_both_modes(loss, cause, domains):
    (one,) = found(loss, **domains)
    assert (one.cause, one.modes) == (cause, BOTH)
    assert one.witness is not None


@pytest.mark.parametrize(
    ("loss", "domains"),
    [
        (clamped, {"p": prob(4), "t": binary(4)}),
        (cross_entropy, {"x": logit(4, 3), "t": classes(3, 4)}),
        (with_logits, {"x": logit(4), "t": prob(4)}),
        (keras.losses.BinaryCrossentropy(), {"y_pred": prob(4, 1), "y_true": binary(4, 1)}),
        (keras.losses.BinaryCrossentropy(from_logits=True), {"y_pred": logit(4, 1), "y_true": binary(4, 1)}),
        (keras.losses.CategoricalCrossentropy(from_logits=True), {"y_pred": logit(4, 3), "y_true": onehot(4, 3)}),
    ],
)
def test_correct_code_is_no_alarm(loss, domains):
    assert found(loss, **domains) == []


def test_numpy_on_a_symbol_is_an_error_of_the_graph_mode_alone():
    (one,) = found(lambda p, t: tf.reduce_mean(tf.where(np.isnan(p), 0.0, p - t)), p=prob(4), t=binary(4))
    assert (one.cause, one.severity, one.modes) == ("numpy-in-graph", "error", ("function",))


def missing(p, t):
    return tf.where(tf.debugging.is_nan(p), 0.0, p - t)


def test_a_missing_function_is_named_with_the_one_that_exists():
    (one,) = found(missing, p=prob(4), t=binary(4))
    assert (one.cause, one.modes, one.op) == ("no-such-function", BOTH, "is_nan")
    assert "tf.debugging has no is_nan: there is tf.math.is_nan." in one.message
    assert one.site is not None and one.site.text == "tf.debugging.is_nan"


def test_the_keras_of_tensorflow_is_not_taken_for_keras_own():
    (one,) = found(lambda p, t: tf.keras.losses.log_cosh(t, p), p=prob(4), t=prob(4))
    assert "tf.keras.losses has no log_cosh: there is keras.losses.log_cosh or tf.keras.losses.logcosh." in one.message


# ---------------------------------------------------------------- models


def network(activation: str | None, outputs: int) -> keras.Model:
    """A small network on five features; the same one each time."""
    keras.utils.set_random_seed(0)
    layers = [keras.Input((5,)), keras.layers.Dense(4, activation="relu"), keras.layers.Dense(outputs, activation=activation)]
    return keras.Sequential(layers)


def test_a_keras_model_without_activation_before_a_loss_of_probabilities():
    loss = keras.losses.BinaryCrossentropy()
    (one,) = found(loss, model=network(None, 1), x=X, y=binary(4, 1))
    assert (one.cause, one.severity) == ("logits-as-probabilities", "error")
    assert found(loss, model=network("sigmoid", 1), x=X, y=binary(4, 1)) == []


def test_a_keras_model_with_an_activation_that_the_loss_applies_again():
    (one,) = found(cross_entropy, model=network("softmax", 3), x=X, y=classes(3, 4))
    assert one.cause == "double-softmax"


def test_keras_itself_takes_the_activation_off_again():
    # Keras remembers the logits behind a softmax layer and uses them with from_logits=True: nothing is wrong then
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model = network("softmax", 3)
    assert found(loss, model=model, x=X, y=classes(3, 4)) == []
    x, y = np.ones((4, 5), np.float32), np.zeros(4, np.int64)
    probabilities = keras.losses.SparseCategoricalCrossentropy()(y, model(x))
    assert np.allclose(loss(y, model(x)), probabilities, atol=1e-5)


def test_the_variables_of_the_model_are_parameters():
    report = whynan.check(with_logits, model=network(None, 1), framework="tensorflow", modes=["eager"], x=X, y=binary(4, 1))
    kernels = [name for name in report.domain if name.endswith("kernel")]
    assert len(kernels) == 2 and all(report.domain[name].grad for name in kernels)
