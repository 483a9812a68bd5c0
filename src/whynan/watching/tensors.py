"""Tensors of any framework as bytes, and the safetensors format they are written in: a header of JSON, then the elements.

The format is simple enough to be written here, so that a bundle needs no package that the run does not have:
https://huggingface.co/docs/safetensors/index#format
"""

import json
import math
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from whynan.ir.dtype import Array

# safetensors' name of each element type by NumPy's (ml_dtypes' where NumPy has none)
NAMES = {
    "bool": "BOOL",
    "uint8": "U8",
    "int8": "I8",
    "uint16": "U16",
    "int16": "I16",
    "uint32": "U32",
    "int32": "I32",
    "uint64": "U64",
    "int64": "I64",
    "float16": "F16",
    "bfloat16": "BF16",
    "float32": "F32",
    "float64": "F64",
    "complex64": "C64",
    "float8_e4m3fn": "F8_E4M3",
    "float8_e5m2": "F8_E5M2",
}
_ITEMSIZE = {name: max(1, int("".join(c for c in name.partition("_")[0] if c.isdigit()) or 8) // 8) for name in NAMES.values()}
_ALIGNMENT = 8  # of the elements' start, as the format's own writer has it


class NotStored(Exception):
    """A value that cannot be written; the message says why."""


@dataclass(frozen=True, slots=True, eq=False)
class Flat:
    """A tensor as its elements in row-major order, little-endian: an array of bytes, the dtype's name and the shape."""

    dtype: str
    shape: tuple[int, ...]
    bytes: Array

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return int(self.bytes.size)

    def rows(self, indices: Sequence[int]) -> "Flat":
        """Only these indices of the first axis."""
        rows = self.bytes.reshape(self.shape[0], -1)[list(indices)].reshape(-1)
        return Flat(self.dtype, (len(indices), *self.shape[1:]), rows)


def flat(value: Any) -> Flat:
    """A tensor, array or number of any framework, copied to the host. Raises NotStored if it is none or of a type the format lacks."""
    torch = sys.modules.get("torch")
    try:
        return _of_torch(value) if torch is not None and isinstance(value, torch.Tensor) else _of_array(np.asarray(value))
    except NotStored:
        raise
    except Exception as error:  # each framework has tensors that have no elements to give: meta, symbolic, sparse, sharded
        raise NotStored(f"a {type(value).__name__} has no elements to write: {str(error).partition(chr(10))[0]}") from error


def measured(value: Any) -> tuple[str, tuple[int, ...], int]:
    """Dtype, shape and size in bytes of what `flat` would give, without copying an element. Raises NotStored as it does."""
    dtype = getattr(value, "dtype", None)
    if dtype is None or not hasattr(value, "shape"):
        made = flat(value)
        return made.dtype, made.shape, made.size
    name = getattr(dtype, "name", None) or str(dtype).removeprefix("torch.")
    if name not in NAMES:
        raise NotStored(f"safetensors has no type for {name}")
    shape = tuple(int(n) for n in value.shape)
    return name, shape, math.prod(shape) * _ITEMSIZE[NAMES[name]]


def _of_torch(value: Any) -> Flat:
    torch = sys.modules["torch"]
    name = str(value.dtype).removeprefix("torch.")
    if name not in NAMES:
        raise NotStored(f"safetensors has no type for {name}")
    plain = value.detach().to("cpu").resolve_conj().resolve_neg() if value.dtype.is_complex else value.detach().to("cpu")
    elements = plain.contiguous().reshape(-1).view(torch.uint8).numpy().copy()
    return Flat(name, tuple(value.shape), elements)


def _of_array(value: Array) -> Flat:
    if value.dtype.name not in NAMES:
        raise NotStored(f"safetensors has no type for {value.dtype.name}")
    little = value.astype(value.dtype.newbyteorder("<"), copy=False) if value.dtype.byteorder == ">" else value
    return Flat(value.dtype.name, value.shape, np.frombuffer(np.ascontiguousarray(little).tobytes(), np.uint8))


def leaves(value: Any, name: str = "") -> Iterator[tuple[str, Any]]:
    """The tensors and numbers in nested mappings and sequences, named by their keys: "batch/ids", "batch/0". None and text are left out."""
    if isinstance(value, Mapping):
        items: Iterator[tuple[Any, Any]] = iter(value.items())
    elif isinstance(value, list | tuple):
        items = iter(enumerate(value))
    else:
        if value is not None and not isinstance(value, str | bytes):
            yield name, value
        return
    for key, item in items:
        yield from leaves(item, f"{name}/{key}" if name else str(key))


def write(file: Path, tensors: Mapping[str, Flat]) -> None:
    """Write a safetensors file. Raises OSError."""
    header: dict[str, Any] = {}
    end = 0
    for name, tensor in tensors.items():
        header[name] = {"dtype": NAMES[tensor.dtype], "shape": list(tensor.shape), "data_offsets": [end, end + tensor.size]}
        end += tensor.size
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % _ALIGNMENT)
    with file.open("wb") as out:
        out.write(len(text).to_bytes(8, "little") + text)
        for tensor in tensors.values():
            out.write(tensor.bytes.data)
