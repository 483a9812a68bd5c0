"""What the real framework does on the corners and on samples of a domain: the evidence that the gallery's expectations rest on.

Nothing here uses whynan, so that the tests compare whynan with something other than itself.
"""

import ast
import functools
import itertools
import math
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np

Arrays = dict[str, np.ndarray]
Outcome = tuple[np.ndarray, Arrays]  # the loss, its gradients by name
TARGETS = frozenset({"t", "y", "target", "mask"})
BOUNDS = {"real": (-1e4, 1e4), "prob": (0.0, 1.0), "logit": (-100.0, 100.0), "nonnegative": (0.0, 1e4)}
CHOICES = {"binary": (0.0, 1.0), "mask": (0.0, 1.0)}
ROWS = ("unit", "simplex", "onehot")
DTYPES = {"float64": np.float64, "float32": np.float32, "float16": np.float16, "bfloat16": ml_dtypes.bfloat16}


@dataclass(frozen=True)
class Box:
    """One input's domain: the constructor's name, the shape, and the closed bounds of its numbers."""

    kind: str
    shape: tuple[int, ...]
    low: float
    high: float


def box(text: str) -> Box:
    """Read one domain, such as "real(8, 1, low=-1)"; ValueError where the gallery's sampler does not know the kind."""
    call = ast.parse(text, mode="eval").body
    if not (isinstance(call, ast.Call) and isinstance(call.func, ast.Name)):
        raise ValueError(f"not a domain: {text!r}")
    kind = call.func.id
    numbers = tuple(int(ast.literal_eval(a)) for a in call.args)
    if kind == "classes":
        return Box(kind, numbers[1:], 0.0, numbers[0] - 1.0)
    if kind in ROWS or kind in CHOICES:
        return Box(kind, numbers, *CHOICES.get(kind, (-1.0, 1.0)))
    if kind not in BOUNDS:
        raise ValueError(f"no sampler for the domain {text!r}")
    given = {k.arg: float(ast.literal_eval(k.value)) for k in call.keywords}
    low, high = BOUNDS[kind]
    return Box(kind, numbers, given.get("low", low), given.get("high", high))


# ---------------------------------------------------------------- samples


def array(b: Box, values: Any, dtype: str) -> np.ndarray:
    """The values (one number, or what broadcasts to the box) as an array inside the box: rounded to the dtype, not out of the bounds."""
    raw = np.broadcast_to(np.asarray(values, np.float64), b.shape)
    if b.kind in ("mask", "classes"):
        return raw.astype(np.bool_ if b.kind == "mask" else np.int64)
    with np.errstate(over="ignore"):
        rounded = raw.astype(DTYPES[dtype])
    if b.kind in ROWS:
        return rounded
    outside = (rounded.astype(np.float64) < b.low) | (rounded.astype(np.float64) > b.high)
    return np.where(outside, np.nextafter(rounded, np.zeros_like(rounded)), rounded)


def corners(b: Box, dtype: str) -> list[float]:
    """The ends of a box of numbers, and what lies in it next to 0 and 1 in the dtype; every class; nothing for rows."""
    if b.kind in ROWS:
        return []
    if b.kind not in BOUNDS:
        return [b.low, b.high]
    info = ml_dtypes.finfo(DTYPES[dtype])
    smallest, tiny, eps = float(info.smallest_subnormal), float(info.tiny), float(info.eps)
    near_zero = [smallest, tiny, 1e-7, 1e-5, eps]
    near_one = [1 - eps / 2, 1.0, 1 + eps, 10.0]
    inside = [x for m in near_zero + near_one for x in (m, -m) if b.low < x < b.high]
    return [b.low, b.high, *([0.0] if b.low < 0 < b.high else []), *inside]


def _rows(b: Box, one_hot: bool, g: np.random.Generator) -> np.ndarray:
    raw = g.standard_normal(b.shape)
    if one_hot:
        return np.eye(b.shape[-1])[raw.argmax(-1)]
    if b.kind == "simplex":
        powers = np.exp(8 * (raw - raw.max(-1, keepdims=True)))
        return powers / powers.sum(-1, keepdims=True)
    return raw / np.linalg.norm(raw, axis=-1, keepdims=True)


def draw(b: Box, dtype: str, g: np.random.Generator) -> np.ndarray:
    """One array inside the box: corners, one corner everywhere, uniform, or at one random scale around zero."""
    way = int(g.integers(5))
    if b.kind in ROWS:
        return array(b, _rows(b, b.kind == "onehot" or way % 2 == 0, g), dtype)
    uniform = g.random(b.shape)
    if b.kind == "classes":
        return array(b, np.floor(uniform * (b.high + 1)), dtype)
    picked = np.array(corners(b, dtype))[g.integers(len(corners(b, dtype)), size=b.shape)]
    if b.kind in CHOICES:
        return array(b, picked.flat[0] if way == 0 else picked, dtype)
    spread = b.low + uniform * (b.high - b.low)
    scale = math.exp(math.log(float(ml_dtypes.finfo(DTYPES[dtype]).smallest_subnormal)) * g.random())
    near = np.clip(spread / max(abs(b.low), abs(b.high)) * 4 * scale, b.low, b.high)
    values = (picked, picked.flat[0], spread, near, np.where(uniform < 0.5, picked, spread))[way]
    return array(b, values, dtype)


def samples(domains: Mapping[str, str], dtype: str, count: int, seed: int = 0) -> Iterator[Arrays]:
    """Inputs inside the domains: first up to `count` products of corners, then `count` random ones, half of them with equal inputs."""
    boxes = {name: box(text) for name, text in domains.items()}
    g = np.random.default_rng(seed)
    ends = [corners(b, dtype) or [None] for b in boxes.values()]
    for values in itertools.islice(itertools.product(*ends), count):
        yield {n: draw(b, dtype, g) if v is None else array(b, v, dtype) for (n, b), v in zip(boxes.items(), values, strict=True)}
    first, *others = boxes
    for k in range(count):
        drawn = {n: draw(b, dtype, g) for n, b in boxes.items()}
        equal = {n: drawn[first].copy() for n in others if k % 2 and boxes[n] == boxes[first]}
        yield drawn | equal


# ---------------------------------------------------------------- runs


def wanted(inputs: Arrays) -> list[str]:
    """The inputs that a loss is differentiated by: the floating ones that are not targets."""
    return [n for n, x in inputs.items() if n not in TARGETS and x.dtype.kind not in "biu"]


def run_torch(loss: Callable[..., Any], inputs: Arrays, mode: str = "eager") -> Outcome:
    """The loss and its gradients in PyTorch's eager mode."""
    import torch

    def tensor(x: np.ndarray) -> torch.Tensor:
        return torch.tensor(x.astype(np.float64)).to(torch.bfloat16) if x.dtype == ml_dtypes.bfloat16 else torch.tensor(x)

    def back(x: torch.Tensor) -> np.ndarray:
        return x.detach().double().numpy()

    assert mode == "eager"
    leaves = {n: tensor(x).requires_grad_(n in wanted(inputs)) for n, x in inputs.items()}
    by = {n: leaves[n] for n in wanted(inputs)}
    value = loss(**leaves)
    found = torch.autograd.grad(value.sum(), list(by.values()), allow_unused=True)
    return back(value), {n: np.zeros(x.shape) if g is None else back(g) for (n, x), g in zip(by.items(), found, strict=True)}


@functools.cache
def _tensorflow_step(loss: Callable[..., Any], mode: str) -> Callable[..., Any]:
    import tensorflow as tf

    def step(inputs: dict[str, Any], names: tuple[str, ...]) -> Any:
        with tf.GradientTape() as tape:
            tape.watch([inputs[n] for n in names])
            value = loss(**inputs)
        found = tape.gradient(value, [inputs[n] for n in names], unconnected_gradients="zero")
        return value, [tf.convert_to_tensor(g) for g in found]

    if mode == "eager":
        return step
    return tf.function(step, jit_compile=mode == "xla", reduce_retracing=True)


def run_tensorflow(loss: Callable[..., Any], inputs: Arrays, mode: str = "eager") -> Outcome:
    """The loss and its gradients in one of TensorFlow's modes."""
    import tensorflow as tf

    names = tuple(wanted(inputs))
    value, found = _tensorflow_step(loss, mode)({n: tf.constant(x) for n, x in inputs.items()}, names)
    return value.numpy().astype(np.float64), {n: g.numpy().astype(np.float64) for n, g in zip(names, found, strict=True)}


@functools.cache
def _jax_step(loss: Callable[..., Any], mode: str) -> Callable[..., Any]:
    import jax
    import jax.numpy as jnp

    def step(by: dict[str, Any], inputs: dict[str, Any]) -> Any:
        value, pullback = jax.vjp(lambda by: loss(**{**inputs, **by}), by)
        return value, pullback(jnp.ones_like(value))[0]

    return jax.jit(step) if mode == "jit" else step


def run_jax(loss: Callable[..., Any], inputs: Arrays, mode: str = "jit") -> Outcome:
    """The loss and its gradients in one of JAX's modes."""
    narrow = {n: x.astype(np.int32) if x.dtype == np.int64 else x for n, x in inputs.items()}
    by = {n: narrow[n] for n in wanted(narrow)}
    value, found = _jax_step(loss, mode)(by, narrow)
    return np.asarray(value).astype(np.float64), {n: np.asarray(g).astype(np.float64) for n, g in found.items()}


RUNS = {"torch": run_torch, "tensorflow": run_tensorflow, "jax": run_jax}


def run(framework: str, loss: Callable[..., Any], inputs: Arrays, mode: str) -> Outcome:
    """The loss and its gradient by every floating input that is not a target; by an input that is not used it is zero."""
    return RUNS[framework](loss, inputs, mode)


def fails(outcome: Outcome) -> bool:
    """True if the loss or a gradient is NaN or infinite."""
    value, gradients = outcome
    return not all(bool(np.isfinite(x).all()) for x in (value, *gradients.values()))


def steepest(outcome: Outcome) -> float:
    """The largest |element| of any gradient."""
    return max(float(np.abs(g).max()) for g in outcome[1].values())
