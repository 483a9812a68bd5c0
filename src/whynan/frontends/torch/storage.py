"""Which node holds the value of a tensor: torch's tensors are views of storages that can be written to; nodes are values.

A tensor is recognised by what it shows (storage, offset, shape, strides, element type), since autograd wraps saved tensors anew.
Every write to a storage makes a new version of it. The value of a view that is older than its storage's version is read
again from the storage's flat value: its elements in order of address, one dimension.
"""

from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from whynan.frontends.torch.tensors import FORMATS, to_array
from whynan.ir.dtype import FLOAT64, Format
from whynan.ir.graph import Builder, Shape

Key = tuple[Any, ...]


@dataclass(slots=True)
class _Piece:
    """A value that was put into a storage: its node and the geometry under which it fills it."""

    node: int
    offset: int
    shape: Shape
    stride: Shape


@dataclass(slots=True)
class _Cell:
    """One storage. `storage` keeps its address from being used again; `origin` or `flat` holds the current value.

    Both are None for memory that the program did not compute and has not written to: constants.
    """

    storage: Any
    version: int = 0
    origin: _Piece | None = None
    flat: int | None = None


def key_of(t: torch.Tensor) -> Key:
    """What the tensor shows, as a dictionary key. Sparse and other tensors without a storage are known by identity."""
    if t.layout is not torch.strided:
        return (-id(t), 0, t.shape, (), t.dtype)
    return (t.untyped_storage()._cdata, t.storage_offset(), t.shape, t.stride(), t.dtype)


def format_of(t: torch.Tensor) -> Format:
    """The tensor's format; types that whynan has no format for (complex, float8) stand as float64 in unknown ops."""
    return FORMATS.get(t.dtype, FLOAT64)


def supported(t: torch.Tensor) -> bool:
    """Whether nodes can hold the tensor's values: a dense tensor of a known format."""
    return t.layout is torch.strided and t.dtype in FORMATS


class Memory:
    """The node of every tensor seen during one capture."""

    def __init__(self, builder: Builder) -> None:
        self._builder = builder
        self._known: dict[Key, tuple[int, int]] = {}  # what is shown -> node, version of the storage
        self._cells: dict[int, _Cell] = {}

    def find(self, t: torch.Tensor) -> int:
        """The node of the tensor's present value; a constant if the program did not compute it."""
        key = key_of(t)
        node = self._current(key)
        if node is None:
            cell = self._cells.get(key[0])
            if cell is None or (cell.origin is None and cell.flat is None):
                node = self._constant(t)
                cell = self._cells.setdefault(key[0], _Cell(_owner(t)))
            else:
                node = self._read(cell, t)
            self._known[key] = (node, cell.version)
        return node

    def seen(self, t: torch.Tensor) -> int | None:
        """The node of the present value if this very view of it is known."""
        if t.layout is torch.strided and t.untyped_storage()._cdata not in self._cells:
            return None
        return self._current(key_of(t))

    def put(self, t: torch.Tensor, node: int) -> None:
        """The tensor is a new one, or a new view of a known storage, with that value."""
        key = key_of(t)
        cell = self._cells.get(key[0])
        if cell is None:
            cell = self._cells[key[0]] = _Cell(_owner(t), origin=_piece(t, node))
        self._known[key] = (node, cell.version)

    def prepare(self, t: torch.Tensor) -> None:
        """Called before a write to the tensor: takes down the rest of the storage if it is a constant."""
        cell = self._cells.setdefault(key_of(t)[0], _Cell(_owner(t)))
        if cell.origin is None and cell.flat is None and supported(t) and not _fills(t):
            count = t.untyped_storage().nbytes() // t.element_size()
            cell.flat = self._constant(t.detach().as_strided((count,), (1,), 0))

    def write(self, t: torch.Tensor, node: int) -> None:
        """The tensor's elements were overwritten with the node's values; `prepare` came before."""
        key = key_of(t)
        cell = self._cells.setdefault(key[0], _Cell(_owner(t)))
        if not supported(t) or _fills(t):
            cell.flat, cell.origin = None, _piece(t, node)
        else:
            flat = self._flat(cell, t)
            attrs = {"size": tuple(t.shape), "stride": t.stride(), "offset": t.storage_offset()}
            cell.flat = self._builder.add("as_strided_scatter", (flat, node), self._builder.shape(flat), format_of(t), **attrs)
            cell.origin = None
        cell.version += 1
        self._known[key] = (node, cell.version)

    def _current(self, key: Key) -> int | None:
        entry = self._known.get(key)
        return entry[0] if entry is not None and entry[1] == self._cells[key[0]].version else None

    def _constant(self, t: torch.Tensor) -> int:
        value = to_array(t) if supported(t) else None
        if value is None:
            return self._builder.add(f"unknown:{str(t.dtype).removeprefix('torch.')} constant", (), tuple(t.shape), format_of(t))
        return self._builder.const(value, format_of(t))

    def _read(self, cell: _Cell, t: torch.Tensor) -> int:
        b, shape = self._builder, tuple(t.shape)
        flat = self._flat(cell, t)
        if b.format(flat) != format_of(t) or not supported(t):
            return b.add("unknown:view.dtype", (flat,), shape, format_of(t))
        if t.is_contiguous() and t.storage_offset() == 0 and t.numel() == b.shape(flat)[0]:
            return flat if shape == b.shape(flat) else b.add("reshape", (flat,), shape, format_of(t))
        attrs = {"size": shape, "stride": t.stride(), "offset": t.storage_offset()}
        return b.add("as_strided", (flat,), shape, format_of(t), **attrs)

    def _flat(self, cell: _Cell, t: torch.Tensor) -> int:
        if cell.flat is None:
            assert cell.origin is not None, "a constant's flat value is taken down by prepare()"
            cell.flat = self._flattened(cell.origin, cell.storage.nbytes() // t.element_size())
        return cell.flat

    def _flattened(self, piece: _Piece, count: int) -> int:
        b, fmt = self._builder, self._builder.format(piece.node)
        rank = len(piece.shape)
        order = sorted(range(rank), key=lambda i: -piece.stride[i])
        if piece.offset == 0 and _dense([piece.shape[i] for i in order], [piece.stride[i] for i in order], count):
            node = piece.node
            if order != sorted(order):
                shape = tuple(piece.shape[i] for i in order)
                node = b.add("permute", (node,), shape, fmt, axes=tuple(i - rank for i in order))
            return node if b.shape(node) == (count,) else b.add("reshape", (node,), (count,), fmt)
        ground = b.const(np.zeros(count, fmt.numpy), fmt)  # memory that the program has never written to
        attrs = {"size": piece.shape, "stride": piece.stride, "offset": piece.offset}
        return b.add("as_strided_scatter", (ground, piece.node), (count,), fmt, **attrs)


def _owner(t: torch.Tensor) -> Any:
    return t.untyped_storage() if t.layout is torch.strided else t


def _piece(t: torch.Tensor, node: int) -> _Piece:
    if t.layout is not torch.strided:
        return _Piece(node, 0, tuple(t.shape), ())
    return _Piece(node, int(t.storage_offset()), tuple(t.shape), tuple(t.stride()))


def _fills(t: torch.Tensor) -> bool:
    """Whether the tensor shows each element of its storage exactly once."""
    count = t.untyped_storage().nbytes() // t.element_size()
    if t.is_contiguous():
        return t.numel() == count
    stride = t.stride()
    order = sorted(range(t.ndim), key=lambda i: -stride[i])
    return _dense([t.shape[i] for i in order], [stride[i] for i in order], count)


def _dense(shape: list[int], stride: list[int], count: int) -> bool:
    """Whether elements of that shape lie without gaps or overlaps in `count` places, in that order of dimensions."""
    expected = 1
    for size, step in zip(reversed(shape), reversed(stride), strict=True):
        if size != 1 and step != expected:
            return False
        expected *= size
    return expected == count
