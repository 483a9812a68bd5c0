"""The spelling table: which function turns which aten call into nodes of the graph.

A call is given with its arguments in the order of the op's schema or by keyword; tensors stand as `Ref`s to nodes. A lowering adds
nodes to a `Builder` and returns one node per result of the call.
"""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Any

import torch

from whynan.errors import OpError
from whynan.ir.dtype import Array, Format
from whynan.ir.graph import Builder, Shape


@dataclass(frozen=True, slots=True)
class Ref:
    """A tensor argument: the node that holds it."""

    node: int


@dataclass(frozen=True, slots=True, eq=False)
class Aten:
    """One aten call: its functional name with the overload ("add.Tensor", "log.default"), its arguments, its real results.

    `args` and `kwargs` hold Python scalars, lists, dtypes, None, and a `Ref` for every tensor. `outputs` are shape and format of each
    result (None for a result that is no tensor), `results` the values that the framework computed (None where there is none).
    """

    name: str
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[tuple[Shape, Format] | None, ...] = ()
    results: tuple[Array | None, ...] = ()


Nodes = tuple[int | None, ...]
Lowering = Callable[[Builder, Aten], Nodes]

SPELLINGS: dict[str, Lowering] = {}


def full_name(name: str) -> str:
    """The name with its overload: "log" is "log.default"."""
    return name if "." in name else f"{name}.default"


def spells(*names: str) -> Callable[[Lowering], Lowering]:
    """Register a lowering under aten names; a second lowering for a name is an error. A name without overload means ".default"."""

    def register(function: Lowering) -> Lowering:
        for name in map(full_name, names):
            if name in SPELLINGS:
                raise OpError(f"the aten op {name!r} has two lowerings.")
            SPELLINGS[name] = function
        return function

    return register


def lower(builder: Builder, aten: Aten) -> Nodes:
    """Add the nodes of one aten call and return one node per result; an op without a lowering becomes `unknown:NAME` nodes."""
    known = SPELLINGS.get(full_name(aten.name))
    return known(builder, aten) if known else unknown(builder, aten)


def unknown(builder: Builder, aten: Aten) -> Nodes:
    """One node per result that says nothing but its shape and format, and that all tensor arguments go into it."""
    inputs = tuple(ref.node for ref in refs((aten.args, aten.kwargs)))
    op = f"unknown:{aten.name}"
    return tuple(None if out is None else builder.add(op, inputs, out[0], out[1]) for out in aten.outputs)


def refs(arguments: Any) -> Iterator[Ref]:
    """Every tensor among nested arguments, in order."""
    if isinstance(arguments, Ref):
        yield arguments
    elif isinstance(arguments, Mapping):
        yield from refs(tuple(arguments.values()))
    elif isinstance(arguments, (tuple, list)):
        for argument in arguments:
            yield from refs(argument)


def arg(aten: Aten, name: str) -> Any:
    """The argument of that name, given by position or keyword, or else the schema's default. KeyError if the op has none."""
    if name in aten.kwargs:
        return aten.kwargs[name]
    parameters = _schema(full_name(aten.name))
    position, default = parameters[name]
    return aten.args[position] if position < len(aten.args) else default


@cache
def _schema(name: str) -> dict[str, tuple[int, Any]]:
    """Position and default of each parameter; the in-place op stands in where there is no functional one (`uniform_`)."""
    packet_name, _, overload = name.partition(".")
    for candidate in (packet_name, packet_name + "_"):
        op = getattr(getattr(torch.ops.aten, candidate, None), overload, None)
        if op is not None:
            return {a.name: (i, a.default_value) for i, a in enumerate(op._schema.arguments)}
    raise OpError(f"torch has no op {name!r}.")
