"""The elements of large constants, which the printed text may leave out, from the module in its serialised form.

The form is protocol buffers (xla/service/hlo.proto, xla/xla_data.proto), of which only what leads to the constants is read:
module 3: computations, 2: instructions, 1: name, 8: literal.
"""

from collections.abc import Iterator, Mapping
from math import prod
from typing import Any

import ml_dtypes
import numpy as np

from whynan.ir.dtype import Array

_COMPUTATIONS, _INSTRUCTIONS, _NAME, _LITERAL = 3, 2, 1, 8
_SHAPE, _ELEMENT, _DIMENSIONS, _LAYOUT, _MINOR_TO_MAJOR = 1, 2, 3, 5, 1

# primitive type -> field of the literal, its elements' NumPy type, whether they are written as variable-length integers
_ELEMENTS: Mapping[int, tuple[int, Any, bool]] = {
    1: (2, np.bool_, True),
    2: (15, np.int8, False),
    4: (4, np.int32, True),
    5: (5, np.int64, True),
    6: (3, np.uint8, False),
    8: (6, np.uint32, True),
    9: (7, np.uint64, True),
    10: (11, np.float16, False),
    11: (8, np.float32, False),
    12: (9, np.float64, False),
    16: (13, ml_dtypes.bfloat16, False),
}


def constants(module: bytes) -> dict[str, Array]:
    """Constants by the name of their instruction. `module` is a serialised HloModuleProto; those of types without a format are left out."""
    out: dict[str, Array] = {}
    for computation in _messages(module, _COMPUTATIONS):
        for instruction in _messages(computation, _INSTRUCTIONS):
            for literal in _messages(instruction, _LITERAL):
                value = _value(literal)
                if value is not None:
                    out[next(_messages(instruction, _NAME)).decode()] = value
    return out


def _value(literal: bytes) -> Array | None:
    shape = next(_messages(literal, _SHAPE), b"")
    kind = next((v for n, v in _fields(shape) if n == _ELEMENT and isinstance(v, int)), 0)
    if kind not in _ELEMENTS:
        return None
    number, dtype, written = _ELEMENTS[kind]
    dims = tuple(_integers(shape, _DIMENSIONS))
    if written:
        flat = np.array([n & (1 << 64) - 1 for n in _integers(literal, number)], np.uint64).astype(dtype)
    else:
        flat = np.frombuffer(b"".join(_messages(literal, number)), dtype)
    if flat.size != prod(dims):
        return None
    layout = list(_integers(next(_messages(shape, _LAYOUT), b""), _MINOR_TO_MAJOR)) or list(reversed(range(len(dims))))
    order = layout[::-1]
    return flat.reshape([dims[d] for d in order]).transpose(np.argsort(order) if order else None)


def _messages(data: bytes, number: int) -> Iterator[bytes]:
    """The values of a field that have a length, in order."""
    return (v for n, v in _fields(data) if n == number and isinstance(v, bytes))


def _integers(data: bytes, number: int) -> Iterator[int]:
    """The values of a field of integers, packed or one by one."""
    for n, v in _fields(data):
        if n == number and isinstance(v, int):
            yield v
        elif n == number and isinstance(v, bytes):
            at = 0
            while at < len(v):
                one, at = _varint(v, at)
                yield one


def _fields(data: bytes) -> Iterator[tuple[int, int | bytes]]:
    """Field numbers and values of a message."""
    at = 0
    while at < len(data):
        tag, at = _varint(data, at)
        number, kind = tag >> 3, tag & 7
        if kind == 0:
            value, at = _varint(data, at)
            yield number, value
            continue
        length, at = _varint(data, at) if kind == 2 else ({1: 8, 5: 4}[kind], at)
        yield number, data[at : at + length]
        at += length


def _varint(data: bytes, at: int) -> tuple[int, int]:
    value = shift = 0
    while True:
        byte = data[at]
        value |= (byte & 127) << shift
        shift, at = shift + 7, at + 1
        if byte < 128:
            return value, at
