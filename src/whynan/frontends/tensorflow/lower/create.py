"""Tensors made from nothing but shapes: constants as the framework filled them, and random numbers."""

from whynan.frontends.kit import Value
from whynan.frontends.tensorflow.lower._kernel import Kernel, NotLowered, kernel
from whynan.ir.dtype import INT64


def recorded(k: Kernel) -> list[Value | None]:
    """The results as constants, as the framework computed them."""
    values: list[Value | None] = []
    for i, (result, out) in enumerate(zip(k.op.results, k.op.outputs, strict=True)):
        if result is None and out is not None:
            raise NotLowered(k.op.type)
        values.append(None if out is None or result is None else k.const(result, k.out(i)[1]))
    return values


@kernel("Const", "Shape", "ShapeN", "Size", "Rank", "BroadcastGradientArgs", "BroadcastArgs", "ConcatOffset")
def _constant(k: Kernel) -> list[Value | None]:
    return recorded(k)


@kernel("Range", "LinSpace", structural=(0, 1, 2))
def _range(k: Kernel) -> list[Value | None]:
    return recorded(k)


@kernel("StatelessRandomGetKeyCounter", "StatelessRandomGetAlg", "StatelessRandomGetKeyCounterAlg")
def _key(k: Kernel) -> list[Value | None]:
    return recorded(k)


@kernel("ZerosLike")
def _zeros_like(k: Kernel) -> Value:
    return k.filled(0)


@kernel("OnesLike")
def _ones_like(k: Kernel) -> Value:
    return k.filled(1)


@kernel("Fill", structural=(0,))
def _fill(k: Kernel) -> Value:
    return k[1].expand(k.shape)


@kernel("Empty", structural=(0,))
def _empty(k: Kernel) -> Value:
    if not k.attr("init", False):
        raise NotLowered(k.op.type)
    return k.filled(0)


# ---------------------------------------------------------------- random numbers


def _random(low: float, high: float, *types: str) -> None:
    @kernel(*types, structural=(0,))
    def lowering(k: Kernel) -> Value:
        return random(k, low, high)


def random(k: Kernel, low: float, high: float) -> Value:
    """Some numbers between low and high, drawn by the framework under the seed."""
    return Value(k.builder, k.builder.add("random", (), k.shape, k.format, low=low, high=high))


# a normal sample of 53 random bits stays within 10 standard deviations
_random(0.0, 1.0, "RandomUniform", "StatelessRandomUniform", "StatelessRandomUniformV2")
_random(-10.0, 10.0, "RandomStandardNormal", "StatelessRandomNormal", "StatelessRandomNormalV2")
_random(-2.0, 2.0, "TruncatedNormal", "StatelessTruncatedNormal", "StatelessTruncatedNormalV2")


@kernel("RandomUniformInt", structural=(0, 1, 2))
def _random_integers(k: Kernel) -> Value:
    return random(k, float(k.integer(1)), float(k.integer(2)) - 1)


@kernel("StatelessRandomUniformInt", structural=(0, 2, 3))
def _stateless_random_integers(k: Kernel) -> Value:
    return random(k, float(k.integer(2)), float(k.integer(3)) - 1)


@kernel("StatelessRandomUniformIntV2", structural=(0, 4, 5))
def _stateless_random_integers_v2(k: Kernel) -> Value:
    return random(k, float(k.integer(4)), float(k.integer(5)) - 1)


@kernel("StatelessRandomUniformFullInt", "StatelessRandomUniformFullIntV2", structural=(0,))
def _any_integers(k: Kernel) -> Value:
    return random(k, -k.format.max - 1, k.format.max)


@kernel("Multinomial", "StatelessMultinomial")
def _multinomial(k: Kernel) -> Value:
    return random(k, 0.0, float(k[0].shape[-1]) - 1)


@kernel("RandomShuffle")
def _shuffle(k: Kernel) -> Value:
    x = k[0]
    if not x.ndim or x.shape[0] < 2:
        return x
    rows = Value(k.builder, k.builder.add("random", (), (x.shape[0],), INT64, low=0.0, high=float(x.shape[0] - 1)))
    return x.add("index", rows, axes=(-x.ndim,))
