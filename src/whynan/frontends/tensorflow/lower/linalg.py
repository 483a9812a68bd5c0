"""Products of matrices, sums over named axes, decompositions."""

from collections.abc import Sequence

import numpy as np

from whynan.frontends.kit import Value, apply, matmul, transposed, where
from whynan.frontends.tensorflow.lower._kernel import Kernel, NotLowered, kernel
from whynan.frontends.tensorflow.lower.shape import permuted
from whynan.ir.dtype import BOOL


@kernel("MatMul")
def _matmul(k: Kernel) -> Value:
    return product(k, "transpose_a", "transpose_b")


@kernel("BatchMatMul", "BatchMatMulV2", "BatchMatMulV3")
def _batch_matmul(k: Kernel) -> Value:
    return product(k, "adj_x", "adj_y")


def product(k: Kernel, first: str, second: str) -> Value:
    """The product of the first two inputs; attributes of these names say which of them are transposed."""
    a = transposed(k[0]) if k.attr(first, False) else k[0]
    b = transposed(k[1]) if k.attr(second, False) else k[1]
    return matmul(a, b)


@kernel("BiasAdd")
def _bias_add(k: Kernel) -> Value:
    return k[0] + along_channels(k, k[1], k[0].ndim)


@kernel("BiasAddV1")
def _bias_add_old(k: Kernel) -> Value:
    return k[0] + k[1]


def channels_first(k: Kernel) -> bool:
    """Whether the channels are the second axis (data format NCHW), not the last."""
    return str(k.attr("data_format", "NHWC")).startswith("NC")


def along_channels(k: Kernel, numbers: Value, ndim: int) -> Value:
    """One number per channel laid out against a tensor of so many dimensions."""
    return numbers.reshape(numbers.size, *(1,) * (ndim - 2)) if channels_first(k) else numbers


@kernel("BiasAddGrad")
def _bias_add_grad(k: Kernel) -> Value:
    g = k[0]
    channel = 1 - g.ndim if channels_first(k) else -1
    return g.sum(tuple(a for a in g.axes if a != channel))


# ---------------------------------------------------------------- einsum


@kernel("Einsum")
def _einsum(k: Kernel) -> Value:
    """In float16 the CPU kernel gives wrong numbers for an ellipsis (TensorFlow 2.21), so that form has no lowering."""
    if "..." in str(k.attr("equation")) and k.format.name == "float16":
        raise NotLowered(k.op.type)
    left, _, out = str(k.attr("equation")).replace(" ", "").partition("->")
    named = [_named(labels, v.ndim) for labels, v in zip(left.split(","), k.inputs, strict=True)]
    goal = _named(out, len(k.shape))
    if any(len(set(labels)) < len(labels) for labels in (*named, goal)):
        raise NotLowered(k.op.type)
    values = [_kept(v, labels, goal, named) for v, labels in zip(k.inputs, named, strict=True)]
    if len(values) == 1:
        return permuted(values[0][0], [values[0][1].index(c) - len(goal) for c in goal])
    return _contracted(values[0], values[1], goal)


def _named(labels: str, ndim: int) -> list[str]:
    """One label per axis; those of an ellipsis are counted from its end: "...ab" is ".2", ".1", "a", "b"."""
    head, dots, tail = labels.partition("...")
    return [*head, *[f".{i}" for i in range(ndim - len(head) - len(tail), 0, -1)], *tail] if dots else list(labels)


Labelled = tuple[Value, list[str]]


def _kept(v: Value, labels: list[str], goal: list[str], all_labels: Sequence[list[str]]) -> Labelled:
    """The value summed over axes that stand nowhere else."""
    alone = [i for i, c in enumerate(labels) if c not in goal and sum(c in other for other in all_labels) == 1]
    if not alone:
        return v, labels
    summed = v.sum(tuple(i - v.ndim for i in alone))
    return summed.reshape(*(n for i, n in enumerate(v.shape) if i not in alone)), [c for i, c in enumerate(labels) if i not in alone]


def _contracted(first: Labelled, second: Labelled, goal: list[str]) -> Value:
    """The product of two labelled values as one product of matrices."""
    (a, of_a), (b, of_b) = first, second
    sizes = dict(zip(of_b, b.shape, strict=True)) | {c: n for c, n in zip(of_a, a.shape, strict=True) if n != 1 or c not in of_b}
    both = [c for c in of_a if c in of_b]
    batch, inner = [c for c in both if c in goal], [c for c in both if c not in goal]
    rows, columns = [c for c in of_a if c not in of_b], [c for c in of_b if c not in of_a]

    def matrix(v: Value, labels: list[str], before: list[str], after: list[str]) -> Value:
        moved = permuted(v, [labels.index(c) - v.ndim for c in (*batch, *before, *after)])
        lengths = [moved.shape[: len(batch)], [sizes[c] for c in before], [sizes[c] for c in after]]
        return moved.reshape(*lengths[0], int(np.prod(lengths[1])), int(np.prod(lengths[2])))

    result = matmul(matrix(a, of_a, rows, inner), matrix(b, of_b, inner, columns))
    order = [*batch, *rows, *columns]
    result = result.reshape(*result.shape[: len(batch)], *(sizes[c] for c in (*rows, *columns)))
    return permuted(result, [order.index(c) - len(order) for c in goal])


@kernel("Cross")
def _cross(k: Kernel) -> Value:
    """Element i is a[i+1] * b[i+2] - a[i+2] * b[i+1], indices modulo 3."""

    def after(x: Value, steps: int) -> Value:
        return x.add("roll", shifts=(-steps,), dims=(-1,))

    a, b = k[0], k[1]
    return after(a, 1) * after(b, 2) - after(a, 2) * after(b, 1)


# ---------------------------------------------------------------- decompositions


@kernel("MatrixInverse")
def _inverse(k: Kernel) -> Value:
    return (transposed(k[0]) if k.attr("adjoint", False) else k[0]).add("inverse")


@kernel("MatrixDeterminant")
def _determinant(k: Kernel) -> Value:
    return k[0].add("det", shape=k.shape)


@kernel("LogMatrixDeterminant")
def _log_determinant(k: Kernel) -> tuple[Value, Value]:
    return apply("sign", k[0].add("det", shape=k.shape)), k[0].add("slogabsdet", shape=k.shape)


@kernel("Cholesky")
def _cholesky(k: Kernel) -> Value:
    return k[0].add("cholesky")


@kernel("MatrixSolve")
def _solve(k: Kernel) -> Value:
    return (transposed(k[0]) if k.attr("adjoint", False) else k[0]).add("solve", k[1], shape=k.shape)


@kernel("MatrixTriangularSolve")
def _triangular_solve(k: Kernel) -> Value:
    """Only one triangle of the matrix is read."""
    a, lower = k[0], np.tri(k[0].shape[-1]) == 1
    a = where(a.const(lower if k.attr("lower", True) else lower.T, BOOL), a, 0)
    return (transposed(a) if k.attr("adjoint", False) else a).add("solve", k[1], shape=k.shape)


@kernel("SelfAdjointEigV2")
def _eigenvalues(k: Kernel) -> tuple[Value | None, ...]:
    _, *rest = k.unknown()
    return (k[0].add("eigvalsh", shape=k.shape), *rest)


@kernel("Svd")
def _singular_values(k: Kernel) -> tuple[Value | None, ...]:
    _, *rest = k.unknown()
    return (k[0].add("svdvals", shape=k.shape), *rest)
