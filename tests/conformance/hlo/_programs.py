"""Random losses in JAX: expressions over a few inputs with the shapes, functions and masks that losses are made of."""

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

Value = Any

UNARY: list[Callable[[Value], Value]] = [
    jnp.exp,
    jnp.log,
    jnp.sqrt,
    jnp.abs,
    jnp.square,
    jnp.tanh,
    jnp.log1p,
    jnp.expm1,
    jax.nn.sigmoid,
    jax.nn.softplus,
    jax.nn.log_sigmoid,
    jax.nn.relu,
    jax.nn.gelu,
    jax.lax.rsqrt,
    jnp.reciprocal,
    jnp.sin,
    jnp.arctan,
    jnp.negative,
    lambda v: 1 - v,
    lambda v: v + 1e-8,
    lambda v: 1.0 - v + 1e-7,
    lambda v: v * 0.5,
    lambda v: v**3,
    lambda v: jnp.clip(v, 1e-7, 1 - 1e-7),
    lambda v: jnp.clip(v, -1, 1),
    lambda v: jnp.maximum(v, 0.0),
    lambda v: jnp.where(v > 0, v, 0.0),
    lambda v: jnp.where(v > 0, jnp.log(jnp.where(v > 0, v, 1.0)), 0.0),
    lambda v: jnp.where(v > 0, jnp.sqrt(v), 0.0),
    lambda v: jnp.nan_to_num(v),
]
BINARY: list[Callable[[Value, Value], Value]] = [
    jnp.add,
    jnp.subtract,
    jnp.multiply,
    jnp.divide,
    jnp.maximum,
    jnp.minimum,
    jnp.power,
    jnp.arctan2,
    jnp.logaddexp,
    jax.scipy.special.xlogy,
    lambda a, b: a * b + a,
    lambda a, b: a * a - b * b,
    lambda a, b: a * jnp.log(b),
    lambda a, b: jnp.where(a > b, a, b * b),
    lambda a, b: jnp.where(b == 0, 0.0, a / b),
    lambda a, b: a / (jnp.abs(b) + 1e-6),
]
ALONG: list[Callable[[Value], Value]] = [
    lambda v: v - jnp.max(v, -1, keepdims=True),
    lambda v: jax.nn.softmax(v, -1),
    lambda v: jax.nn.log_softmax(v, -1),
    lambda v: v / jnp.sum(v, -1, keepdims=True),
    lambda v: v / jnp.linalg.norm(v, axis=-1, keepdims=True),
    lambda v: (v - jnp.mean(v, -1, keepdims=True)) / jnp.std(v, -1, keepdims=True),
    lambda v: jnp.cumsum(v, -1),
    lambda v: jnp.sort(v, -1),
    lambda v: v[..., ::-1],
    lambda v: jnp.roll(v, 1, -1) * v,
    lambda v: v @ v.T @ v,
    lambda v: jnp.broadcast_to(jnp.mean(v, 0), v.shape),
]
TOTALS: list[Callable[[Value], Value]] = [
    jnp.sum,
    jnp.mean,
    jnp.max,
    lambda v: jnp.sum(v * v),
    lambda v: jnp.mean(jax.nn.logsumexp(v, -1)),
    lambda v: jnp.std(v),
    lambda v: -jnp.mean(jnp.sum(v, -1)),
    lambda v: jnp.sqrt(jnp.sum(jnp.square(v))),
]


def draw_loss(draw: np.random.Generator, inputs: int = 2, steps: int = 5) -> Callable[..., Value]:
    """A loss of `inputs` arrays of one shape with at least two dimensions; the same draws give the same loss."""
    plan = [(draw.random(), int(draw.integers(1 << 30)), int(draw.integers(1 << 30)), int(draw.integers(1 << 30))) for _ in range(steps)]
    total = TOTALS[int(draw.integers(len(TOTALS)))]

    def loss(*arguments: Value) -> Value:
        values = list(arguments)
        for kind, which, first, second in plan:
            a, b = values[-1 - first % min(len(values), 3)], values[second % len(values)]
            if kind < 0.5:
                values.append(UNARY[which % len(UNARY)](a))
            elif kind < 0.85:
                values.append(BINARY[which % len(BINARY)](a, b))
            else:
                values.append(ALONG[which % len(ALONG)](a))
        return total(values[-1])

    return loss


LIMITS = [(0.0, 1.0), (-1.0, 1.0), (-100.0, 100.0), (0.0, 1e4), (-1e4, 1e4), (1e-30, 1e30), (1.0, 2.0), (-3e38, 3e38)]


def draw_arguments(draw: np.random.Generator, limits: tuple[float, float], shape: tuple[int, ...], dtype: str) -> Value:
    """Numbers within the limits, many of them special."""
    low, high = limits
    plain = draw.uniform(low / 2, high / 2, shape) * 2
    logarithmic = np.exp(draw.uniform(-70, 40, shape)) * draw.choice([-1, 1], shape)
    special = draw.choice([low, high, 0.0, -0.0, 1.0, -1.0, 0.5, 1e-38, 1e-40, 1e-20, 1e-8, 88.5, 1 - 6e-8], shape)
    mixed = np.where(draw.random(shape) < 0.4, special, np.where(draw.random(shape) < 0.3, logarithmic, plain))
    if draw.random() < 0.3:
        mixed = np.broadcast_to(mixed[..., :1], shape)
    return np.clip(mixed, low, high).astype(dtype)
