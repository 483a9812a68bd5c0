"""Recording: TensorFlow ops that have run become nodes of a graph, with the values that the framework computed."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_def_registry

from whynan.frontends.compared import comparison
from whynan.frontends.tensorflow.containers import Held, on_container
from whynan.frontends.tensorflow.lower import STRUCTURAL, TfOp, lower
from whynan.frontends.tensorflow.places import Spot
from whynan.frontends.tensorflow.tensors import FORMATS, format_of, to_array
from whynan.frontends.trace import Recording, unchanged
from whynan.frontends.written import written_number
from whynan.ir.dtype import BOOL, INT64, Array, Format, next_down, next_up
from whynan.ir.graph import Assumption, Place, Shape

_SAME = frozenset({"Identity", "ReadVariableOp", "StopGradient", "PreventGradient", "Snapshot", "EnsureShape"})
_LIST = frozenset({"IdentityN"})
_DRAWS = ("Random", "Stateless", "Multinomial", "TruncatedNormal", "Parameterized", "StatefulUniform", "StatefulStandardNormal")
_DETERMINISTIC = frozenset({"StatelessIf", "StatelessWhile", "StatelessCase", "RandomGammaGrad"})

_Meta = tuple[Shape, Format]


@dataclass(frozen=True, slots=True, eq=False)
class Op:
    """One op that has run: its type, its tensors (lists flattened), its attributes as TensorFlow gives them to a callback."""

    type: str
    inputs: Sequence[Any]
    attrs: Mapping[str, Any]
    outputs: Sequence[Any]


class Recorder:
    """One capture: the graph so far, the node that holds each tensor, and what was looked at."""

    def __init__(self) -> None:
        self.recording = Recording()
        self.builder = self.recording.builder
        self._values = self.recording.values
        self._nodes: dict[int, int] = {}  # by the tensor's own number
        self._variables: dict[int, int] = {}  # by the number of a variable's handle
        self._held: dict[int, Held] = {}  # what lists hold, by the tensor's own number
        self._varies: list[bool] = []  # per node: whether its value depends on an input or on random numbers
        self._counted: set[int] = set()  # masks whose number of true elements is assumed already
        self._source = -1
        self._inner: tuple[str, ...] = ()  # the library's expressions in which numbers of the present call stand

    # ------------------------------------------------------------ inputs and tensors

    def input(self, name: str, tensor: Any) -> int:
        """Make the tensor, or the value of a variable, an input of the graph; returns its node."""
        is_variable = isinstance(tensor, tf.Variable)
        value = tensor.read_value() if is_variable else tensor
        fmt, array = format_of(value), to_array(value)
        if fmt is None or array is None:
            raise TypeError(f"whynan has no number format for a tensor of {value.dtype.name}")
        node = self.builder.add("input", (), array.shape, fmt, name=name)
        self._values[node] = array
        if is_variable:
            self._variables[tensor.handle._id] = node
        else:
            self.put(tensor, node)
        return node

    def put(self, tensor: Any, node: int) -> None:
        """From now on the tensor's value is that node's."""
        self._nodes[tensor._id] = node

    def hold(self, tensor: Any, node: int, value: Array) -> None:
        """The tensor is that node's, with a value that the framework computed."""
        self._values.setdefault(node, value)
        self.put(tensor, node)

    def variable(self, handle: Any) -> int:
        """The node of a variable's present value, by its handle."""
        found = self._variables.get(handle._id)
        if found is None:
            value = tf.raw_ops.ReadVariableOp(resource=handle, dtype=handle._handle_data.shape_and_type[0].dtype)
            found = self._variables[handle._id] = self.node(value)
        return found

    def node(self, tensor: Any) -> int:
        """The node of a tensor. One that no recorded op made is a constant."""
        found = self._nodes.get(tensor._id)
        if found is None:
            found = self._constant(tensor)
            self.put(tensor, found)
        return found

    def known(self, tensor: Any) -> int | None:
        """The node of a tensor, None if no recorded op made it."""
        return self._nodes.get(tensor._id)

    def source_of(self, tensor: Any, call: int) -> int:
        """The number of the call whose nodes hold a tensor that `call` gave: an earlier one, if it only passed the tensor on."""
        node = self._nodes.get(tensor._id)
        made = self.builder.nodes[node].source if node is not None else -1
        return made if made >= 0 else call

    def varies(self, node: int) -> bool:
        """Whether the node's value depends on an input or on random numbers."""
        for n in self.builder.nodes[len(self._varies) :]:
            self._varies.append(any(self._varies[i] for i in n.inputs) if n.inputs else n.op != "const")
        return self._varies[node]

    def value(self, node: int) -> Array | None:
        """What the framework computed for a node."""
        n = self.builder.nodes[node]
        return np.broadcast_to(n.attrs["value"], n.shape) if n.op == "const" else self._values.get(node)

    def _constant(self, tensor: Any) -> int:
        fmt, array = format_of(tensor), to_array(tensor)
        if fmt is None or array is None:
            raise TypeError(f"no format for {tensor.dtype}")
        return self._const(array, fmt)

    def _const(self, array: Array, fmt: Format) -> int:
        """A constant. What the user's own expression has in its place is found when the graph is finished."""
        found = (written_number(text, array, fmt) for text in self._inner)
        number = next((n for n in found if n is not None), None)
        return self.builder.const(array, fmt, **({} if number is None else {"written": number}))

    # ------------------------------------------------------------ ops

    @property
    def calls(self) -> int:
        """How many calls there were so far; the next one has this number."""
        return self._source + 1

    def start(self, spelling: str, spot: Spot, derives: int = -1, source: int | None = None) -> int:
        """Nodes added from now on belong to a new call; returns its number, which is the next one unless `source` gives it."""
        self._source = self._source + 1 if source is None else source
        self.builder.place = Place(spot.phase, spot.site, self._source, spelling, derives)
        self._inner = spot.inner
        return self._source

    def op(self, op: Op) -> None:
        """Record one op that has run. `start` has said where it stands."""
        if op.type.startswith("__"):  # a call of a function, whose name ends in a number that is another one each time
            self.unknown("function", [t for t in op.inputs if t.dtype not in (tf.resource, tf.variant)], op.outputs)
            return
        if any(t.dtype == tf.resource for t in op.inputs):
            self._on_variable(op)
            return
        if any(t.dtype == tf.variant for t in (*op.inputs, *op.outputs)):
            if not on_container(self, self._held, op.type, op.inputs, op.outputs):
                self.unknown(op.type, op.inputs, op.outputs)
            return
        if op.type in _SAME and self._alias(op.inputs[:1], op.outputs):
            return
        if op.type in _LIST and self._alias(op.inputs, op.outputs):
            return
        metas = [_meta(t) for t in op.outputs]
        if not any(metas):
            return
        for t, node in zip(op.outputs, self._lowered(op, metas), strict=True):
            if node is not None:
                self.hold(t, node, _array(t))

    def unknown(self, type_: str, inputs: Iterable[Any], outputs: Sequence[Any]) -> None:
        """Give each result a node that says nothing but its shape and format."""
        nodes = tuple(self.node(t) for t in inputs if format_of(t) is not None)
        for t in outputs:
            meta = _meta(t)
            if meta is not None:
                self.hold(t, self.builder.add(f"unknown:tf.{type_}", nodes, *meta), _array(t))

    def _alias(self, inputs: Sequence[Any], outputs: Sequence[Any]) -> bool:
        if len(inputs) != len(outputs) or any(format_of(t) is None for t in inputs):
            return False
        for source, t in zip(inputs, outputs, strict=True):
            self.put(t, self.node(source))
        return True

    def _lowered(self, op: Op, metas: list[_Meta | None]) -> list[int | None]:
        draws = op.type.startswith(_DRAWS) and op.type not in _DETERMINISTIC
        plain = all(format_of(t) is not None for t in op.inputs) and all(m is not None for m in metas)
        if not plain and not (draws and all(metas)):
            inputs = tuple(self.node(t) for t in op.inputs if format_of(t) is not None)
            return [None if m is None else self.builder.add(f"unknown:tf.{op.type}", inputs, *m) for m in metas]
        inputs = tuple(self.node(t) if format_of(t) is not None else self.number(np.zeros(t.shape, np.int64)) for t in op.inputs)
        results = [_array(t) for t in op.outputs]
        if draws:
            self.recording.notes["the loss draws random numbers: every run of it starts from the same seed"] = None
        elif not any(self.varies(i) for i in inputs) and not self._makes_nonfinite(inputs, results):
            return [self._const(r, m[1]) for r, m in zip(results, metas, strict=True) if m is not None]
        return self._by_table(op, inputs, metas, results)

    def _makes_nonfinite(self, inputs: tuple[int, ...], results: list[Array]) -> bool:
        """Whether finite inputs gave a result that is not: a constant then, but the op is to blame."""
        if not inputs or all(_finite(r) for r in results):
            return False
        return all(_finite(self.value(i)) for i in inputs)

    def _by_table(self, op: Op, inputs: tuple[int, ...], metas: list[_Meta | None], results: list[Array]) -> list[int | None]:
        start = len(self.builder.nodes)
        self._assume_structure(op, inputs)
        kept = len(self.builder.nodes)
        values = tuple(self.value(i) for i in inputs)
        try:
            nodes = lower(self.builder, TfOp(op.type, inputs, values, attributes(op.type, op.attrs), tuple(metas), tuple(results)))
            if self._fits(nodes, metas):
                return list(nodes)
            reason = "its nodes do not have the shapes and formats of its results"
        except Exception as error:  # a defect of a lowering must not end the check: the op is unknown then, and the report says so
            reason = f"{type(error).__name__}: {error}"
        self.recording.notes[f"tf.{op.type} could not be translated ({reason})"] = None
        del self.builder.nodes[kept:], self._varies[max(start, kept) :]
        return [None if m is None else self.builder.add(f"unknown:tf.{op.type}", inputs, *m) for m in metas]

    def _fits(self, nodes: Sequence[int | None], metas: Sequence[_Meta | None]) -> bool:
        made = [None if n is None else (self.builder.shape(n), self.builder.format(n)) for n in nodes]
        return made == list(metas)

    # ------------------------------------------------------------ containers

    def made(self, type_: str, inputs: Sequence[int], attrs: Mapping[str, Any], value: Array) -> int:
        """The node of one more op, whose result has that value."""
        array = np.asarray(value)
        fmt = FORMATS[tf.as_dtype(array.dtype)]
        node = self._by_table(Op(type_, (), attrs, ()), tuple(inputs), [(array.shape, fmt)], [array])[0]
        if node is None:
            raise KeyError(type_)
        self._values.setdefault(node, array)
        return node

    def number(self, value: Any) -> int:
        """The node of a constant array."""
        array = np.asarray(value)
        return self.builder.const(array, FORMATS[tf.as_dtype(array.dtype)])

    def look(self, node: int, what: str) -> None:
        """The recording holds only for the node's present value."""
        self.assume_elements(node, what)

    # ------------------------------------------------------------ variables

    def _on_variable(self, op: Op) -> None:
        """An op that reads or writes a variable through its handle, its first input."""
        handle, rest = op.inputs[0]._id, list(op.inputs[1:])
        present = self._variables.get(handle)
        if op.type == "ReadVariableOp" and format_of(op.outputs[0]) is not None:
            if present is None:
                present = self._variables[handle] = self.node(op.outputs[0])
            self.put(op.outputs[0], present)
        elif op.type == "ResourceGather" and present is not None:
            self._gather(op, present, rest)
        elif op.type == "AssignVariableOp" and format_of(rest[0]) is not None:
            self._variables[handle] = self.node(rest[0])
        elif op.type in ("AssignAddVariableOp", "AssignSubVariableOp") and present is not None:
            self._accumulate(op, handle, present, self.node(rest[0]))
        elif op.type.startswith(("Assign", "ResourceScatter", "ResourceApply", "ResourceStrided")):
            if present is not None:
                node = self.builder.nodes[present]
                self._variables[handle] = self.builder.add(f"unknown:tf.{op.type}", (present,), node.shape, node.format)
        elif op.type not in ("VarIsInitializedOp", "VarHandleOp", "DestroyResourceOp"):
            self.unknown(op.type, [t for t in rest if t.dtype != tf.resource], op.outputs)

    def _gather(self, op: Op, variable: int, rest: list[Any]) -> None:
        meta, axis = _meta(op.outputs[0]), self.builder.const(np.zeros((), np.int32), FORMATS[tf.int32])
        if meta is None:
            return
        table = Op("GatherV2", op.inputs, {"batch_dims": op.attrs.get("batch_dims", 0)}, op.outputs)
        inputs = (variable, self.node(rest[0]), axis)
        found = self._by_table(table, inputs, [meta], [_array(op.outputs[0])])[0]
        if found is not None:
            self.hold(op.outputs[0], found, _array(op.outputs[0]))

    def _accumulate(self, op: Op, handle: int, present: int, change: int) -> None:
        node = self.builder.nodes[present]
        name, sign = ("add", 1) if op.type == "AssignAddVariableOp" else ("sub", -1)
        made = self.builder.add(name, (present, change), node.shape, node.format)
        before, by = self.value(present), self.value(change)
        if before is not None and by is not None:
            self._values[made] = np.asarray(before + sign * by, node.format.numpy)
        self._variables[handle] = made

    # ------------------------------------------------------------ looks at values

    def assume_number(self, node: int, seen: float, what: str, *, kind: str) -> None:
        """Python code read one number: as truth ("bool"), cut to an integer ("int") or as it is ("float")."""
        if not self.varies(node):
            return
        fmt, low, high = self.builder.format(node), seen, seen
        if kind == "bool" and fmt is not BOOL:
            zero = self.builder.const(np.zeros((), fmt.numpy), fmt)
            node, low, high = self.builder.add("ne", (node, zero), self.builder.shape(node), BOOL), float(seen != 0), float(seen != 0)
        elif kind == "int" and fmt.is_float:
            low, high = _truncated_alike(fmt, seen)
        elif kind == "float" and (compared := comparison(self.builder.place.site)) is not None:
            outcome = compared.node(self.builder, node)
            if outcome is not None:
                node, low, high = outcome, *(float(compared.holds(seen)),) * 2
        self.assume(node, low, high, what)

    def assume_elements(self, node: int, what: str) -> None:
        """Each element keeps its value: what Python code, or the shape of a result, makes of them is not known."""
        value = self.value(node)
        if value is None or not value.size or not self.varies(node):
            return
        self.assume(*unchanged(self.builder, node, value), what)

    def _assume_count(self, node: int) -> None:
        """The result of `tf.where(mask)` has as many rows as the mask has elements that are not zero."""
        value = self.value(node)
        if value is None or not self.varies(node) or node in self._counted:
            return
        self._counted.add(node)
        b, fmt, shape = self.builder, self.builder.format(node), self.builder.shape(node)
        mask = node if fmt is BOOL else b.add("ne", (node, b.const(np.zeros((), fmt.numpy), fmt)), shape, BOOL)
        count = b.add("cast", (mask,), shape, INT64)
        if shape:
            count = b.add("sum", (count,), (1,) * len(shape), INT64, dims=tuple(range(-len(shape), 0)))
        seen = float(np.count_nonzero(value))
        self.assume(count, seen, seen, "tf.where(mask)")

    def assume(self, node: int, low: float, high: float, what: str) -> None:
        """The graph holds only while the node's value stays within [low, high]."""
        if self.varies(node):
            self.recording.assumptions.append(Assumption(node, low, high, what, self.builder.place.site))

    def _assume_structure(self, op: Op, inputs: tuple[int, ...]) -> None:
        for position in STRUCTURAL.get(op.type, ()):
            if -len(inputs) <= position < len(inputs):
                self.assume_elements(inputs[position], f"a shape or an axis of {op.type}")
        if op.type == "Where":
            self._assume_count(inputs[0])


# ---------------------------------------------------------------- attributes


def attributes(type_: str, attrs: Mapping[str, Any]) -> dict[str, Any]:
    """An op's attributes as Python values, with the defaults of those that are not stated."""
    definition = op_def_registry.get(type_)
    found = {}
    for attr in definition.attr if definition is not None else ():
        if attr.name in attrs:
            found[attr.name] = _python(attr.type, attrs[attr.name])
        elif attr.HasField("default_value"):
            found[attr.name] = _python(attr.type, plain_attribute(attr.default_value))
    return found


def plain_attribute(value: Any) -> Any:
    """An attribute out of a graph in the form in which eager ops take it."""
    which = value.WhichOneof("value")
    if which == "list":
        parts = value.list
        for name in ("s", "i", "f", "b", "type", "shape", "tensor"):
            if getattr(parts, name):
                return list(getattr(parts, name))
        return []
    return value.func if which == "func" else getattr(value, which) if which else None


def _python(kind: str, value: Any) -> Any:
    if kind.startswith("list("):
        return [_python(kind[5:-1], v) for v in value] if isinstance(value, (list, tuple)) else value
    if kind == "type":
        dtype = tf.as_dtype(value)
        return FORMATS[dtype].name if dtype in FORMATS else dtype.name
    if kind == "shape":
        shape = tf.TensorShape(value)
        return None if shape.rank is None else tuple(-1 if d is None else int(d) for d in shape.as_list())
    return value.decode(errors="replace") if isinstance(value, bytes) else value


def _meta(tensor: Any) -> _Meta | None:
    fmt = format_of(tensor)
    return None if fmt is None else (tuple(tensor._shape_tuple()), fmt)


def _array(tensor: Any) -> Array:
    return np.asarray(tensor._numpy())


def _finite(value: Array | None) -> bool:
    return value is None or value.dtype.kind in "iub" or bool(np.isfinite(value).all())


def _truncated_alike(fmt: Format, x: float) -> tuple[float, float]:
    """The smallest and the largest number of the format that int() takes to the same integer as x (which is finite)."""
    whole = float(np.trunc(x))
    below, above = float(next_up(fmt, whole - 1)), float(next_down(fmt, whole + 1))
    return whole if whole > 0 else min(below, whole), whole if whole < 0 else max(above, whole)
