"""Paths of TensorFlow and Keras losses: eager code that looks at values, selections under masks, branches in graphs."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import whynan

tf = pytest.importorskip("tensorflow")
keras = pytest.importorskip("keras")

EAGER = ("eager",)


def reasons(report: Any) -> str:
    return "\n".join(o.reason for o in report.undecided)


def masked_mean(x, m):
    if tf.reduce_sum(m) == 0:
        return tf.reduce_sum(x) * 0
    return tf.reduce_sum(x * m) / tf.reduce_sum(m)


def image_range(x):
    if tf.reduce_any(x > 1):
        x = x / 255
    return tf.reduce_mean(tf.math.log(2 - x))


def selected(x, m):
    chosen = tf.boolean_mask(x * x, m)
    return tf.reduce_sum(x) * 0 if tf.size(chosen) == 0 else tf.reduce_mean(chosen)


def positive_logs(x):
    chosen = tf.boolean_mask(x, x > 0.5)
    return tf.reduce_sum(x) * 0 if tf.size(chosen) == 0 else tf.reduce_mean(tf.math.log(chosen))


def hinge(y_true, y_pred):
    return keras.losses.Hinge()(y_true, y_pred)


X, M = whynan.real(4, low=-10, high=10), whynan.mask(4)

SAFE: dict[str, tuple[Callable[..., Any], dict[str, Any], tuple[str, ...]]] = {
    "a sum of a mask": (masked_mean, {"x": X, "m": whynan.binary(4)}, EAGER),
    "any element": (image_range, {"x": whynan.real(4, low=0, high=255)}, EAGER),
    "a selection": (selected, {"x": X, "m": M}, EAGER),
    "a selection of positive numbers": (positive_logs, {"x": X}, EAGER),
    "Keras looks whether labels are zeros and ones": (hinge, {"y_true": whynan.binary(4, 1), "y_pred": whynan.real(4, 1)}, EAGER),
    "Keras finds both kinds of labels": (hinge, {"y_true": whynan.real(3, 1, low=-1, high=1), "y_pred": whynan.real(3, 1)}, EAGER),
}


@pytest.mark.parametrize(("loss", "domains", "modes"), SAFE.values(), ids=SAFE)
def test_a_loss_that_is_finite_on_every_path_is_safe(loss: Callable[..., Any], domains: dict[str, Any], modes: tuple[str, ...]) -> None:
    report = whynan.check(loss, framework="tensorflow", modes=modes, **domains)
    assert report.verdict == "safe", reasons(report)


@pytest.mark.slow
def test_an_empty_selection_is_found_and_blamed() -> None:
    report = whynan.check(lambda x: tf.reduce_mean(tf.boolean_mask(x, x > 9)), framework="tensorflow", modes=EAGER, x=X)
    assert report.verdict == "unsafe" and report.findings[0].cause == "empty-reduction"


def test_a_hairs_breadth_is_found() -> None:
    def loss(x):
        if tf.reduce_any(tf.equal(x, 0.1)):
            return tf.reduce_sum(tf.math.log(x - 0.1))
        return tf.reduce_sum(x)

    report = whynan.check(loss, framework="tensorflow", modes=EAGER, x=whynan.real(3, low=-1, high=1))
    assert report.verdict == "unsafe"


@pytest.mark.slow
def test_a_number_that_enters_the_loss_leaves_it_undecided() -> None:
    def loss(x):
        return tf.reduce_sum(x) / (1 + abs(float(tf.reduce_max(x))))

    report = whynan.check(loss, framework="tensorflow", modes=EAGER, x=X)
    assert report.verdict == "undecided" and "float(tensor)" in reasons(report)


@pytest.mark.parametrize("read", [np.max, lambda x: np.asarray(x).max(), lambda x: np.array([x[0], x[1]]).max(), lambda x: np.abs(x).max()])
def test_what_numpy_reads_is_seen(read: Callable[..., Any]) -> None:
    """NumPy would take the memory by the buffer protocol, which no Python code sees."""

    def loss(x):
        return tf.reduce_sum(tf.math.log(x * 0)) if read(x) > 9.999 else tf.reduce_sum(x)

    report = whynan.check(loss, framework="tensorflow", modes=EAGER, x=whynan.real(3, low=-10, high=10))
    assert report.verdict != "safe"
    assert memoryview(tf.constant([1.0])).tolist() == [1.0]  # tensors have their buffers again


@pytest.mark.slow
def test_a_case_is_not_excluded_by_a_number_that_wraps_around() -> None:
    def loss(x, k):
        if tf.reduce_all(tf.cast(k, tf.uint8) > 100):
            return tf.reduce_sum(tf.math.log(x * 0))
        return tf.reduce_sum(x)

    domains = {"x": whynan.real(3, low=-10, high=10), "k": whynan.integers(-1, 1, 1)}
    assert whynan.check(loss, framework="tensorflow", modes=("function",), domains=domains).verdict == "unsafe"
