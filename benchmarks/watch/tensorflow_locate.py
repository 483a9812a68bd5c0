"""What each tool finds in TensorFlow, eagerly and compiled by `tf.function`: one training step goes well, the next goes bad.

    python -m benchmarks.watch.tensorflow_locate

What counts as found is what `locate` says.
"""

import os

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from benchmarks.timing import table
from benchmarks.watch.measure import HEAD, Said, read, scored
from tests.watch.marked import marked

import whynan

HERE = os.path.abspath(__file__)
EIGHT, BAD = 8, 5  # samples in a batch, the one that fails
Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Run:
    """A loss of predictions and targets, and what is put into sample `BAD` of the bad batch: in `x`, in `y`; or all of `y`."""

    loss: Any
    x: Any = None
    y: Any = None
    all_y: float | None = None
    outputs: int = 1

    def batch(self, bad: bool) -> tuple[Any, Any]:
        """Positive inputs whose sum is near 1, and targets of one."""
        x = np.random.default_rng(0).uniform(0.3, 0.7, (EIGHT, 2)).astype("float32")
        y = np.ones((EIGHT, self.outputs), "float32")
        if bad and self.x is not None:
            x[BAD] = self.x
        if bad and self.y is not None:
            y[BAD] = self.y
        if bad and self.all_y is not None:
            y[:] = self.all_y
        return tf.constant(x), tf.constant(y)


def log_of_zero(p: Any, y: Any) -> Any:
    """A prediction of 0."""
    return -tf.reduce_mean(tf.math.log(p))  # at log_of_zero


def root(p: Any, y: Any) -> Any:
    """The root's derivative at 0 is infinite."""
    return tf.reduce_mean(tf.sqrt(p * y))  # at root


def where_trap(p: Any, y: Any) -> Any:
    """`where` hides the infinite value, not the gradient behind it."""
    logs = tf.math.log(p)  # at where_trap
    return tf.reduce_mean(tf.where(p > 0, logs, 0.0))


def exp_overflow(p: Any, y: Any) -> Any:
    """Infinity divided by infinity."""
    e = tf.exp(p)  # at exp_overflow
    return tf.reduce_mean(e / (1.0 + e))


def empty_row(p: Any, y: Any) -> Any:
    """A softmax of which everything is masked."""
    scores = tf.where(y > 0, p, -np.inf)
    return tf.reduce_mean(tf.square(tf.nn.softmax(scores)))  # at empty_row


@tf.custom_gradient
def clipped(x: Any) -> Any:
    """Its gradient divides by its input."""

    def backward(upstream: Any) -> Any:
        return upstream / x  # at bad_backward

    return tf.minimum(x, 2.0), backward


def bad_backward(p: Any, y: Any) -> Any:
    """A backward of the own divides by zero."""
    return tf.reduce_mean(tf.square(clipped(p * y)))


def empty_mask(p: Any, y: Any) -> Any:
    """A mean over nothing."""
    return tf.reduce_sum(p * y) / tf.reduce_sum(y)  # at empty_mask


def nan_target(p: Any, y: Any) -> Any:
    """A target that is not a number."""
    return tf.reduce_mean(tf.square(p - y))  # at nan_target


def masked_scores(p: Any, y: Any) -> Any:
    """Behind a mask of -inf, which is harmless, a prediction of 0."""
    scores = tf.where(y > 0, p, -np.inf)  # harmless: an infinity that softmax takes away
    return -tf.reduce_mean(tf.math.log(tf.reduce_sum(tf.nn.softmax(scores) * p, axis=-1)))  # at masked_scores


RUNS = (
    Run(log_of_zero, x=0.0),
    Run(root, y=0.0),
    Run(where_trap, x=0.0),
    Run(exp_overflow, x=100.0),
    Run(empty_row, y=0.0, outputs=4),
    Run(bad_backward, y=0.0),
    Run(empty_mask, all_y=0.0),
    Run(nan_target, y=np.nan),
    Run(masked_scores, x=0.0, y=[1.0, 0.0, 0.0, 1.0], outputs=4),
)


@contextmanager
def check_numerics(step: Any, model: Any, optimizer: Any) -> Iterator[Any]:
    """The step while `tf.debugging.enable_check_numerics` is on."""
    tf.debugging.enable_check_numerics(path_length_limit=1000)
    try:
        yield step
    finally:
        tf.debugging.disable_check_numerics()


@contextmanager
def watched(step: Any, model: Any, optimizer: Any) -> Iterator[Any]:
    """The step inside of whynan.watch."""
    with whynan.watch(step, model=model, optimizer=optimizer, folder=None) as inside:
        yield inside


TOOLS = {"whynan.watch": watched, "tf.debugging.enable_check_numerics": check_numerics}


def said(around: Any, run: Run, compiled: bool) -> Said:
    """Make a good step and a bad one inside a tool."""
    keras.utils.set_random_seed(0)
    layer = keras.layers.Dense(run.outputs, kernel_initializer="ones", use_bias=False, name="adds")
    model = keras.Sequential([keras.layers.Input((2,)), layer])
    optimizer = keras.optimizers.SGD(1e-6)
    optimizer.build(model.trainable_variables)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            value = run.loss(model(x, training=True), y)
        gradients = tape.gradient(value, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return value

    error: BaseException | None = None
    before: list[Array] = []
    try:
        with around(tf.function(step) if compiled else step, model, optimizer) as inside:
            inside(*run.batch(bad=False))
            before = [v.numpy() for v in model.variables]
            inside(*run.batch(bad=True))
    except Exception as raised:
        error = raised
    same = len(before) > 0 and all(np.array_equal(v.numpy(), b) for v, b in zip(model.variables, before, strict=True))
    return read(error, "", same, (HERE,))


def rows() -> Iterator[list[str]]:
    """A row of the table for each tool and mode."""
    lines = {run.loss.__name__: (HERE, marked(HERE)[run.loss.__name__]) for run in RUNS}
    samples = {run.loss.__name__: BAD for run in RUNS if run.all_y is None}
    for mode, compiled in (("eager", False), ("tf.function", True)):
        for tool, around in TOOLS.items():
            yield scored(f"{tool}, {mode}", {run.loss.__name__: said(around, run, compiled) for run in RUNS}, lines, samples)


def main() -> None:
    """Print the table."""
    tf.get_logger().setLevel("ERROR")
    table("TensorFlow: runs that go bad", HEAD, list(rows()))


if __name__ == "__main__":
    main()
