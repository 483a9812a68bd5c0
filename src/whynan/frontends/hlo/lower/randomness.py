"""Random numbers: some number of their range."""

import numpy as np

from whynan.frontends.hlo.lower._table import NotLowered, Op, Operand, format_of, known, leaves, lowers
from whynan.frontends.kit import Value

RANDOM = "random numbers may be any in their range"


@lowers("rng-bit-generator")
def _bits(op: Op) -> Operand:
    state, bits = leaves(op.instruction.type)
    op.note(RANDOM)
    return _any_bits(op, state.element, state.dims), _any_bits(op, bits.element, bits.dims)


def _any_bits(op: Op, element: str, shape: tuple[int, ...]) -> Value:
    fmt = format_of(element)
    if fmt is None or fmt.kind != "int":
        raise NotLowered("random bits of that type")
    limits = np.iinfo(fmt.numpy)
    return Value(op.builder, op.builder.add("random", (), shape, fmt, low=float(limits.min), high=float(limits.max)))


@lowers("rng")
def _rng(op: Op) -> Value:
    """Uniform numbers between two constants, or normal ones."""
    low, high = known(op[0]), known(op[1])
    if low is None or high is None:
        raise NotLowered("random numbers whose limits are not constant")
    op.note(RANDOM)
    limits = (float(low), float(high)) if op.attr("distribution") == "rng_uniform" else (-np.inf, np.inf)
    return Value(op.builder, op.builder.add("random", (), op.shape, op.format, low=limits[0], high=limits[1]))


@lowers("rng-get-and-update-state")
def _state(op: Op) -> Value:
    op.note(RANDOM)
    return _any_bits(op, op.type.element, op.shape)


@lowers("after-all")
def _token(op: Op) -> Operand:
    return ()
