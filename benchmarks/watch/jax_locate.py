"""What each tool finds in JAX, with a jitted step: one training step goes well, the next goes bad.

    python -m benchmarks.watch.jax_locate

What counts as found is what `locate` says. `optax.apply_if_finite` and `whynan.optax.guard` count bad steps in their state, no more.
"""

import contextlib
import io
import os

os.environ.setdefault("JAX_PLATFORMS", "cpu")

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
from benchmarks.timing import table
from benchmarks.watch.measure import HEAD, Said, read, scored
from jax.experimental import checkify
from tests.watch.marked import marked

import whynan
import whynan.optax

HERE = os.path.abspath(__file__)
EIGHT, BAD = 8, 5  # samples in a batch, the one that fails
Step = Callable[..., Any]


@dataclass(frozen=True)
class Run:
    """A loss of weights, inputs and targets, and what is put into sample `BAD` of the bad batch: in `x`, in `y`; or all of `y`."""

    loss: Any
    x: Any = None
    y: Any = None
    all_y: float | None = None

    def batch(self, bad: bool) -> dict[str, Any]:
        """Positive inputs, and targets of one."""
        x = np.random.default_rng(0).uniform(0.3, 0.7, (EIGHT, 3)).astype("float32")
        y = np.ones(EIGHT, "float32")
        if bad and self.x is not None:
            x[BAD] = self.x
        if bad and self.y is not None:
            y[BAD] = self.y
        if bad and self.all_y is not None:
            y[:] = self.all_y
        return {"x": jnp.array(x), "y": jnp.array(y)}


def log_of_zero(w: Any, x: Any, y: Any) -> Any:
    """A prediction of 0."""
    p = jax.nn.relu(x @ w)
    return -jnp.mean(jnp.log(p))  # at log_of_zero


def root(w: Any, x: Any, y: Any) -> Any:
    """The root's derivative at 0 is infinite."""
    return jnp.mean(jnp.sqrt((x @ w) * y))  # at root


def norm(w: Any, x: Any, y: Any) -> Any:
    """The norm's derivative at 0 is not defined."""
    return jnp.mean(jnp.linalg.norm(x * w, axis=-1))  # at norm


def where_trap(w: Any, x: Any, y: Any) -> Any:
    """`where` hides the infinite value, not the gradient behind it."""
    p = x @ w
    logs = jnp.log(p)  # at where_trap
    return jnp.mean(jnp.where(p > 0, logs, 0.0))


def exp_overflow(w: Any, x: Any, y: Any) -> Any:
    """Infinity divided by infinity."""
    e = jnp.exp(x * w)  # at exp_overflow
    return jnp.mean(e[:, 0] / e.sum(axis=-1))


def empty_row(w: Any, x: Any, y: Any) -> Any:
    """A softmax of which everything is masked."""
    scores = jnp.where(y[:, None] > 0, x * w, -jnp.inf)
    return jnp.mean(jax.nn.softmax(scores, axis=-1) @ w)  # at empty_row


@jax.custom_vjp
def clipped(x: Any) -> Any:
    """Its gradient divides by its input."""
    return jnp.minimum(x, 2.0)


def _forward(x: Any) -> tuple[Any, Any]:
    return clipped(x), x


def _backward(x: Any, g: Any) -> tuple[Any]:
    return (g / x,)  # at bad_backward


clipped.defvjp(_forward, _backward)


def bad_backward(w: Any, x: Any, y: Any) -> Any:
    """A backward of the own divides by zero."""
    return jnp.mean(clipped((x @ w) * y) ** 2)


def empty_mask(w: Any, x: Any, y: Any) -> Any:
    """A mean over nothing."""
    return ((x @ w) * y).sum() / y.sum()  # at empty_mask


def nan_target(w: Any, x: Any, y: Any) -> Any:
    """A target that is not a number."""
    return jnp.mean((x @ w - y) ** 2)  # at nan_target


def half_overflow(w: Any, x: Any, y: Any) -> Any:
    """Beyond 65504 in half precision."""
    h = x.astype(jnp.float16) @ w.astype(jnp.float16)
    return jnp.mean((h * h).astype(jnp.float32))  # at half_overflow


RUNS = (
    Run(log_of_zero, x=0.0),
    Run(root, y=0.0),
    Run(norm, x=0.0),
    Run(where_trap, x=0.0),
    Run(exp_overflow, x=[100.0, 0.5, 0.5]),
    Run(empty_row, y=0.0),
    Run(bad_backward, y=0.0),
    Run(empty_mask, all_y=0.0),
    Run(nan_target, y=np.nan),
    Run(half_overflow, x=300.0),
)


def train_step(run: Run, optimizer: Any) -> Step:
    """(parameters, optimizer state, batch) -> (parameters, optimizer state, loss)."""

    def step(params: Any, state: Any, batch: Any) -> Any:
        value, grads = jax.value_and_grad(lambda w: run.loss(w, batch["x"], batch["y"]))(params)
        updates, state = optimizer.update(grads, state, params)
        return optax.apply_updates(params, updates), state, value

    return step


def watched(step: Step) -> Step:
    """The jitted step inside of whynan.watch."""
    return whynan.watch(jax.jit(step), folder=None)


def checked(step: Step) -> Step:
    """The jitted step under `checkify` with its checks of floating-point numbers."""
    inner = jax.jit(checkify.checkify(step, errors=checkify.float_checks))

    def inside(*args: Any) -> Any:
        error, out = inner(*args)
        error.throw()
        return out

    return inside


def debug_nans(step: Step) -> Step:
    """The jitted step with jax_debug_nans."""
    inner = jax.jit(step)

    def inside(*args: Any) -> Any:
        with jax.debug_nans(True):
            return jax.block_until_ready(inner(*args))

    return inside


def unchanged(optimizer: Any) -> Any:
    """The optimizer itself."""
    return optimizer


# what is done to the step and to the optimizer, and how many bad steps the optimizer's state counts
TOOLS: dict[str, tuple[Callable[[Step], Step], Callable[[Any], Any], Callable[[Any], int]]] = {
    "whynan.watch": (watched, unchanged, lambda state: 0),
    "whynan.optax.guard": (jax.jit, whynan.optax.guard, lambda state: int(whynan.optax.bad_steps(state))),
    "optax.apply_if_finite": (jax.jit, lambda optimizer: optax.apply_if_finite(optimizer, 3), lambda state: int(state.total_notfinite)),
    "checkify (float_checks)": (checked, unchanged, lambda state: 0),
    "jax_debug_nans": (debug_nans, unchanged, lambda state: 0),
}


def said(tool: str, run: Run) -> Said:
    """Make a good step and a bad one inside a tool."""
    around, wrapped, counted = TOOLS[tool]
    optimizer = wrapped(optax.adam(1e-6))
    params = jnp.ones(3)
    state = optimizer.init(params)
    step = around(train_step(run, optimizer))
    before, error = np.array(params), None
    with contextlib.redirect_stdout(io.StringIO()):  # jax_debug_nans prints that it goes on operation by operation
        try:
            params, state, _ = step(params, state, run.batch(bad=False))
            before = np.array(params)
            params, state, _ = step(params, state, run.batch(bad=True))
        except Exception as raised:
            error = raised
    count = counted(state)
    return read(error, f"{count} bad steps" if count else "", np.array_equal(before, params), (HERE,))


def rows() -> Iterator[list[str]]:
    """A row of the table for each tool."""
    lines = {run.loss.__name__: (HERE, marked(HERE)[run.loss.__name__]) for run in RUNS}
    samples = {run.loss.__name__: BAD for run in RUNS if run.all_y is None}
    for tool in TOOLS:
        yield scored(tool, {run.loss.__name__: said(tool, run) for run in RUNS}, lines, samples)


def main() -> None:
    """Print the table."""
    table("JAX: runs that go bad", HEAD, list(rows()))


if __name__ == "__main__":
    main()
