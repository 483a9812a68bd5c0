"""The lowering of one TensorFlow op, written with the notation of `frontends.kit`.

A lowering registered with `kernel` sees one op as a `Kernel` and writes the kernel's own formula: `k[0] * (1 - k[1])`.
Its results are cast, reshaped or expanded to what the framework returned.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import numpy as np

from whynan.frontends.kit import Number, Value, apply, axis, constant, filled, fit, negative
from whynan.frontends.tensorflow.lower._table import Lowering, Nodes, TfOp, spells
from whynan.ir.dtype import Array, Format
from whynan.ir.graph import Builder, Shape


class NotLowered(Exception):
    """An op in a form that has no lowering (a layout, a missing value): it becomes unknown, by name."""


def kernel(*types: str, structural: tuple[int, ...] = ()) -> Callable[[Callable[["Kernel"], Any]], Callable[["Kernel"], Any]]:
    """Register a function of a `Kernel` that returns a Value (or None, or a tuple of them) as the lowering of these op types.

    `structural` are the positions of the inputs whose concrete values the lowering reads (-1: the last).
    """

    def register(function: Callable[[Kernel], Any]) -> Callable[[Kernel], Any]:
        spells(*types, structural=structural)(_adapted(function))
        return function

    return register


def _adapted(function: "Callable[[Kernel], Any]") -> Lowering:
    def lowering(builder: Builder, op: TfOp) -> Nodes:
        kept = len(builder.nodes)
        try:
            results = function(Kernel(builder, op))
        except NotLowered:
            del builder.nodes[kept:]
            results = Kernel(builder, op).unknown()
        values = tuple(results) if isinstance(results, (tuple, list)) else (results,)
        return tuple(None if v is None or out is None else fit(v, *out).id for v, out in zip(values, op.outputs, strict=True))

    return lowering


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """One op to be lowered. `k[0]` is its first input, `k["axis"]` the attribute of that name."""

    builder: Builder
    op: TfOp

    def __getitem__(self, i: int) -> Value:
        return Value(self.builder, self.op.inputs[i])

    def __len__(self) -> int:
        return len(self.op.inputs)

    @property
    def inputs(self) -> list[Value]:
        """All inputs."""
        return [Value(self.builder, i) for i in self.op.inputs]

    def attr(self, name: str, default: Any = None) -> Any:
        """The attribute of that name, or the default where the op does not state it."""
        value = self.op.attrs.get(name)
        return default if value is None else value

    def value(self, i: int) -> Array:
        """The concrete value of input i. Raises NotLowered if the recording has none."""
        value = self.op.values[i]
        if value is None:
            raise NotLowered(self.op.type)
        return np.asarray(value)

    def integers(self, i: int) -> tuple[int, ...]:
        """The concrete value of input i as a tuple of Python integers."""
        return tuple(int(n) for n in self.value(i).ravel())

    def integer(self, i: int) -> int:
        """The concrete value of the scalar input i."""
        return self.integers(i)[0]

    def axes(self, i: int, ndim: int) -> tuple[int, ...]:
        """The axes that input i lists, as negative numbers; none for an empty list."""
        listed = self.integers(i)
        return tuple(sorted(set(negative(listed, ndim)))) if listed else ()

    def axis(self, i: int, ndim: int) -> int:
        """The axis that the scalar input i names, as a negative number."""
        return axis(self.integer(i), ndim)

    @property
    def shape(self) -> Shape:
        """The shape of the first result."""
        return self.out(0)[0]

    @property
    def format(self) -> Format:
        """The format of the first result."""
        return self.out(0)[1]

    def out(self, i: int) -> tuple[Shape, Format]:
        """Shape and format of result i. Raises NotLowered if whynan has no format for it."""
        out = self.op.outputs[i]
        if out is None:
            raise NotLowered(self.op.type)
        return out

    def const(self, number: Number | Array, fmt: Format | None = None) -> Value:
        """A constant, in the first result's format unless another is given."""
        return constant(self.builder, number, fmt or self.format)

    def filled(self, number: Number) -> Value:
        """A constant of one repeated number, of the first result's shape and format."""
        return filled(self.builder, number, self.shape, self.format)

    def unknown(self) -> tuple[Value | None, ...]:
        """The results as something of which only shape and format are known."""
        return tuple(self._unknown(out) for out in self.op.outputs)

    def _unknown(self, out: tuple[Shape, Format] | None) -> Value | None:
        return None if out is None else Value(self.builder, self.builder.add(f"unknown:tf.{self.op.type}", self.op.inputs, *out))


def unary(op: str, *types: str, **attrs: Any) -> None:
    """Register op types that are one canonical elementwise operation of their inputs."""
    kernel(*types)(lambda k: apply(op, *k.inputs, **attrs))


def ids(values: Iterable[Value]) -> tuple[int, ...]:
    """The values' nodes."""
    return tuple(v.id for v in values)
