"""The spelling table: which function turns which HLO opcode into nodes of the graph."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from whynan.errors import OpError
from whynan.frontends.hlo.parse import Computation, Instruction, Module, Type, Types, numbers
from whynan.frontends.kit import Value
from whynan.ir.dtype import FORMATS, Array, Format, flushed
from whynan.ir.graph import Builder, Node

Operand = Value | tuple[Any, ...]  # tuples may be nested

_ELEMENTS = {"pred": "bool", "f64": "float64", "f32": "float32", "f16": "float16", "bf16": "bfloat16"}
_UNSIGNED = {
    f"u{n}": Format(f"uint{n}", "int", np.dtype(f"uint{n}"), float(np.iinfo(f"uint{n}").max)) for n in (16, 32, 64)
}  # only random bits have these formats: no input does


def format_of(element: str) -> Format | None:
    """The format of an HLO element type, with subnormals flushed as XLA does on a CPU; None if whynan has none (complex, float8)."""
    if element in _UNSIGNED:
        return _UNSIGNED[element]
    name = _ELEMENTS.get(element) or f"{'int' if element[:1] == 's' else 'uint'}{element[1:]}"
    return flushed(FORMATS[name]) if name in FORMATS else None


@dataclass(frozen=True, slots=True)
class Kernel:
    """The piece of machine code that an instruction is compiled into: a fused computation, or the instruction alone.

    `first` is the first node that belongs to it. Within one that is `fused`, a product may be added to something without being
    rounded before. Two kernels may round the same sum in different ways; `number` tells them apart.
    """

    number: int
    first: int
    fused: bool


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One instruction as its lowering sees it.

    `inline(name, operands)` lowers a computation that it calls into the same kernel; `note` adds a fact that the report must mention.
    """

    builder: Builder
    module: Module
    instruction: Instruction
    operands: tuple[Operand, ...]
    types: tuple[Types, ...]  # of the operands
    kernel: Kernel
    inline: Callable[[str, Sequence[Operand]], Operand]
    note: Callable[[str], None]

    def __getitem__(self, i: int) -> Value:
        """Operand i, which must be an array."""
        operand = self.operands[i]
        if isinstance(operand, tuple):
            raise OpError(f"the HLO instruction {self.instruction.name} got a tuple for its operand {i}.")
        return operand

    @property
    def opcode(self) -> str:
        """The instruction's opcode."""
        return self.instruction.opcode

    @property
    def type(self) -> Type:
        """The result's type, which must be an array's."""
        kind = self.instruction.type
        if isinstance(kind, tuple):
            raise OpError(f"the HLO instruction {self.instruction.name} gives a tuple.")
        return kind

    @property
    def shape(self) -> tuple[int, ...]:
        """The result's dimensions."""
        return self.type.dims

    @property
    def format(self) -> Format:
        """The result's format; OpError if whynan has none."""
        fmt = format_of(self.type.element)
        if fmt is None:
            raise OpError(f"HLO's element type {self.type.element} has no format.")
        return fmt

    def attr(self, name: str, default: str = "") -> str:
        """The text of an attribute."""
        return self.instruction.attributes.get(name, default)

    def dims(self, name: str = "dimensions") -> tuple[int, ...]:
        """The integers of an attribute."""
        return numbers(self.attr(name))

    def called(self, name: str = "to_apply") -> Computation:
        """The computation that an attribute names."""
        return self.module.computations[self.attr(name).lstrip("%")]

    def values(self) -> list[Value]:
        """All arrays among the operands, in order."""
        return list(arrays(self.operands))


Lowering = Callable[[Op], Operand]

OPCODES: dict[str, Lowering] = {}
CUSTOM_CALLS: dict[str, Lowering] = {}
_HANDS_ON = frozenset({"tuple", "get-tuple-element"})  # opcodes that only hand values on, whatever their type


class NotLowered(Exception):
    """A lowering that exists but not for this use of the opcode; the message says what it is about."""


def lowers(*opcodes: str, table: dict[str, Lowering] = OPCODES) -> Callable[[Lowering], Lowering]:
    """Register a lowering for opcodes (or for the targets of custom calls); a second one for the same name is an error."""

    def register(function: Lowering) -> Lowering:
        for opcode in opcodes:
            if opcode in table:
                raise OpError(f"the HLO opcode {opcode!r} has two lowerings.")
            table[opcode] = function
        return function

    return register


def lower(op: Op) -> Operand:
    """Add the nodes of one instruction; what has no lowering gives `unknown:hlo.OPCODE` nodes."""
    lowering = OPCODES.get(op.opcode)
    seen = (op.instruction.type, *op.types) if op.opcode not in _HANDS_ON else ()
    if lowering is None or any(format_of(t.element) is None for kind in seen for t in leaves(kind)):
        return unknown(op)
    try:
        return lowering(op)
    except NotLowered:
        return unknown(op)


def unknown(op: Op, name: str = "") -> Operand:
    """Nodes of the right shape and format that say nothing but what goes into them."""
    inputs = tuple(v.id for v in op.values())
    return _unknown(op, f"unknown:hlo.{name or op.opcode}", inputs, op.instruction.type)


def _unknown(op: Op, name: str, inputs: tuple[int, ...], kind: Types) -> Operand:
    if isinstance(kind, tuple):
        return tuple(_unknown(op, name, inputs, k) for k in kind)
    # a complex number, say: shown as a float, which unlike an integer may be anything, NaN included
    return Value(op.builder, op.builder.add(name, inputs, kind.dims, format_of(kind.element) or FORMATS["float64"]))


def leaves(kind: Types) -> Iterator[Type]:
    """The array types of nested tuples, in order."""
    if isinstance(kind, tuple):
        for k in kind:
            yield from leaves(k)
    elif kind.element not in ("token", "opaque", ""):
        yield kind


def arrays(operand: Any) -> Iterator[Value]:
    """The arrays of nested tuples, in order."""
    if isinstance(operand, Value):
        yield operand
    elif isinstance(operand, (tuple, list)):
        for o in operand:
            yield from arrays(o)


def known(value: Value) -> Array | None:
    """The value of a constant node (or of one that only moves the elements of constants), in its full shape; None for others."""
    node = value.builder.nodes[value.id]
    if node.op == "const":
        return np.broadcast_to(node.attrs["value"], node.shape)
    if node.op not in _MOVES:
        return None
    below = [known(Value(value.builder, i)) for i in node.inputs]
    parts = [b for b in below if b is not None]
    return _MOVES[node.op](node, *parts) if len(parts) == len(below) else None


def _sliced(node: Node, x: Array) -> Array:
    start, step = node.attrs["start"], node.attrs["step"]
    return np.asarray(np.take(x, start + step * np.arange(node.shape[node.attrs["dim"]]), axis=node.attrs["dim"]))


_MOVES: dict[str, Callable[..., Array]] = {
    "reshape": lambda node, x: x.reshape(node.shape),
    "expand": lambda node, x: np.broadcast_to(x, node.shape),
    "permute": lambda node, x: np.transpose(x, [a % x.ndim for a in node.attrs["axes"]]),
    "slice": _sliced,
    "flip": lambda node, x: np.flip(x, node.attrs["dims"]),
    "concat": lambda node, *xs: np.concatenate(xs, axis=node.attrs["dim"]),
}


def negative(axes: Sequence[int], rank: int) -> tuple[int, ...]:
    """Axes counted from the end."""
    return tuple(a - rank for a in axes)
