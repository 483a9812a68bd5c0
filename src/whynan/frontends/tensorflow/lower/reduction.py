"""Sums, means, extrema, cumulative operations, softmax, order."""

from math import prod

from whynan.frontends.kit import Value, apply, arange, cut, reduce, where
from whynan.frontends.tensorflow.lower._kernel import Kernel, kernel
from whynan.ir.dtype import FLOAT64, INT64


def _reduction(op: str, type: str) -> None:
    @kernel(type, structural=(1,))
    def lowering(k: Kernel) -> Value:
        dims = k.axes(1, k[0].ndim)
        return reduce(op, k[0], dims) if dims else k[0]


_reduction("sum", "Sum")
_reduction("prod", "Prod")
_reduction("amax", "Max")
_reduction("amin", "Min")
_reduction("all", "All")
_reduction("any", "Any")


@kernel("Mean", structural=(1,))
def _mean(k: Kernel) -> Value:
    """float16 is summed in float16, where a sum overflows beyond 65504; of integers the quotient is rounded towards zero."""
    x, dims = k[0], k.axes(1, k[0].ndim)
    if not dims:
        return x
    n = prod(x.shape[d] for d in dims)
    if x.format.name == "float16" and n:
        return x.sum(dims) / n
    return reduce("mean", x, dims) if x.format.is_float else apply("trunc", x.sum(dims).cast(FLOAT64) / n)


@kernel("EuclideanNorm", structural=(1,))
def _euclidean_norm(k: Kernel) -> Value:
    """The root of the sum of squares, without any scaling against overflow."""
    return apply("sqrt", apply("square", k[0]).sum(k.axes(1, k[0].ndim)))


@kernel("ArgMax", structural=(1,))
def _argmax(k: Kernel) -> Value:
    return reduce("argmax", k[0], (k.axis(1, k[0].ndim),), INT64)


@kernel("ArgMin", structural=(1,))
def _argmin(k: Kernel) -> Value:
    return reduce("argmin", k[0], (k.axis(1, k[0].ndim),), INT64)


@kernel("L2Loss")
def _l2_loss(k: Kernel) -> Value:
    return apply("square", k[0]).sum() * 0.5


# ---------------------------------------------------------------- cumulative operations


def _cumulative(op: str, start: float, type: str) -> None:
    @kernel(type, structural=(1,))
    def lowering(k: Kernel) -> Value:
        x = k[0]
        if not x.ndim:
            return k.filled(start) if k.attr("exclusive", False) else x
        dim = k.axis(1, x.ndim)
        return _scanned(x, op, dim, start, bool(k.attr("exclusive", False)), bool(k.attr("reverse", False)))


def _scanned(x: Value, op: str, dim: int, start: float, exclusive: bool, reverse: bool) -> Value:
    """A scan, from the far end if `reverse`, of the elements before each one if `exclusive`."""
    x = flipped(x, dim) if reverse else x
    if exclusive:
        pads = [(1, 0) if a == dim else (0, 0) for a in x.axes]
        shape = [n + (a == dim) for a, n in zip(x.axes, x.shape, strict=True)]
        x = cut(x.add("pad", shape=shape, pads=tuple(pads), value=start), dim, 0, x.shape[dim])
    y = x.add(op, dim=dim)
    return flipped(y, dim) if reverse else y


def flipped(x: Value, *dims: int) -> Value:
    """The elements in reverse order along axes."""
    return x.add("flip", dims=dims) if dims else x


_cumulative("cumsum", 0.0, "Cumsum")
_cumulative("cumprod", 1.0, "Cumprod")
_cumulative("logcumsumexp", -float("inf"), "CumulativeLogsumexp")


# ---------------------------------------------------------------- softmax and cross entropy


@kernel("Softmax")
def _softmax(k: Kernel) -> Value:
    return k[0].add("softmax", dim=-1)


@kernel("LogSoftmax")
def _log_softmax(k: Kernel) -> Value:
    return k[0].add("log_softmax", dim=-1)


@kernel("SoftmaxCrossEntropyWithLogits")
def _cross_entropy(k: Kernel) -> tuple[Value, Value]:
    shape = (k.shape[0], max(k[0].shape[-1], k[1].shape[-1]))
    x, labels = k[0].expand(shape), k[1].expand(shape)
    shifted = x - reduce("amax", x, (-1,))
    total = apply("exp", shifted).sum((-1,))
    loss = (labels * (apply("log", total) - shifted)).sum((-1,))
    return loss, apply("exp", shifted) / total - labels


@kernel("SparseSoftmaxCrossEntropyWithLogits")
def _sparse_cross_entropy(k: Kernel) -> tuple[Value, Value]:
    x, index = k[0], k[1].cast(INT64).reshape(k[1].size, 1)
    shifted = x - reduce("amax", x, (-1,))
    total = apply("exp", shifted).sum((-1,))
    picked = shifted.add("gather", index, shape=index.shape, dim=-1)
    right = apply("eq", index, arange(x, x.shape[-1]))
    return apply("log", total) - picked, apply("exp", shifted) / total - where(right, 1.0, x.const(0.0))


# ---------------------------------------------------------------- order


@kernel("TopKV2", structural=(1,))
def _top_k(k: Kernel) -> tuple[Value, Value]:
    x, shape = k[0], k.shape
    values = x.add("topk_values", shape=shape, dim=-1, k=shape[-1], largest=True)
    return values, x.add("topk_indices", shape=shape, fmt=INT64, dim=-1, k=shape[-1], largest=True)


@kernel("NthElement", structural=(1,))
def _nth(k: Kernel) -> Value:
    x, n = k[0], k.integer(1)
    nth = x.shape[-1] - n if k.attr("reverse", False) else n + 1
    return x.add("kth", shape=(*x.shape[:-1], 1), dim=-1, k=nth)
