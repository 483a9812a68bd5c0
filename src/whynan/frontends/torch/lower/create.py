"""Tensors made from nothing: constants as the framework filled them, and random numbers."""

import math

import numpy as np

from whynan.frontends.kit import Value, filled, where
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.ir.dtype import BOOL


@kernel(
    "zeros",
    "ones",
    "full",
    "zeros_like",
    "ones_like",
    "new_zeros",
    "new_ones",
    "scalar_tensor",
    "arange",
    "arange.start",
    "arange.start_step",
    "linspace",
    "logspace",
    "eye",
    "eye.m",
    "zero",
    "tril_indices",
    "triu_indices",
    "hann_window",
    "hamming_window",
    "_efficientzerotensor",
)
def _constant(k: Kernel) -> Value:
    (value,) = k.aten.results
    assert value is not None, k.aten.name
    return k.const(value)


@kernel("full_like", "new_full", "fill.Scalar")
def _filled(k: Kernel) -> Value:
    number = k["fill_value"] if "full" in k.aten.name else k["value"]
    return filled(k.builder, number, k.shape, k.format)


@kernel("fill.Tensor")
def _filled_from_tensor(k: Kernel) -> Value:
    value: Value = k["value"]
    return value.cast(k.format)


def _random(low: float, high: float, *names: str) -> None:
    @kernel(*names)
    def lowering(k: Kernel) -> Value:
        return random(k, low, high)


def random(k: Kernel, low: float, high: float) -> Value:
    """Some numbers between low and high, drawn by the framework under the seed."""
    return Value(k.builder, k.builder.add("random", (), k.shape, k.format, low=low, high=high))


# a normal sample of a float64 generator stays within 10 standard deviations
_random(0.0, 1.0, "rand", "rand_like", "bernoulli", "bernoulli.p", "bernoulli.float", "bernoulli.Tensor", "bernoulli.out")
_random(-10.0, 10.0, "randn", "randn_like")


@kernel("uniform")
def _uniform(k: Kernel) -> Value:
    return random(k, float(k["from"]), float(k["to"]))


@kernel("normal", "normal_functional", "normal.float_float")
def _normal(k: Kernel) -> Value:
    mean, std = float(k["mean"]), float(k["std"])
    return random(k, mean - 10 * std, mean + 10 * std)


@kernel("exponential")
def _exponential(k: Kernel) -> Value:
    # -log(u) / rate with u of at least 2**-64
    return random(k, 0.0, 64 * math.log(2) / float(k["lambd"]))


@kernel("randint", "randint_like")
def _randint(k: Kernel) -> Value:
    return random(k, 0.0, float(k["high"]) - 1)


@kernel("randint.low", "randint_like.low_dtype")
def _randint_low(k: Kernel) -> Value:
    return random(k, float(k["low"]), float(k["high"]) - 1)


@kernel("randperm")
def _randperm(k: Kernel) -> Value:
    return random(k, 0.0, max(float(k["n"]) - 1, 0.0))


@kernel("multinomial")
def _multinomial(k: Kernel) -> Value:
    return random(k, 0.0, float(k.tensor("self").shape[-1]) - 1)


@kernel("native_dropout")
def _native_dropout(k: Kernel) -> tuple[Value, Value]:
    x, p = k.tensor("input"), k["p"]
    if not k["train"] or p == 0:
        return x, x.const(np.ones(x.shape), BOOL)
    kept = Value(k.builder, k.builder.add("random", (), x.shape, BOOL, low=0.0, high=1.0))
    if p == 1:
        return x.const(np.zeros(x.shape)), x.const(np.zeros(x.shape), BOOL)
    return where(kept, x.const(1), x.const(0)) * x * (1 / (1 - p)), kept


@kernel("native_dropout_backward")
def _native_dropout_backward(k: Kernel) -> Value:
    g = k.tensor("grad_output")
    scale: float = k["scale"]
    return k.tensor("mask").cast(g.format) * g * scale
