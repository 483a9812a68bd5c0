"""Products of matrices, convolutions, and the library calls for decompositions."""

import re
from math import prod

import numpy as np

from whynan.frontends.hlo.lower._table import CUSTOM_CALLS, NotLowered, Op, Operand, format_of, leaves, lowers, unknown
from whynan.frontends.hlo.lower.reduction import window
from whynan.frontends.hlo.lower.shape import padded, transposed
from whynan.frontends.kit import Value, apply, matmul, reduce, where
from whynan.frontends.kit import transposed as transposed_matrix
from whynan.ir.dtype import BOOL, INT32

# ---------------------------------------------------------------- dot


@lowers("dot")
def _dot(op: Op) -> Value:
    """batch, rows, inner times batch, inner, columns."""
    a, b = op[0], op[1]
    batch = op.dims("lhs_batch_dims"), op.dims("rhs_batch_dims")
    inner = op.dims("lhs_contracting_dims"), op.dims("rhs_contracting_dims")
    free = [[d for d in range(v.ndim) if d not in batch[k] and d not in inner[k]] for k, v in enumerate((a, b))]
    left = transposed(a, [*batch[0], *free[0], *inner[0]])
    right = transposed(b, [*batch[1], *inner[1], *free[1]])
    lead = tuple(a.shape[d] for d in batch[0])
    rows, columns = (prod(v.shape[d] for d in f) for v, f in zip((a, b), free, strict=True))
    depth = prod(a.shape[d] for d in inner[0])
    result = matmul(left.reshape(*lead, rows, depth), right.reshape(*lead, depth, columns))
    return result.reshape(*op.shape).cast(op.format)


# ---------------------------------------------------------------- convolution


@lowers("convolution")
def _convolution(op: Op) -> Value:
    """Brought to batch, channels, space; padding and gaps between elements are written out."""
    x, w = op[0], op[1]
    labels = op.attr("dim_labels")
    if int(op.attr("batch_group_count", "1")) != 1 or "_" not in labels:
        raise NotLowered("a convolution with groups of the batch")
    (left, rest), result = labels.split("_"), labels.split("->")[1]
    right = rest.split("->")[0]
    space = [str(d) for d in range(len(left) - 2)]
    x = transposed(x, [left.index(c) for c in ("b", "f", *space)])
    w = transposed(w, [right.index(c) for c in ("o", "i", *space)])
    form = window(op, len(space))
    x = padded(x, [[0, 0, 0]] * 2 + [[lo, hi, d[0] - 1] for (lo, hi), d in zip(form["pad"], form["lhs_dilate"], strict=True)], 0.0)
    turned = tuple(d - len(space) for d, (turn,) in enumerate(form["rhs_reversal"]) if turn and w.shape[2 + d] > 1)
    w = w.add("flip", dims=turned) if turned else w
    order = [result.index(c) for c in ("b", "f", *space)]
    y = x.add(
        "conv",
        w,
        shape=[op.shape[d] for d in order],
        stride=tuple(s[0] for s in form["stride"]),
        padding=(0,) * len(space),
        dilation=tuple(s[0] for s in form["rhs_dilate"]),
        groups=int(op.attr("feature_group_count", "1")),
    )
    return transposed(y, [order.index(d) for d in range(len(order))]).cast(op.format)


# ---------------------------------------------------------------- library calls


@lowers("custom-call")
def _custom_call(op: Op) -> Operand:
    target = op.attr("custom_call_target").strip('"')
    lowering = CUSTOM_CALLS.get(target)
    try:
        return lowering(op) if lowering else unknown(op, target)
    except NotLowered:
        return unknown(op, target)


@lowers("cholesky")
def _cholesky(op: Op) -> Value:
    if op.attr("lower") != "true":
        raise NotLowered("the upper factor")
    return op[0].add("cholesky")


def _letter(op: Op, name: str) -> str:
    """One of LAPACK's options, which the text gives as the code of a letter: "uplo = 76 : ui8" is "L"."""
    found = re.search(rf"\b{name} = (\d+)", op.attr("backend_config"))
    return chr(int(found.group(1))) if found else ""


@lowers("lapack_spotrf_ffi", "lapack_dpotrf_ffi", table=CUSTOM_CALLS)
def _potrf(op: Op) -> Operand:
    """The factor, and the number of the first leading minor that is not positive (0: none)."""
    if _letter(op, "uplo") != "L":
        raise NotLowered("the upper factor")
    kinds = list(leaves(op.instruction.type))
    factor = op[0].add("cholesky")
    failed = reduce("any", apply("isnan", factor), (-2, -1)).reshape(*kinds[1].dims)
    return factor, failed.cast(INT32) * op[0].shape[-1]  # the last one, for which one it is nobody asks


@lowers("lapack_strsm_ffi", "lapack_dtrsm_ffi", table=CUSTOM_CALLS)
def _trsm(op: Op) -> Value:
    return _triangular(
        op, _letter(op, "side") == "L", _letter(op, "uplo") == "L", _letter(op, "trans_x") != "N", _letter(op, "diag") == "U"
    )


@lowers("triangular-solve")
def _triangular_solve(op: Op) -> Value:
    left, lower, unit = (op.attr(name) == "true" for name in ("left_side", "lower", "unit_diagonal"))
    return _triangular(op, left, lower, op.attr("transpose_a") in ("TRANSPOSE", "ADJOINT"), unit)


def _triangular(op: Op, left: bool, lower: bool, transpose: bool, unit: bool) -> Value:
    """The solution of a system whose matrix is a triangle of operand 0; the rest of it is not read."""
    a, b = op[0], op[1]
    n = a.shape[-1]
    a = where(a.const(np.tri(n, dtype=bool) if lower else np.tri(n, dtype=bool).T, BOOL), a, 0)
    a = where(a.const(np.eye(n, dtype=bool), BOOL), 1, a) if unit else a
    if left:
        return (transposed_matrix(a) if transpose else a).add("solve", b, shape=b.shape)
    right = transposed_matrix(b)
    return transposed_matrix((a if transpose else transposed_matrix(a)).add("solve", right, shape=right.shape))


@lowers("topk")
def _topk(op: Op) -> Operand:
    return _largest(op, op.attr("largest", "true") == "true")


@lowers("TopK", table=CUSTOM_CALLS)
def _topk_call(op: Op) -> Operand:
    return _largest(op, True)


def _largest(op: Op, largest: bool) -> Operand:
    x, kinds = op[0], list(leaves(op.instruction.type))
    k = kinds[0].dims[-1]
    values = x.add("topk_values", shape=kinds[0].dims, dim=-1, k=k, largest=largest)
    places = format_of(kinds[1].element)
    assert places is not None
    return values, x.add("topk_indices", shape=kinds[1].dims, fmt=places, dim=-1, k=k, largest=largest)


@lowers("__onednn$matmul", table=CUSTOM_CALLS)
def _onednn_matmul(op: Op) -> Value:
    config = op.attr("backend_config").replace(" ", "")
    if ("fused_ops" in config and '"fused_ops":[]' not in config) or len(op.operands) != 2:
        raise NotLowered("a matrix product with more behind it")
    if '"transpose_a":true' in config or '"transpose_b":true' in config:
        raise NotLowered("a transposed matrix product")
    return matmul(op[0], op[1]).reshape(*op.shape).cast(op.format)
