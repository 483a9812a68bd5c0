"""Reductions, windows, sorting: what they combine elements with is read from the computation that they call."""

import re
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from whynan.frontends.hlo.lower._table import NotLowered, Op, Operand, format_of, known, lowers, negative
from whynan.frontends.hlo.lower.contraction import has_product
from whynan.frontends.hlo.lower.shape import padded
from whynan.frontends.hlo.parse import Computation, Instruction, Type
from whynan.frontends.kit import Value, apply, reduce
from whynan.ir.dtype import BOOL, INT64, Format

_REDUCERS = {"add": "sum", "multiply": "prod", "maximum": "amax", "minimum": "amin", "and": "all", "or": "any"}
_PAIRWISE = {"sum": "add", "prod": "mul", "amax": "maximum", "amin": "minimum", "all": "logical_and", "any": "logical_or"}
_RUNNING = {"sum": "cumsum", "prod": "cumprod", "amax": "cummax", "amin": "cummin"}
_NEUTRAL = {"sum": 0.0, "prod": 1.0, "amax": -np.inf, "amin": np.inf, "all": 1.0, "any": 0.0}
_SEE_THROUGH = ("convert", "copy", "bitcast", "reduce-precision")

# ---------------------------------------------------------------- what a called computation does


@dataclass(frozen=True, slots=True)
class Step:
    """What one step of a reduction does: the reduction as the graph's op, and the narrower format that each step rounds to, if any."""

    op: str
    narrow: Format | None = None


def step_of(computation: Computation) -> Step:
    """The reduction whose step the computation is. NotLowered for any that the graph has no op for."""
    by_name = {i.name: i for i in computation.instructions}
    step = _shown(by_name, computation.root)
    read = {_shown(by_name, by_name[name]).literal for name in step.operands}
    if len(computation.parameters) != 2 or step.opcode not in _REDUCERS or read != {"0", "1"}:
        raise NotLowered(f"a reduction by {computation.name}")
    if step.opcode in ("and", "or") and "pred" not in str(step.type):
        raise NotLowered("a reduction of bits")
    kinds = [i.type.element for i in computation.instructions if isinstance(i.type, Type) and i.opcode in _SEE_THROUGH]
    return Step(_REDUCERS[step.opcode], next((format_of(k) for k in kinds if k in ("bf16", "f16")), None))


def _shown(by_name: dict[str, Instruction], instruction: Instruction) -> Instruction:
    """What an instruction shows where it only converts."""
    while instruction.opcode in _SEE_THROUGH:
        instruction = by_name[instruction.operands[0]]
    return instruction


def _kind(op: Op, x: Value) -> Step:
    step = step_of(op.called())
    return Step(_OF_BOOLS.get(step.op, step.op)) if x.format is BOOL else step


_OF_BOOLS = {"sum": "any", "prod": "all", "amax": "any", "amin": "all"}


def _narrowed(x: Value, step: Step) -> Value:
    """The terms in the format that each step rounds to."""
    if step.narrow is None or step.op in ("amax", "amin"):
        return x
    if step.op != "sum" and not _fits(x, step.narrow):
        raise NotLowered("a reduction whose steps round")
    return x.cast(step.narrow)


def _fits(x: Value, fmt: Format) -> bool:
    """Whether a value was widened from the format."""
    node = x.builder.nodes[x.id]
    while node.op in ("reshape", "expand", "permute", "slice", "flip"):
        node = x.builder.nodes[node.inputs[0]]
    return node.op == "cast" and x.builder.format(node.inputs[0]).name == fmt.name


def combined(step: Step, total: Value, start: Value) -> Value:
    """The reduction's result with its initial value, which most often changes nothing."""
    value, neutral, total = known(start), _NEUTRAL[step.op], total.cast(start.format)
    if value is not None and (value == neutral).all():
        return total
    if value is not None and value.dtype.kind in "iu" and step.op in ("amax", "amin"):
        limits = np.iinfo(value.dtype)
        if (value == (limits.min if step.op == "amax" else limits.max)).all():
            return total
    if step.narrow is not None:
        raise NotLowered("a reduction whose steps round, with an initial value")
    return apply(_PAIRWISE[step.op], start, total)


def _reduced(op: Op, step: Step, x: Value, dims: tuple[int, ...]) -> Value:
    """The reduction along negative axes, which stay with size 1; a sum may round in an order of the kernel's own."""
    contracted = has_product(op.kernel, x) or (step.narrow is not None and not _fits(x, step.narrow))
    x = _narrowed(x, step)
    if prod(x.shape[d] for d in dims) == 1:
        return x
    attrs: dict[str, Any] = {}
    if step.op == "sum" and x.format.is_float:
        attrs = {"kernel": op.kernel.number} | ({"contracted": True} if contracted else {})
    if step.op in ("amax", "amin"):
        attrs = _of_extremes(op)
    return reduce(step.op, x, dims, fmt=BOOL if step.op in ("all", "any") else x.format, **attrs)


def _of_extremes(op: Op) -> dict[str, Any]:
    """The XLA inside TensorFlow reduces to an extreme by an instruction that drops NaN, the one inside JAX does not."""
    return {"nan": "ignored"} if op.module.typed else {}


# ---------------------------------------------------------------- reductions


@lowers("reduce")
def _reduce(op: Op) -> Operand:
    if isinstance(op.instruction.type, tuple):
        return _of_pairs(op)
    x, start = op[0], op[1]
    step = _kind(op, x)
    dims = negative(op.dims(), x.ndim)
    if 0 in x.shape:
        return start.expand(op.shape)
    return combined(step, _reduced(op, step, x, dims).reshape(*op.shape), start)


def _of_pairs(op: Op) -> Operand:
    """The largest or smallest of one array, and of a second array what stands beside it."""
    if len(op.operands) != 4 or len(op.dims()) != 1:
        raise NotLowered("a reduction of several arrays")
    largest = _direction(op.called())
    values, places = op[0], op[1]
    dims = negative(op.dims(), values.ndim)
    shape = tuple(n for d, n in enumerate(values.shape) if d not in op.dims())
    best = reduce("amax" if largest else "amin", values, dims, **_of_extremes(op))
    where_ = reduce("argmax" if largest else "argmin", values, dims, fmt=places.format)
    if not _counts(places, dims[0]):
        where_ = places.add("gather", where_, shape=where_.shape, dim=dims[0])
    return best.reshape(*shape), where_.reshape(*shape)


def _direction(computation: Computation) -> bool:
    """Whether a step on (value, place, value, place) keeps the larger value."""
    by_name = {i.name: i for i in computation.instructions}
    found = set[bool]()
    for i in computation.instructions:
        if i.opcode != "compare" or i.attributes.get("direction") not in ("GT", "GE", "LT", "LE"):
            continue
        read = [_shown(by_name, by_name[name]).literal for name in i.operands]
        if sorted(read) == ["0", "2"]:
            found.add((i.attributes["direction"][0] == "G") == (read == ["0", "2"]))
    if len(found) != 1 or len(computation.parameters) != 4:
        raise NotLowered(f"a reduction by {computation.name}")
    return found.pop()


def _counts(places: Value, axis: int) -> bool:
    """Whether the places are 0, 1, 2, … along the axis."""
    array = known(places)
    n = places.shape[axis]
    return array is not None and bool((array == np.arange(n).reshape([-1 if a == axis else 1 for a in places.axes])).all())


# ---------------------------------------------------------------- windows


def window(op: Op, rank: int) -> dict[str, list[list[int]]]:
    """The fields of a window attribute, per dimension: size, stride, pad (low, high), lhs_dilate, rhs_dilate, rhs_reversal."""
    usual = {"size": [1], "stride": [1], "pad": [0, 0], "lhs_dilate": [1], "rhs_dilate": [1], "rhs_reversal": [0]}
    fields = dict(re.findall(r"(\w+)=([\-\w]+)", op.attr("window")))
    return {
        name: [[int(n) for n in part.split("_")] for part in fields[name].split("x")] if name in fields else [default] * rank
        for name, default in usual.items()
    }


@lowers("reduce-window")
def _reduce_window(op: Op) -> Value:
    if isinstance(op.instruction.type, tuple):
        raise NotLowered("windows of several arrays")
    x, start = op[0], op[1]
    step, form = _kind(op, x), window(op, x.ndim)
    running = _running(op, step, x, form)
    if running is not None:
        return combined(step, running, start)
    if (step.op in ("amax", "amin") and not x.format.is_float) or 0 in op.shape:
        raise NotLowered("windows of integers")
    x = padded(x, [[low, high, d[0] - 1] for (low, high), d in zip(form["pad"], form["lhs_dilate"], strict=True)], _NEUTRAL[step.op])
    axes = 0
    for d in range(x.ndim - 1, -1, -1):
        size, stride, apart = form["size"][d][0], form["stride"][d][0], form["rhs_dilate"][d][0]
        if size > 1 or stride > 1:
            x, axes = _windows(x, d - x.ndim, size, stride, apart, op.shape[d]), axes + 1
    dims = tuple(range(-axes, 0))
    return combined(step, _reduced(op, step, x, dims).reshape(*op.shape), start)


def _windows(x: Value, axis: int, size: int, step: int, apart: int, count: int) -> Value:
    """The windows along a negative axis, in a new last axis."""
    n = x.shape[axis]
    at = x.ndim + axis
    if apart == 1 and size == step and n == size * count:
        parts = x.reshape(*x.shape[:at], count, size, *x.shape[at + 1 :])
        order = [d for d in range(parts.ndim) if d != at + 1] + [at + 1]
        return parts.add("permute", shape=[parts.shape[d] for d in order], axes=negative(order, parts.ndim))
    reach = (size - 1) * apart + 1
    shape = (*x.shape[:at], count, *x.shape[at + 1 :], reach)
    wide = x.add("unfold", shape=shape, dim=axis, size=reach, step=step)
    return wide if apart == 1 else wide.add("slice", shape=(*shape[:-1], size), dim=-1, start=0, step=apart)


def _running(op: Op, step: Step, x: Value, form: dict[str, list[list[int]]]) -> Value | None:
    """A window over all elements so far (or from here on) is a running reduction."""
    wide = [d for d in range(x.ndim) if form["size"][d][0] != 1]
    if len(wide) != 1 or step.op not in _RUNNING or op.shape != x.shape:
        return None
    (d,) = wide
    n = x.shape[d]
    plain = form["stride"][d] == [1] and form["lhs_dilate"][d] == [1] and form["rhs_dilate"][d] == [1]
    if not plain or form["size"][d][0] != n or form["pad"][d] not in ([n - 1, 0], [0, n - 1]):
        return None
    if step.narrow is not None and not _fits(x, step.narrow):
        return None
    attrs: dict[str, Any] = {"kernel": op.kernel.number} if step.op == "sum" and x.format.is_float else {}
    if attrs and has_product(op.kernel, x):
        attrs["contracted"] = True
    x = _narrowed(x, step)
    axis, backwards = d - x.ndim, form["pad"][d] == [0, n - 1] and n > 1
    turned = x.add("flip", dims=(axis,)) if backwards else x
    total = turned.add(_RUNNING[step.op], dim=axis, **attrs)
    return total.add("flip", dims=(axis,)) if backwards else total


# ---------------------------------------------------------------- order


@lowers("sort")
def _sort(op: Op) -> Operand:
    """Sorted by the first operand; the others follow it."""
    values = op.values()
    keys, axis = values[0], op.dims()[0] - values[0].ndim
    descending = _descending(op.called())
    ordered = keys.add("sort_values", dim=axis, descending=descending)
    if len(values) == 1:
        return ordered
    order = keys.add("sort_indices", fmt=_index_format(values), dim=axis, descending=descending)
    others = [order if _counts(v, axis) else v.add("gather", order, dim=axis) for v in values[1:]]
    return (ordered, *others)


def _index_format(values: list[Value]) -> Format:
    """That of the positions that are sorted along, if any are."""
    return next((v.format for v in values[1:] if v.format.kind == "int"), INT64)


def _descending(computation: Computation) -> bool:
    """The order that a comparator of two elements says; NotLowered if it looks at more than the first key."""
    by_name = {i.name: i for i in computation.instructions}
    root = computation.root
    if root.opcode != "compare" or root.attributes.get("direction") not in ("LT", "GT"):
        raise NotLowered(f"a sort by {computation.name}")
    reads = [_parameters(by_name, by_name[name]) for name in root.operands]
    if reads not in ([{"0"}, {"1"}], [{"1"}, {"0"}]):
        raise NotLowered(f"a sort by {computation.name}")
    return (root.attributes["direction"] == "GT") == (reads == [{"0"}, {"1"}])


def _parameters(by_name: dict[str, Instruction], instruction: Instruction) -> set[str]:
    """The parameters that an instruction is computed from."""
    if instruction.opcode == "parameter":
        return {instruction.literal}
    return set[str]().union(*(_parameters(by_name, by_name[name]) for name in instruction.operands))
