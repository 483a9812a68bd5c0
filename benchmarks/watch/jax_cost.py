"""What watching costs in JAX while the run is healthy, for a jitted step whose loss is waited for; `cost` says how it is measured.

    python -m benchmarks.watch.jax_cost [--rounds N]

The watch reads the new state on the host after each step. A checked program hands back an error, which is looked at after each step, too.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")
os.environ.setdefault("JAX_PLATFORMS", "cpu")
os.environ.setdefault("XLA_FLAGS", "--xla_cpu_multi_thread_eigen=false")

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from itertools import pairwise
from typing import Any

import jax
import jax.numpy as jnp
import optax
from benchmarks.watch.measure import AGAIN, PLAIN, Step, cost_table, ratios
from jax.experimental import checkify

import whynan
import whynan.optax

Loss = Callable[[Any, Any], Any]  # of parameters and batch
Made = tuple[Loss, Any, Any]  # with parameters and a batch
KEYS = iter(jax.random.split(jax.random.key(0), 100))


def weights(*shape: int) -> Any:
    """Normal numbers, scaled by the number of inputs."""
    inputs = 1
    for n in shape[:-1]:
        inputs *= n
    return jax.random.normal(next(KEYS), shape) * (2 / inputs) ** 0.5


def crossentropy(scores: Any, labels: Any) -> Any:
    """The mean over the batch."""
    return optax.softmax_cross_entropy_with_integer_labels(scores, labels).mean()


def mlp() -> Made:
    """Three linear layers, as `models.mlp`."""

    def loss(params: Any, batch: Any) -> Any:
        h = batch["x"]
        for w, b in params[:-1]:
            h = jax.nn.relu(h @ w + b)
        w, b = params[-1]
        return crossentropy(h @ w + b, batch["y"])

    params = [(weights(i, o), jnp.zeros(o)) for i, o in ((64, 128), (128, 128), (128, 10))]
    return loss, params, {"x": weights(64, 64), "y": jnp.arange(64) % 10}


def cnn() -> Made:
    """Five convolutions, each normalised over the batch, on images of 16 x 16, as `models.cnn`."""

    def loss(params: Any, batch: Any) -> Any:
        h = batch["x"]
        for kernel, scale, shift in params["convolutions"]:
            h = jax.lax.conv_general_dilated(h, kernel, (1, 1), "SAME", dimension_numbers=("NHWC", "HWIO", "NHWC"))
            mean, variance = h.mean((0, 1, 2)), h.var((0, 1, 2))
            h = jax.nn.relu((h - mean) * jax.lax.rsqrt(variance + 1e-5) * scale + shift)
        return crossentropy(h.mean((1, 2)) @ params["head"], batch["y"])

    channels = (3, 16, 32, 32, 64, 64)
    convolutions = [(weights(3, 3, i, o), jnp.ones(o), jnp.zeros(o)) for i, o in pairwise(channels)]
    return loss, {"convolutions": convolutions, "head": weights(64, 10)}, {"x": weights(16, 16, 16, 3), "y": jnp.arange(16) % 10}


MODELS: dict[str, Callable[[], Made]] = {"MLP": mlp, "CNN": cnn}


def train_step(loss: Loss, optimizer: Any) -> Callable[..., Any]:
    """The usual training step: (parameters, optimizer state, batch) -> (parameters, optimizer state, loss)."""

    def step(params: Any, state: Any, batch: Any) -> Any:
        value, grads = jax.value_and_grad(loss)(params, batch)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def looped(step: Callable[..., Any], made: Made, optimizer: Any) -> Step:
    """A call makes one step, with the parameters that the last one left, and waits for its loss."""
    _, params, batch = made
    at = [params, optimizer.init(params)]

    def once() -> None:
        at[0], at[1], value = step(at[0], at[1], batch)
        value.block_until_ready()

    return once


def plain(made: Made, optimizer: Any = None) -> Step:
    """A step that nobody watches."""
    optimizer = optimizer or optax.adam(1e-3)
    return looped(jax.jit(train_step(made[0], optimizer)), made, optimizer)


def watched(made: Made) -> Step:
    """A step inside of whynan.watch."""
    optimizer = optax.adam(1e-3)
    return looped(whynan.watch(jax.jit(train_step(made[0], optimizer)), folder=None), made, optimizer)


def checked(made: Made) -> Step:
    """A step under `checkify` with its checks of floating-point numbers."""
    optimizer = optax.adam(1e-3)
    inner = jax.jit(checkify.checkify(train_step(made[0], optimizer), errors=checkify.float_checks))

    def step(*args: Any) -> Any:
        error, out = inner(*args)
        error.throw()
        return out

    return looped(step, made, optimizer)


def within(around: Callable[[], AbstractContextManager[Any]], step: Step) -> Step:
    """The step with a setting that is on only while it runs."""

    def inside() -> None:
        with around():
            step()

    return inside


TOOLS: dict[str, Callable[[Made], Step]] = {
    PLAIN: lambda made: within(nullcontext, plain(made)),
    "whynan.watch": watched,
    "whynan.optax.guard": lambda made: plain(made, whynan.optax.guard(optax.adam(1e-3))),
    "optax.apply_if_finite": lambda made: plain(made, optax.apply_if_finite(optax.adam(1e-3), 3)),
    "checkify (float_checks)": checked,
    "jax_debug_nans": lambda made: within(lambda: jax.debug_nans(True), plain(made)),
    AGAIN: plain,
}


def main() -> None:
    """Print a table with a column for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    found = {}
    for name, make in MODELS.items():
        made = make()
        found[name] = ratios({tool: around(made) for tool, around in TOOLS.items()}, rounds)
    cost_table("JAX: time of a jitted training step, ratio to the same step unwatched", found)


if __name__ == "__main__":
    main()
