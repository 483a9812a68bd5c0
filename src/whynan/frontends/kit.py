"""A small notation for writing lowerings: values that append nodes to a graph as one computes with them. No framework in it."""

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from whynan.ir.dtype import BOOL, FLOAT32, INT16, INT64, Array, Format, nearest
from whynan.ir.graph import Builder, Shape

Number = float | int | bool
PREDICATES = frozenset(
    [
        "eq",
        "ne",
        "lt",
        "le",
        "gt",
        "ge",
        "logical_and",
        "logical_or",
        "logical_xor",
        "logical_not",
        "isnan",
        "isinf",
        "isfinite",
        "signbit",
        "any",
        "all",
    ]
)


@dataclass(frozen=True, slots=True, eq=False)
class Value:
    """A node while a lowering is written; arithmetic on it appends nodes. Python numbers are rounded to the other operand's format."""

    builder: Builder
    id: int

    @property
    def shape(self) -> Shape:
        """The node's shape."""
        return self.builder.shape(self.id)

    @property
    def format(self) -> Format:
        """The node's format."""
        return self.builder.format(self.id)

    @property
    def ndim(self) -> int:
        """The number of dimensions."""
        return len(self.shape)

    @property
    def size(self) -> int:
        """The number of elements."""
        return prod(self.shape)

    @property
    def axes(self) -> tuple[int, ...]:
        """All axes, as negative numbers."""
        return tuple(range(-self.ndim, 0))

    def __add__(self, other: "Value | Number") -> "Value":
        return apply("add", self, other)

    def __radd__(self, other: Number) -> "Value":
        return apply("add", other, self)

    def __sub__(self, other: "Value | Number") -> "Value":
        return apply("sub", self, other)

    def __rsub__(self, other: Number) -> "Value":
        return apply("sub", other, self)

    def __mul__(self, other: "Value | Number") -> "Value":
        return product(self, other)

    def __rmul__(self, other: Number) -> "Value":
        return apply("mul", other, self)

    def __truediv__(self, other: "Value | Number") -> "Value":
        return apply("div", self, other)

    def __rtruediv__(self, other: Number) -> "Value":
        return apply("div", other, self)

    def __neg__(self) -> "Value":
        return apply("neg", self)

    def __lt__(self, other: "Value | Number") -> "Value":
        return apply("lt", self, other)

    def __le__(self, other: "Value | Number") -> "Value":
        return apply("le", self, other)

    def __gt__(self, other: "Value | Number") -> "Value":
        return apply("gt", self, other)

    def __ge__(self, other: "Value | Number") -> "Value":
        return apply("ge", self, other)

    def __and__(self, other: "Value") -> "Value":
        return apply("logical_and", self, other)

    def __or__(self, other: "Value") -> "Value":
        return apply("logical_or", self, other)

    def __invert__(self) -> "Value":
        return apply("logical_not", self)

    def add(self, op: str, *others: "Value", shape: Iterable[int] | None = None, fmt: Format | None = None, **attrs: Any) -> "Value":
        """Append a node with this value as first input; shape and format are this value's unless given."""
        ids = (self.id, *(v.id for v in others))
        size = self.shape if shape is None else tuple(shape)
        return Value(self.builder, self.builder.add(op, ids, size, fmt or self.format, **attrs))

    def const(self, number: Number | Array, fmt: Format | None = None) -> "Value":
        """A constant beside this value, rounded to its format (or the one given)."""
        return constant(self.builder, number, fmt or self.format)

    def cast(self, fmt: Format) -> "Value":
        """The value in another format; itself if it has that one."""
        if fmt.name == self.format.name:
            return self
        node = self.builder.nodes[self.id]
        if node.op == "const" and node.attrs["value"].size == 1 and not node.shape:
            return constant(self.builder, node.attrs.get("written", node.attrs["value"].item()), fmt)
        return self.add("cast", fmt=fmt)

    def up(self) -> "Value":
        """The value in the format in which kernels compute: float32 for the half formats."""
        return self.cast(opmath(self.format))

    def reshape(self, *shape: int) -> "Value":
        """The same elements in another shape; a reshape of a reshape is one reshape, one that changes nothing is none."""
        return Value(self.builder, reshape(self.builder, self.id, shape))

    def expand(self, shape: Iterable[int]) -> "Value":
        """The value broadcast to a shape; itself if it has that shape."""
        size = tuple(shape)
        return self if size == self.shape else self.add("expand", shape=size)

    def sum(self, dims: Iterable[int] | None = None) -> "Value":
        """The sum along negative axes (all of them if not given), which stay with size 1."""
        return reduce("sum", self, self.axes if dims is None else dims)


def negative(dims: Any, ndim: int) -> tuple[int, ...]:
    """An axis or list of axes as negative numbers; None and an empty list mean all axes."""
    if dims is None or (isinstance(dims, (tuple, list)) and not dims):
        return tuple(range(-ndim, 0))
    if ndim == 0:
        return ()
    listed = dims if isinstance(dims, (tuple, list)) else (dims,)
    return tuple(int(d) if d < 0 else int(d) - ndim for d in listed)


def axis(dim: int, ndim: int) -> int:
    """One axis as a negative number (-1 for a value without dimensions)."""
    return dim if dim < 0 else dim - max(ndim, 1)


# ---------------------------------------------------------------- formats


def opmath(fmt: Format) -> Format:
    """The format in which CPU kernels compute on values of a format."""
    return FLOAT32 if fmt.name in ("float16", "bfloat16") else fmt


def is_half(fmt: Format) -> bool:
    """Whether it is one of the 16-bit float formats."""
    return fmt.name in ("float16", "bfloat16")


_KINDS = ("bool", "int", "float")


def promoted(*operands: Value | Number) -> Format:
    """The format in which operands are combined: the higher kind wins; within a kind, values with dimensions win over those without.

    A Python number only decides the kind. This is PyTorch's rule; the other frameworks combine operands of one format only.
    """
    formats = [(v.format, 2 if v.ndim else 1) if isinstance(v, Value) else (_of_number(v), 0) for v in operands]
    kind = max((f.kind for f, _ in formats), key=_KINDS.index)
    rank = max(r for f, r in formats if f.kind == kind)
    return reduce_formats([f for f, r in formats if f.kind == kind and r == rank])


def _of_number(number: Number) -> Format:
    return BOOL if isinstance(number, bool) else INT64 if isinstance(number, int) else FLOAT32


def reduce_formats(formats: Sequence[Format]) -> Format:
    """The smallest format of one kind that holds the values of all of them."""
    widest = max(formats, key=lambda f: f.max)
    if {f.name for f in formats} >= {"float16", "bfloat16"} and widest.max <= FLOAT32.max:
        return FLOAT32
    if "uint8" in {f.name for f in formats} and widest.name == "uint8" and len({f.name for f in formats}) > 1:
        return INT16
    return widest


# ---------------------------------------------------------------- nodes


def constant(builder: Builder, number: Number | Array, fmt: Format) -> Value:
    """A constant of the format; a Python number is rounded to it, as the framework rounds it, and has no dimensions."""
    with np.errstate(all="ignore"):
        value = np.asarray(number).astype(fmt.numpy)
    changed = isinstance(number, float) and float(value) != number
    return Value(builder, builder.const(value, fmt, **({"written": number} if changed else {})))


def representable(number: Number, fmt: Format) -> bool:
    """Whether a Python number is a value of the format, as far as the format in which kernels compute can tell."""
    value = float(nearest(opmath(fmt), number))
    return bool(np.isnan(value)) or float(nearest(fmt, value)) == value


def apply(op: str, *operands: Value | Number, **attrs: Any) -> Value:
    """An elementwise op. Values are cast to the common format, numbers are rounded to it; predicates give bool."""
    values = [v for v in operands if isinstance(v, Value)]
    fmt = values[0].format if len({v.format.name for v in values}) == 1 else promoted(*values)
    ready = [v.cast(fmt) if isinstance(v, Value) else constant(values[0].builder, v, fmt) for v in operands]
    shape = np.broadcast_shapes(*(v.shape for v in ready))
    return ready[0].add(op, *ready[1:], shape=shape, fmt=BOOL if op in PREDICATES else fmt, **attrs)


def product(a: Value, b: Value | Number) -> Value:
    """a * b; a value times itself is a square, which an analysis bounds better."""
    if isinstance(b, Value) and a.format.name == b.format.name and a.format.is_float:
        if a.id == b.id:
            return apply("square", a)
        if _is_negated(a, b) or _is_negated(b, a):
            positive = b if _is_negated(a, b) else a
            return -apply("square", positive)
    return apply("mul", a, b)


def contracted(plain: Value, a: Value, b: Value | Number, c: Value | Number) -> Value:
    """`plain`, which computes a * b + c, or the same with one rounding: inside of one kernel a compiler may contract the two."""
    if not plain.format.is_float:
        return plain
    ready = [v.cast(plain.format) if isinstance(v, Value) else plain.const(v) for v in (a, b, c)]
    return ready[0].add("fma", *ready[1:], shape=plain.shape).add("either", plain)


def narrow_or_wide(formula: Callable[..., Value], *values: Value) -> Value:
    """A kernel's formula; of half values in either way: what is not in a vector may be rounded to half at each step."""
    narrow, fmt = formula(*values), values[0].format
    if not is_half(fmt):
        return narrow
    return formula(*(v.up() for v in values)).cast(fmt).add("either", narrow.cast(fmt))


def _is_negated(a: Value, b: Value) -> bool:
    """Whether a is the node -b."""
    node = a.builder.nodes[a.id]
    return node.op == "neg" and node.inputs == (b.id,)


def where(condition: Value, a: Value | Number, b: Value | Number) -> Value:
    """a where the condition holds, else b; numbers take the other's format."""
    values = [v for v in (a, b) if isinstance(v, Value)]
    fmt = promoted(*values) if values else FLOAT32
    ready = [v.cast(fmt) if isinstance(v, Value) else condition.const(v, fmt) for v in (a, b)]
    shape = np.broadcast_shapes(condition.shape, *(v.shape for v in ready))
    return condition.cast(BOOL).add("where", *ready, shape=shape, fmt=fmt)


def reduce(op: str, x: Value, dims: Iterable[int], fmt: Format | None = None, **attrs: Any) -> Value:
    """A reduction along negative axes, which stay with size 1."""
    reduced = tuple(dims)
    shape = [1 if i - x.ndim in reduced else n for i, n in enumerate(x.shape)]
    return x.add(op, shape=shape, fmt=fmt or (BOOL if op in PREDICATES else x.format), dims=reduced, **attrs)


def reshape(builder: Builder, x: int, shape: Sequence[int]) -> int:
    """A node's elements in another shape of the same size, with as few nodes as possible."""
    shape = tuple(shape)
    while builder.nodes[x].op == "reshape" and builder.shape(x) != shape:
        x = builder.nodes[x].inputs[0]
    return x if builder.shape(x) == shape else builder.add("reshape", (x,), shape, builder.format(x))


def concat(parts: Sequence[Value], dim: int) -> Value:
    """Values joined along a negative axis."""
    shape = list(parts[0].shape)
    shape[dim] = sum(p.shape[dim] for p in parts)
    return parts[0] if len(parts) == 1 else parts[0].add("concat", *parts[1:], shape=shape, dim=dim)


def cut(x: Value, dim: int, start: int, length: int, step: int = 1) -> Value:
    """The slice of `length` elements along a negative axis."""
    if start == 0 and step == 1 and length == x.shape[dim]:
        return x
    shape = list(x.shape)
    shape[dim] = length
    return x.add("slice", shape=shape, dim=dim, start=start, step=step)


def matmul(a: Value, b: Value) -> Value:
    """The product of two matrices (or batches of them)."""
    batch = np.broadcast_shapes(a.shape[:-2], b.shape[:-2])
    return a.add("matmul", b, shape=(*batch, a.shape[-2], b.shape[-1]))


def transposed(x: Value) -> Value:
    """The value with its last two axes exchanged."""
    axes = (*x.axes[:-2], -1, -2)
    return x.add("permute", shape=(*x.shape[:-2], x.shape[-1], x.shape[-2]), axes=axes)


def zeros(like: Value, shape: Iterable[int], fmt: Format | None = None) -> Value:
    """A constant of zeros."""
    return filled(like.builder, 0, tuple(shape), fmt or like.format)


def filled(builder: Builder, number: Number, shape: Shape, fmt: Format) -> Value:
    """A constant of one repeated number, of which only one is stored."""
    if 0 in shape:
        return constant(builder, np.zeros(shape), fmt)
    with np.errstate(all="ignore"):
        return Value(builder, builder.add("const", (), shape, fmt, value=np.full((1,) * len(shape), number).astype(fmt.numpy)))


def arange(like: Value, n: int, fmt: Format = INT64) -> Value:
    """The constant 0, 1, … n-1."""
    return like.const(np.arange(n), fmt)


def fit(value: Value, shape: Shape, fmt: Format) -> Value:
    """A lowering's result in the format and shape of the framework's own."""
    value = value.cast(fmt)
    return value.reshape(*shape) if value.size == prod(shape) else value.expand(shape)
