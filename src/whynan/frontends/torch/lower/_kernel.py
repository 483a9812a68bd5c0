"""The lowering of one aten call, written with the notation of `frontends.kit`.

A lowering registered with `kernel` sees one call as a `Kernel` and writes the kernel's own formula: `k["self"] * (1 - k["other"])`.
Its results are cast, reshaped or expanded to what the framework returned.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import torch

from whynan.frontends.kit import Number, Value, constant, fit, negative
from whynan.frontends.torch.lower._table import Aten, Lowering, Nodes, Ref, arg, spells
from whynan.ir.dtype import Array, Format, format_of
from whynan.ir.graph import Builder, Shape


def kernel(*names: str) -> Callable[[Callable[["Kernel"], Any]], Callable[["Kernel"], Any]]:
    """Register a function of a `Kernel` that returns a Value (or None, or a tuple of them) as the lowering of these aten names."""

    def register(function: Callable[[Kernel], Any]) -> Callable[[Kernel], Any]:
        spells(*names)(_adapted(function))
        return function

    return register


def _adapted(function: "Callable[[Kernel], Any]") -> Lowering:
    def lowering(builder: Builder, aten: Aten) -> Nodes:
        results = function(Kernel(builder, aten))
        values = tuple(results) if isinstance(results, (tuple, list)) else (results,)
        if len(values) > len(aten.outputs):  # results that the framework left out (an output mask) are None on both sides, or on none
            values = tuple(v for v in values if v is not None)
        return tuple(None if v is None or out is None else fit(v, *out).id for v, out in zip(values, aten.outputs, strict=True))

    return lowering


@dataclass(frozen=True, slots=True, eq=False)
class Kernel:
    """One aten call to be lowered. `k["dim"]` is the argument of that name; tensors are Values."""

    builder: Builder
    aten: Aten

    def __getitem__(self, name: str) -> Any:
        return self._value(arg(self.aten, name))

    def tensor(self, name: str) -> Value:
        """The tensor argument of that name."""
        value = self[name]
        assert isinstance(value, Value), f"{name} of {self.aten.name} is no tensor"
        return value

    def _value(self, argument: Any) -> Any:
        if isinstance(argument, Ref):
            return Value(self.builder, argument.node)
        if isinstance(argument, (tuple, list)):
            return [self._value(a) for a in argument]
        return argument

    @property
    def shape(self) -> Shape:
        """The shape of the first result."""
        return self.out(0)[0]

    @property
    def format(self) -> Format:
        """The format of the first result."""
        return self.out(0)[1]

    def out(self, i: int) -> tuple[Shape, Format]:
        """Shape and format of result i, which must be a tensor."""
        out = self.aten.outputs[i]
        assert out is not None, self.aten.name
        return out

    def const(self, number: Number | Array, fmt: Format | None = None) -> Value:
        """A constant, in the first result's format unless another is given."""
        return constant(self.builder, number, fmt or self.format)

    def unknown(self, i: int, *inputs: Value, what: str = "") -> Value:
        """Result i as something of which only shape and format are known."""
        shape, fmt = self.out(i)
        return Value(self.builder, self.builder.add(f"unknown:{what or self.aten.name}", tuple(v.id for v in inputs), shape, fmt))

    def axes(self, dims: Any, ndim: int) -> tuple[int, ...]:
        """An axis or list of axes of a value of `ndim` dimensions as negative numbers; None and an empty list mean all."""
        return negative(dims, ndim)


def format_of_dtype(dtype: torch.dtype) -> Format:
    """The format of a torch dtype; KeyError if there is none."""
    return format_of(str(dtype).removeprefix("torch."))
