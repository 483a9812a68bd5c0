"""What watching costs in TensorFlow while the run is healthy, eagerly and compiled by `tf.function`; `cost` says how it is measured.

python -m benchmarks.watch.tensorflow_cost [--rounds N]
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("KERAS_BACKEND", "tensorflow")

from collections.abc import Callable
from typing import Any

import keras
import tensorflow as tf
from benchmarks.watch.measure import AGAIN, PLAIN, Step, cost_table, ratios

import whynan

Made = tuple[keras.Model, Any]  # a model and a batch of inputs


def mlp() -> Made:
    """Three dense layers, as `models.mlp`."""
    layers = [keras.layers.Dense(128, activation="relu"), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)]
    return keras.Sequential([keras.layers.Input((64,)), *layers]), tf.random.normal((64, 64))


def cnn() -> Made:
    """Five convolutions with batch norm on images of 16 x 16, as `models.cnn`."""
    layers: list[Any] = [keras.layers.Input((16, 16, 3))]
    for out in (16, 32, 32, 64, 64):
        layers += [keras.layers.Conv2D(out, 3, padding="same"), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    return keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]), tf.random.normal((16, 16, 16, 3))


MODELS: dict[str, Callable[[], Made]] = {"MLP": mlp, "CNN": cnn}


def training(made: Made, compiled: bool) -> tuple[Callable[..., Any], keras.Model, keras.Optimizer, tuple[Any, Any]]:
    """A training step, the model, its optimizer and a batch."""
    model, x = made
    y = tf.random.uniform((len(x),), 0, 10, tf.int32)
    optimizer = keras.optimizers.Adam()
    criterion = keras.losses.SparseCategoricalCrossentropy(from_logits=True)

    def step(x: Any, y: Any) -> Any:
        with tf.GradientTape() as tape:
            loss = criterion(y, model(x, training=True))
        gradients = tape.gradient(loss, model.trainable_variables)
        optimizer.apply_gradients(zip(gradients, model.trainable_variables, strict=True))
        return loss

    optimizer.build(model.trainable_variables)
    return tf.function(step) if compiled else step, model, optimizer, (x, y)


def watched(made: Made, compiled: bool) -> Step:
    """A step inside of whynan.watch."""
    step, model, optimizer, batch = training(made, compiled)
    inside = whynan.watch(step, model=model, optimizer=optimizer, folder=None)
    return lambda: inside(*batch)


def checked(made: Made, compiled: bool) -> Step:
    """A step with `tf.debugging.enable_check_numerics`, on while an eager step runs or while a compiled one is traced."""
    step, _, _, batch = training(made, compiled)

    def inside() -> None:
        tf.debugging.enable_check_numerics()
        try:
            step(*batch)
        finally:
            tf.debugging.disable_check_numerics()

    inside()
    return (lambda: step(*batch)) if compiled else inside


def plain(made: Made, compiled: bool) -> Step:
    """A step that nobody watches."""
    step, _, _, batch = training(made, compiled)
    return lambda: step(*batch)


TOOLS = {PLAIN: plain, "whynan.watch": watched, "tf.debugging.enable_check_numerics": checked, AGAIN: plain}


def main() -> None:
    """Print a table with a column for each model and mode."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    tf.get_logger().setLevel("ERROR")
    tf.config.threading.set_intra_op_parallelism_threads(1)
    tf.config.threading.set_inter_op_parallelism_threads(1)
    found = {}
    for name, make in MODELS.items():
        for mode, compiled in (("eager", False), ("tf.function", True)):
            keras.utils.set_random_seed(0)
            found[f"{name} {mode}"] = ratios({tool: around(make(), compiled) for tool, around in TOOLS.items()}, rounds)
    cost_table("TensorFlow: time of a training step, ratio to the same step unwatched", found)


if __name__ == "__main__":
    main()
