"""The spelling table: which function turns which raw TensorFlow op into nodes of the graph. TensorFlow itself is not imported.

The same table serves ops recorded one by one (eager mode) and the nodes of a graph that Grappler has rewritten.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from whynan.errors import OpError
from whynan.ir.dtype import Array, Format
from whynan.ir.graph import Builder, Shape


@dataclass(frozen=True, slots=True, eq=False)
class TfOp:
    """One application of a raw op: its type ("AddV2"), a graph node per tensor input in the op's order, its attributes.

    `values` are the inputs' concrete values in this recording: axes, shapes and permutations are read from them. `attrs` holds Python
    values: bool, int, float, str and lists of them, a dtype as the name of its format ("float32"), a shape as a tuple. `outputs` are shape
    and format of each result (None where whynan has no format), `results` what the framework computed (None where nothing was seen).
    """

    type: str
    inputs: tuple[int, ...]
    values: tuple[Array | None, ...] = ()
    attrs: Mapping[str, Any] = field(default_factory=dict)
    outputs: tuple[tuple[Shape, Format] | None, ...] = ()
    results: tuple[Array | None, ...] = ()


Nodes = tuple[int | None, ...]
Lowering = Callable[[Builder, TfOp], Nodes]

SPELLINGS: dict[str, Lowering] = {}

# Inputs that say how an op works (axes, shapes, positions) and are read from `TfOp.values`, by op type; -1 is the last input.
# A recorder adds an `Assumption` for one that varies with the inputs of the loss.
STRUCTURAL: dict[str, tuple[int, ...]] = {}


def spells(*types: str, structural: tuple[int, ...] = ()) -> Callable[[Lowering], Lowering]:
    """Register a lowering for op types; `structural` are the positions of inputs whose values it reads.

    Raises OpError if a type already has a lowering.
    """

    def register(function: Lowering) -> Lowering:
        for type in types:
            if type in SPELLINGS:
                raise OpError(f"the TensorFlow op {type!r} has two lowerings.")
            SPELLINGS[type] = function
            if structural:
                STRUCTURAL[type] = structural
        return function

    return register


def lower(builder: Builder, op: TfOp) -> Nodes:
    """Add the nodes of one op and return one node per result; an op without a lowering becomes `unknown:tf.NAME` nodes."""
    known = SPELLINGS.get(op.type)
    return known(builder, op) if known else unknown(builder, op)


def unknown(builder: Builder, op: TfOp) -> Nodes:
    """One node per result that says nothing but its shape and format, and that all inputs go into it."""
    return tuple(None if out is None else builder.add(f"unknown:tf.{op.type}", op.inputs, *out) for out in op.outputs)
