"""Tensors without numbers: the lists that loops fill, followed element by element.

Graphs of `tf.while_loop`, `tf.scan` and `tf.map_fn` keep their results, and what their gradients need, in such lists (`TensorList…`).
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol

import numpy as np

from whynan.ir.dtype import Array

Held = tuple[int | None, ...]  # the node of each element; None for one that has not been written


class Recorder(Protocol):
    """What the ops here need of a recorder."""

    def node(self, tensor: Any) -> int:
        """The node of a tensor."""
        ...

    def value(self, node: int) -> Array | None:
        """What the framework computed for a node."""
        ...

    def put(self, tensor: Any, node: int) -> None:
        """The tensor is that node's."""
        ...

    def made(self, type_: str, inputs: Sequence[int], attrs: dict[str, Any], value: Array) -> int:
        """The node of one more op, whose result has that value."""
        ...

    def number(self, value: Any) -> int:
        """The node of a constant array."""
        ...

    def look(self, node: int, what: str) -> None:
        """The recording holds only for the node's present value."""
        ...


def on_container(recorder: Recorder, held: dict[int, Held], type_: str, inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
    """Record an op on containers; False if it is none, or uses them in a way that is not followed."""
    handle = _HANDLERS.get(type_)
    if handle is None:
        return False
    try:
        handle(_Operands(recorder, held, inputs, outputs))
    except KeyError:  # a container that came from elsewhere
        return False
    return True


class _Operands:
    """The tensors of one op, with what its containers hold."""

    def __init__(self, recorder: Recorder, held: dict[int, Held], inputs: Sequence[Any], outputs: Sequence[Any]) -> None:
        self.recorder = recorder
        self.inputs = inputs
        self.outputs = outputs
        self._held = held

    def elements(self, i: int = 0) -> Held:
        """What the container that is input i holds."""
        return self._held[self.inputs[i]._id]

    def keep(self, elements: Sequence[int | None], i: int = 0) -> None:
        """Result i is a container of these elements."""
        self._held[self.outputs[i]._id] = tuple(elements)

    def node(self, i: int) -> int:
        """The node of input i."""
        return self.recorder.node(self.inputs[i])

    def integer(self, i: int) -> int:
        """The value of input i, a position or a number of elements."""
        self.recorder.look(self.node(i), "a position in a list")
        return int(self.inputs[i]._numpy())

    def hand_out(self, element: int | None, i: int = 0) -> None:
        """Result i is an element; zeros stand for one that has not been written."""
        t = self.outputs[i]
        self.recorder.put(t, self.recorder.number(t._numpy()) if element is None else element)

    def pack(self, elements: Sequence[int | None]) -> None:
        """The result is the stack of the elements."""
        value = self.outputs[0]._numpy()
        if not elements:
            self.hand_out(None)
            return
        nodes = [self.recorder.number(np.zeros_like(row)) if e is None else e for e, row in zip(elements, value, strict=True)]
        made = self.recorder.made("Pack", nodes, {"axis": 0, "N": len(nodes)}, value)
        self.recorder.put(self.outputs[0], made)

    def rows(self, i: int) -> list[int]:
        """The nodes of the rows of input i."""
        value, table = self.inputs[i]._numpy(), self.node(i)
        axis = self.recorder.number(np.int32(0))
        picks = [self.recorder.number(np.int32(row)) for row in range(len(value))]
        return [self.recorder.made("GatherV2", [table, p, axis], {"batch_dims": 0}, row) for p, row in zip(picks, value, strict=True)]


def _empty(o: _Operands) -> None:
    o.keep(())


def _reserve(o: _Operands) -> None:
    o.keep((None,) * o.integer(1))


def _from_tensor(o: _Operands) -> None:
    o.keep(o.rows(0))


def _push(o: _Operands) -> None:
    o.keep((*o.elements(), o.node(1)))


def _pop(o: _Operands) -> None:
    o.keep(o.elements()[:-1])
    o.hand_out(o.elements()[-1], 1)


def _get(o: _Operands) -> None:
    o.hand_out(o.elements()[o.integer(1)])


def _set(o: _Operands) -> None:
    elements, position = list(o.elements()), o.integer(1)
    elements += [None] * (position + 1 - len(elements))
    elements[position] = o.node(2)
    o.keep(elements)


def _resize(o: _Operands) -> None:
    size = o.integer(1)
    o.keep((*o.elements(), *(None,) * size)[:size])


def _stack(o: _Operands) -> None:
    o.pack(o.elements())


def _gather(o: _Operands) -> None:
    o.recorder.look(o.node(1), "positions in a list")
    o.pack([o.elements()[i] for i in o.inputs[1]._numpy()])


def _scatter(o: _Operands) -> None:
    o.recorder.look(o.node(1), "positions in a list")
    positions, rows = o.inputs[1]._numpy(), o.rows(0)
    elements: list[int | None] = [None] * (int(max(positions, default=-1)) + 1)
    for position, row in zip(positions, rows, strict=True):
        elements[position] = row
    o.keep(elements)


def _length(o: _Operands) -> None:
    o.elements()
    o.hand_out(None)


def _zeros(o: _Operands) -> None:
    o.keep((None,) * len(o.elements()))


def _add(o: _Operands) -> None:
    lists = [o.elements(i) for i in range(len(o.inputs))]
    o.keep([_sum(o.recorder, [e for e in column if e is not None]) for column in zip(*lists, strict=True)])


def _sum(recorder: Recorder, nodes: list[int]) -> int | None:
    if len(nodes) < 2:
        return next(iter(nodes), None)
    values = [recorder.value(n) for n in nodes]
    if any(v is None for v in values):
        raise KeyError("a sum of unknown values")
    total = np.add.reduce([v for v in values if v is not None])
    return recorder.made("AddN", nodes, {"N": len(nodes)}, total)


def _same(o: _Operands) -> None:
    o.keep(o.elements())


_HANDLERS: dict[str, Callable[[_Operands], None]] = {
    "EmptyTensorList": _empty,
    "TensorListReserve": _reserve,
    "TensorListFromTensor": _from_tensor,
    "TensorListPushBack": _push,
    "TensorListPopBack": _pop,
    "TensorListGetItem": _get,
    "TensorListSetItem": _set,
    "TensorListResize": _resize,
    "TensorListStack": _stack,
    "TensorListGather": _gather,
    "TensorListScatter": _scatter,
    "TensorListScatterV2": _scatter,
    "TensorListLength": _length,
    "TensorListElementShape": _length,
    "Identity": _same,
    "ZerosLike": _zeros,
    "AddN": _add,
}
