"""What `whynan.keras.Watch` costs in `model.fit` while the run is healthy, on the backend that KERAS_BACKEND names.

    python -m benchmarks.watch.keras_cost [--rounds N]

One run of `fit` is watched, epoch after epoch; at the end of each, a model like it makes an epoch unwatched, and another one as well, so
that all three meet the same machine. An epoch is timed between its own two callbacks.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("JAX_PLATFORMS", "cpu")

import statistics
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
from benchmarks.watch.measure import AGAIN, cost_table

import whynan.keras

WARM = 2  # epochs that are not counted


class Clock(keras.callbacks.Callback):
    """Notes the processor seconds of each epoch, and then calls a function."""

    def __init__(self, then: Callable[[], object] = lambda: None) -> None:
        super().__init__()
        self.epochs: list[float] = []
        self.then = then

    def on_epoch_begin(self, epoch: int, logs: Any = None) -> None:
        """Start."""
        self.start = time.process_time()

    def on_epoch_end(self, epoch: int, logs: Any = None) -> None:
        """Stop."""
        self.epochs.append(time.process_time() - self.start)
        self.then()


def mlp() -> tuple[keras.Model, int, tuple[int, ...]]:
    """A model, its batch size and the shape of a sample: three dense layers, as `models.mlp`."""
    layers = [keras.layers.Dense(128, activation="relu"), keras.layers.Dense(128, activation="relu"), keras.layers.Dense(10)]
    return keras.Sequential([keras.layers.Input((64,)), *layers]), 64, (64,)


def cnn() -> tuple[keras.Model, int, tuple[int, ...]]:
    """Five convolutions with batch norm, as `models.cnn`."""
    layers: list[Any] = [keras.layers.Input((16, 16, 3))]
    for out in (16, 32, 32, 64, 64):
        layers += [keras.layers.Conv2D(out, 3, padding="same"), keras.layers.BatchNormalization(), keras.layers.ReLU()]
    return keras.Sequential([*layers, keras.layers.GlobalAveragePooling2D(), keras.layers.Dense(10)]), 16, (16, 16, 3)


MODELS = {"MLP": (mlp, 40), "CNN": (cnn, 8)}  # with the number of steps in an epoch


def measured(make: Callable[[], tuple[keras.Model, int, tuple[int, ...]]], steps: int, rounds: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of an unwatched step, and the ratios to it of a watched one and of another unwatched one."""
    models = [make()[0] for _ in range(3)]
    _, size, shape = make()
    x = np.random.default_rng(0).normal(size=(steps * size, *shape)).astype("float32")
    y = np.arange(len(x)) % 10
    for model in models:
        model.compile(optimizer="adam", loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True))
    clocks = [Clock(), Clock()]

    def unwatched() -> None:
        for model, clock in zip(models, clocks, strict=False):
            model.fit(x, y, batch_size=size, verbose=0, callbacks=[clock])

    watched = Clock(unwatched)
    models[2].fit(x, y, batch_size=size, epochs=rounds + WARM, verbose=0, callbacks=[whynan.keras.Watch(folder=None), watched])
    plain, again, seen = (clock.epochs[WARM:] for clock in (*clocks, watched))
    ratio = {
        tool: statistics.median(b / a for a, b in zip(plain, e, strict=True)) for tool, e in (("whynan.keras.Watch", seen), (AGAIN, again))
    }
    return statistics.median(plain) * 1e3 / steps, ratio


def main() -> None:
    """Print a table with a column for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    found = {name: measured(make, steps, rounds) for name, (make, steps) in MODELS.items()}
    cost_table(f"Keras on {keras.backend.backend()}: time of a step of model.fit, ratio to the same step unwatched", found)


if __name__ == "__main__":
    main()
