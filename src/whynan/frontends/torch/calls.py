"""What an aten op's schema says: its functional spelling, which tensors it writes to, whether it draws random numbers."""

from dataclasses import dataclass
from typing import Any

import torch

SAME = frozenset({"alias", "detach", "lift", "lift_fresh", "lift_fresh_copy", "detach_copy", "alias_copy"})
EMPTY = frozenset({"empty", "empty_like", "empty_permuted", "empty_strided", "new_empty", "new_empty_strided"})
# arguments that a kernel writes to while training, although its schema does not say so
SILENT = {"native_batch_norm": ("running_mean", "running_var"), "rrelu_with_noise": ("noise",)}


@dataclass(frozen=True, slots=True)
class Schema:
    """`name` is the functional spelling, without the namespace for aten ("add.Tensor" for `aten.add_.Tensor`).

    `written` are the names of the arguments that are written to, `outs` those of them that are only written to (out=).
    `positions` are the argument names in order.
    """

    name: str
    base: str
    spelling: str
    positions: tuple[str, ...]
    written: tuple[str, ...]
    outs: frozenset[str]
    random: bool
    shaped_by_data: bool


_SCHEMAS: dict[Any, Schema] = {}


def schema_of(op: Any) -> Schema:
    """The facts about one `OpOverload`."""
    found = _SCHEMAS.get(op)
    if found is None:
        found = _SCHEMAS[op] = _read(op)
    return found


def _read(op: Any) -> Schema:
    arguments = op._schema.arguments
    written = tuple(a.name for a in arguments if a.alias_info is not None and a.alias_info.is_write)
    outs = frozenset(a.name for a in arguments if a.is_out)
    space, packet, overload = op.namespace, op._schema.name.split("::")[1], op._overloadname
    base, overload = _functional(space, packet, overload, arguments, outs) if written else (packet, overload)
    prefix = "" if space == "aten" else f"{space}::"
    return Schema(
        name=f"{prefix}{base}.{overload}",
        base=prefix + base,
        spelling=f"{space}.{packet}.{op._overloadname}",
        positions=tuple(a.name for a in arguments),
        written=written,
        outs=outs,
        random=torch.Tag.nondeterministic_seeded in op.tags,
        shaped_by_data=torch.Tag.dynamic_output_shape in op.tags,
    )


def _functional(space: str, packet: str, overload: str, arguments: Any, outs: frozenset[str]) -> tuple[str, str]:
    """The op without side effects that takes the same arguments: `pow_.Scalar` is `pow.Tensor_Scalar`."""
    base = packet
    if not outs:
        base = f"__{packet[3:]}" if packet.startswith("__i") else packet.removesuffix("_")
    wanted = [str(a.type) for a in arguments if a.name not in outs]
    family = getattr(getattr(torch.ops, space), base, None)
    found = []
    for name in family.overloads() if family is not None else ():
        schema = getattr(family, name)._schema
        pure = not any(a.alias_info is not None and a.alias_info.is_write for a in schema.arguments)
        if pure and [str(a.type) for a in schema.arguments] == wanted:
            found.append(name)
    if not found or overload in found:
        return base, overload
    return base, found[0]
