"""Products of matrices, convolutions, pools, distances, decompositions."""

from typing import Any

import numpy as np

from whynan.frontends.kit import Value, apply, axis, concat, matmul, reduce, transposed, where
from whynan.frontends.torch.lower._kernel import Kernel, kernel
from whynan.frontends.torch.lower.arithmetic import limited
from whynan.ir.dtype import BOOL, INT64


@kernel("mm", "bmm", "matmul")
def _mm(k: Kernel) -> Value:
    b = k.tensor("mat2") if not k.aten.name.startswith("matmul") else k["other"]
    return _product(k.tensor("self"), b)


def _product(a: Value, b: Value) -> Value:
    """A product of matrices or vectors as torch.matmul gives it, up to dimensions of size 1."""
    rows = a.reshape(1, *a.shape) if a.ndim == 1 else a
    columns = b.reshape(*b.shape, 1) if b.ndim == 1 else b
    return matmul(rows, columns)


@kernel("mv")
def _mv(k: Kernel) -> Value:
    return _product(k.tensor("self"), k.tensor("vec"))


@kernel("dot", "vdot")
def _dot(k: Kernel) -> Value:
    return _product(k.tensor("self"), k["tensor"] if k.aten.name.startswith("dot") else k["other"])


@kernel("outer", "ger")
def _outer(k: Kernel) -> Value:
    a, b = k.tensor("self"), k.tensor("vec2")
    return a.reshape(a.size, 1) * b


def _affine(k: Kernel, product: Value) -> Value:
    """beta * self + alpha * product; with beta = 0 the kernel does not read self."""
    product = (product if k["alpha"] == 1 else product * k["alpha"]).reshape(*k.shape)
    if k["beta"] == 0:
        return product
    return product + (k.tensor("self") if k["beta"] == 1 else k.tensor("self").up() * k["beta"])


@kernel("addmm")
def _addmm(k: Kernel) -> Value:
    return _affine(k, _product(k.tensor("mat1").up(), k.tensor("mat2").up()))


@kernel("baddbmm")
def _baddbmm(k: Kernel) -> Value:
    return _affine(k, _product(k.tensor("batch1").up(), k.tensor("batch2").up()))


@kernel("addbmm")
def _addbmm(k: Kernel) -> Value:
    return _affine(k, _product(k.tensor("batch1").up(), k.tensor("batch2").up()).sum((-3,)))


@kernel("addmv")
def _addmv(k: Kernel) -> Value:
    return _affine(k, _product(k.tensor("mat").up(), k.tensor("vec").up()))


@kernel("addr")
def _addr(k: Kernel) -> Value:
    a, b = k.tensor("vec1").up(), k.tensor("vec2").up()
    return _affine(k, a.reshape(a.size, 1) * b)


@kernel("linear")
def _linear(k: Kernel) -> Value:
    product = _product(k.tensor("input"), transposed(k["weight"]))
    return product if k["bias"] is None else product + k["bias"]


# ---------------------------------------------------------------- convolutions


def _convolution_attrs(k: Kernel, rank: int) -> dict[str, Any]:
    lists = {name: repeated(k[name], rank) for name in ("stride", "padding", "dilation", "output_padding")}
    return {**lists, "transposed": bool(k["transposed"]), "groups": int(k["groups"])}


def repeated(numbers: Any, rank: int) -> tuple[int, ...]:
    """One number per spatial axis from a number or a list of one or `rank` numbers."""
    listed = tuple(numbers) if isinstance(numbers, (tuple, list)) else (numbers,)
    return listed * rank if len(listed) == 1 else listed


@kernel("convolution", "_convolution", "convolution_overrideable")
def _convolution(k: Kernel) -> Value:
    x, w, bias = k.tensor("input"), k["weight"], k["bias"]
    y: Value = x.up().add("conv", w.up(), shape=k.shape, **_convolution_attrs(k, w.ndim - 2))
    return y if bias is None else y + bias.reshape(bias.size, *(1,) * (w.ndim - 2))


@kernel("convolution_backward")
def _convolution_backward(k: Kernel) -> tuple[Value | None, Value | None, Value | None]:
    g, x, w = k.tensor("grad_output"), k.tensor("input"), k["weight"]
    attrs = _convolution_attrs(k, w.ndim - 2)
    by_input, by_weight, by_bias = k["output_mask"]
    channel = -(w.ndim - 2) - 1
    return (
        g.add("conv_input_grad", x, w, shape=x.shape, **attrs) if by_input else None,
        g.add("conv_weight_grad", x, w, shape=w.shape, **attrs) if by_weight else None,
        g.sum(tuple(d for d in g.axes if d != channel)) if by_bias else None,
    )


# ---------------------------------------------------------------- attention


def _scores(k: Kernel) -> tuple[Value, float]:
    """The scaled and masked products of queries and keys, and the scale."""
    q, key = k.tensor("query").up(), k.tensor("key").up()
    scale = float(k["scale"]) if k["scale"] is not None else 1.0 / float(q.shape[-1]) ** 0.5
    scores = matmul(q, transposed(key)) * scale
    if k["is_causal"]:
        scores = where(q.const(np.tri(scores.shape[-2], scores.shape[-1]) == 1, BOOL), scores, -np.inf)
    mask = k["attn_mask"]
    return scores if mask is None else scores + mask.up(), scale


@kernel("_scaled_dot_product_flash_attention_for_cpu")
def _attention(k: Kernel) -> tuple[Value, Value]:
    scores, _ = _scores(k)
    weights, normaliser = scores.add("softmax", dim=-1), reduce("logsumexp", scores, (-1,))
    if k["attn_mask"] is not None:  # the kernel gives zeros for a row that is masked altogether
        masked = reduce("all", apply("eq", scores, -np.inf), (-1,))
        weights, normaliser = where(masked, 0, weights), where(masked, 0, normaliser)
    return matmul(weights, k.tensor("value").up()), normaliser


@kernel("_scaled_dot_product_flash_attention_for_cpu_backward")
def _attention_backward(k: Kernel) -> tuple[Value, Value, Value]:
    g, out, value = (k.tensor(name).up() for name in ("grad_out", "out", "value"))
    q, key, normaliser = k.tensor("query").up(), k.tensor("key").up(), k.tensor("logsumexp").up()
    scores, scale = _scores(k)
    weights = apply("exp", scores - normaliser.reshape(*normaliser.shape, 1))
    slope = weights * (matmul(g, transposed(value)) - (g * out).sum((-1,))) * scale
    return matmul(slope, key), matmul(transposed(slope), q), matmul(transposed(weights), g)


# ---------------------------------------------------------------- distances


@kernel("_cdist_forward")
def _cdist(k: Kernel) -> Value:
    x, y = k.tensor("x1"), k.tensor("x2")
    distance: Value = x.add("cdist", y, shape=k.shape, p=float(k["p"]))
    return distance


@kernel("_cdist_backward")
def _cdist_backward(k: Kernel) -> Value:
    g: Value = k.tensor("grad")
    return g.add("cdist_grad", k.tensor("x1"), k.tensor("x2"), k.tensor("cdist"), shape=k.shape, p=float(k["p"]))


@kernel("_euclidean_dist")
def _euclidean_dist(k: Kernel) -> Value:
    x, y = k.tensor("x1"), k.tensor("x2")
    x_norm, y_norm = (apply("square", v).sum((-1,)) for v in (x, y))
    ones = (v.const(np.ones((*v.shape[:-1], 1))) for v in (x, y))
    x_one, y_one = ones
    left = concat([x * -2.0, x_norm, x_one], -1)
    right = concat([y, y_one, y_norm], -1)
    return apply("sqrt", limited(matmul(left, transposed(right)), 0, None))


@kernel("_pdist_forward")
def _pdist(k: Kernel) -> Value:
    x = k.tensor("self")
    rows, columns = np.triu_indices(x.shape[0], 1)
    width = x.shape[1]
    parts = [x.add("index", x.const(i, INT64), shape=(len(rows), width), axes=(-2,)) for i in (rows, columns)]
    difference = parts[0] - parts[1]
    norm: Value = difference.add("norm", shape=(len(rows), 1), dims=(-1,), ord=float(k["p"]))
    return norm


# ---------------------------------------------------------------- decompositions


def _recorded(k: Kernel, i: int) -> Value:
    """Result i as the framework computed it: an error code, which is 0 or else the call has raised."""
    value = k.aten.results[i]
    assert value is not None, k.aten.name
    return k.const(value, k.out(i)[1])


@kernel("_linalg_det")
def _det(k: Kernel) -> tuple[Value, Value, Value]:
    x = k.tensor("A")
    return x.add("det", shape=k.shape), k.unknown(1, x), k.unknown(2, x)


@kernel("_linalg_slogdet")
def _slogdet(k: Kernel) -> tuple[Value, Value, Value, Value]:
    x = k.tensor("A")
    return apply("sign", x.add("det", shape=k.shape)), x.add("slogabsdet", shape=k.out(1)[0]), k.unknown(2, x), k.unknown(3, x)


@kernel("linalg_inv_ex")
def _inverse(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("A")
    return x.add("inverse"), _recorded(k, 1)


@kernel("linalg_cholesky_ex")
def _cholesky(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("self")
    factor = x.add("cholesky")
    return transposed(factor) if k["upper"] else factor, _recorded(k, 1)


@kernel("_linalg_solve_ex")
def _solve(k: Kernel) -> tuple[Value, Value, Value, Value]:
    a, b = k.tensor("A"), k.tensor("B")
    columns = b if b.ndim == a.ndim else b.reshape(*b.shape, 1)
    if not k["left"]:
        a, columns = transposed(a), transposed(columns)
    x = a.add("solve", columns, shape=columns.shape)
    return x if k["left"] else transposed(x), k.unknown(1, a), k.unknown(2, a), _recorded(k, 3)


@kernel("linalg_solve_triangular")
def _solve_triangular(k: Kernel) -> Value:
    a, b = k.tensor("self"), k.tensor("B")
    if k["unitriangular"]:
        return k.unknown(0, a, b)
    lower = np.tri(a.shape[-1]) == 1
    a = where(a.const(lower.T if k["upper"] else lower, BOOL), a, 0)
    if k["left"]:
        return a.add("solve", b, shape=k.shape)
    b = transposed(b)
    return transposed(transposed(a).add("solve", b, shape=b.shape))


@kernel("_linalg_eigh")
def _eigh(k: Kernel) -> tuple[Value, Value]:
    x = k.tensor("A")
    return x.add("eigvalsh", shape=k.shape), k.unknown(1, x)


@kernel("_linalg_svd")
def _svd(k: Kernel) -> tuple[Value, Value, Value]:
    x = k.tensor("A")
    return k.unknown(0, x), x.add("svdvals", shape=k.out(1)[0]), k.unknown(2, x)


@kernel("linalg_cross")
def _cross(k: Kernel) -> Value:
    """Element i is a[i+1] * b[i+2] - a[i+2] * b[i+1], indices modulo 3."""
    a, b = k.tensor("self").cast(k.format).expand(k.shape), k["other"].cast(k.format).expand(k.shape)
    dims = (axis(k["dim"], a.ndim),)

    def after(x: Value, steps: int) -> Value:
        return x.add("roll", shifts=(-steps,), dims=dims)

    return after(a, 1) * after(b, 2) - after(a, 2) * after(b, 1)
