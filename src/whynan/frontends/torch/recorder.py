"""Recording: while a recorder is active, every aten op that runs becomes nodes of a graph, with the value the framework computed."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import replace
from sys import _getframe
from types import CodeType, TracebackType
from typing import Any

import numpy as np
import torch
from torch.overrides import TorchFunctionMode
from torch.utils._mode_utils import no_dispatch
from torch.utils._python_dispatch import TorchDispatchMode

from whynan.frontends.torch.calls import EMPTY, SAME, SILENT, Schema, schema_of
from whynan.frontends.torch.looks import Call, Looks, tensors_in
from whynan.frontends.torch.lower import Aten, Ref, lower
from whynan.frontends.torch.places import Places
from whynan.frontends.torch.storage import Memory, format_of, key_of, supported
from whynan.frontends.torch.tensors import to_array
from whynan.frontends.trace import Recording
from whynan.ir.dtype import Array, Format
from whynan.ir.graph import Place, Shape

# torch functions that hand out the elements without an aten op
_READS = {
    torch.Tensor.numpy: ".numpy()",
    torch.Tensor.tolist: ".tolist()",
    torch.Tensor.__array__: "numpy.asarray(tensor)",
    torch.Tensor.__dlpack__: "dlpack",
}
# torch functions that read values only to print them
_PRINTS = frozenset({torch.Tensor.__repr__, torch.Tensor.__format__})

# autograd nodes that take another form under a dispatch mode (see `derivatives`)
WATCHED_OTHERWISE = frozenset({"ProdBackward0", "ProdBackward1", "CumprodBackward0"})

# ops that overwrite a tensor with (a copy of) one argument
_SOURCES = {"copy": "src", "fill": "value"}

_Meta = tuple[Shape, Format]


class Recorder:
    """One capture: the graph so far, the value of each node, and what Python code looked at.

    Use it as a context around the run. `floors` are the code objects of the functions that call the target and autograd. `modes` makes
    the contexts that hand to the recorder what runs. `told` are outcomes of the looks in order, which the code is told instead of what it
    would see (`looks`).
    """

    def __init__(
        self,
        *floors: CodeType,
        modes: Callable[["Recorder"], Iterable[AbstractContextManager[Any]]] | None = None,
        told: Sequence[float] = (),
    ) -> None:
        self.recording = Recording()
        self.builder = self.recording.builder
        self.values = self.recording.values
        self.assumptions = self.recording.assumptions
        self.notes = self.recording.notes
        self._memory = Memory(self.builder)
        self._places = Places(floors)
        self._varies: list[bool] = []  # per node: whether its value depends on an input or on random numbers
        self._looks = Looks(self.recording, self._memory, self.varies, told)
        self._source = -1
        self._function: tuple[Any, tuple[Any, ...], Mapping[str, Any]] = (None, (), {})  # the torch function under way
        self._paused = False
        self._given: Place | None = None  # where the ops stand, if the caller knows better than the stack
        self.eager = modes is None
        self.corrected: set[int] = set()  # autograd nodes whose derivatives are put right afterwards (`derivatives`)
        self._watchers = modes or (lambda recorder: (_Functions(recorder), OpsMode(recorder)))
        self._modes = ExitStack()

    def __enter__(self) -> "Recorder":
        for watcher in self._watchers(self):
            self._modes.enter_context(watcher)
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self._modes.close()

    # ------------------------------------------------------------ the program's side

    def input(self, name: str, t: torch.Tensor, value: Array) -> int:
        """Make the tensor an input of the graph; returns its node."""
        node = self.builder.add("input", (), tuple(t.shape), format_of(t), name=name)
        self._memory.put(t, node)
        return self._valued(node, value)

    def node(self, t: torch.Tensor) -> int:
        """The node of the tensor's present value."""
        return self._memory.find(t)

    def place_of(self, t: torch.Tensor) -> Place:
        """Where the op stands that made the tensor's present value."""
        n = self.builder.nodes[self._memory.find(t)]
        return Place(n.phase, n.site, n.source, n.spelling, n.derives)

    def derivatives_of(self, functions: Iterable[Any]) -> None:
        """Note the expressions that called the given autograd nodes, whose derivatives are Python code."""
        sites = (self._places.forward(f) for f in functions)
        self.recording.handwritten |= {site: None for site in sites if site is not None}

    @property
    def calls(self) -> int:
        """How many framework calls there were so far; the next one has this number."""
        return self._source + 1

    def new_source(self) -> int:
        """The number of one more framework call."""
        self._source += 1
        return self._source

    @contextmanager
    def standing_at(self, place: Place) -> Iterator[None]:
        """Inside, all ops belong to that place (whose spelling is replaced by theirs)."""
        self._given = self.builder.place = place
        try:
            yield
        finally:
            self._given = None

    def opaque(self, name: str, inputs: Sequence[torch.Tensor], results: Any, **attrs: Any) -> None:
        """Tensors that something other than an aten op has made of the inputs: each is a node of the op `name` over all the inputs."""
        with no_dispatch():
            ids = tuple(self._memory.find(t) for t in inputs)
            for t in tensors_in(results):
                shape, fmt = _meta(t)
                node = self.builder.add(name, ids, shape, fmt, **attrs)
                value = to_array(t) if supported(t) else None
                self._memory.put(t, node if value is None else self._valued(node, value))

    def unproven(self, node: int, reason: str) -> int:
        """The node's value as something that nothing can be proven about, for that reason."""
        b = self.builder
        b.place = Place(spelling=reason)
        return self._valued(b.add(f"unknown:{reason}", (node,), b.shape(node), b.format(node)), self.values[node])

    def varies(self, node: int) -> bool:
        """Whether the node's value depends on an input or on random numbers."""
        for n in self.builder.nodes[len(self._varies) :]:
            self._varies.append(any(self._varies[i] for i in n.inputs) if n.inputs else n.op != "const")
        return self._varies[node]

    # ------------------------------------------------------------ the modes' side

    def op(self, op: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one aten op and record it."""
        if self._paused:
            return op(*args, **kwargs)
        schema = schema_of(op)
        self._enter(schema.spelling, 3)
        written = _tensors_of(schema, schema.written, args, kwargs)
        for t in written:
            self._memory.prepare(t)
        call = self._call(schema, args, kwargs)
        same = self._memory.seen(written[0]) if written and _overwrites(schema) else None
        args = self._looks.before(call, args)
        result = self._looks.after(call, args, op(*args, **kwargs), self._function)
        results = [result] if isinstance(result, torch.Tensor) else list(tensors_in(result))
        source = call.get(_SOURCES[schema.base]) if written and schema.base in _SOURCES else None
        if not written:
            self._compute(call, results)
            if schema.base in SILENT and call.get("training"):
                self._overwrite(call, _tensors_of(schema, SILENT[schema.base], args, kwargs))
        elif isinstance(source, Ref):
            self._copy(source.node, written[0], same)
        else:
            self._mutate(call, written, results)
        return result

    def function(self, function: Any, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Any:
        """Run one torch function or tensor method; the ops in it come to `op` by themselves."""
        outer, paused, ops = self._function, self._paused, self._source
        self._function, self._paused = (function, args, kwargs), paused or function in _PRINTS
        try:
            result = function(*args, **kwargs)
        finally:
            self._function, self._paused = outer, paused
        if self._source != ops:
            self._places.returned()
        what = _READS.get(function)
        if what is not None and not self._paused:
            self._enter(what, 3)
            with torch._C.DisableTorchFunction():
                self._looks.at_elements(args[0], what)
        return result

    # ------------------------------------------------------------ one call

    def _enter(self, spelling: str, depth: int) -> None:
        if self._given is not None:
            self.builder.place = replace(self._given, spelling=spelling)
            return
        self._source += 1
        phase, site, derives = self._places.here(_getframe(depth), self._source)
        self.builder.place = Place(phase, site, self._source, spelling, derives)

    def _call(self, schema: Schema, args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> Call:
        if schema.written:
            skipped = schema.written if _overwrites(schema) else schema.outs
            args = tuple(None if name in skipped else a for name, a in zip(schema.positions, args, strict=False))
            kwargs = {name: a for name, a in kwargs.items() if name not in skipped}
        tensors: list[torch.Tensor] = []
        inputs: list[int] = []
        ready = tuple([self._referred(a, tensors, inputs) for a in args])
        named = {name: self._referred(a, tensors, inputs) for name, a in kwargs.items()}
        return Call(schema, ready, named, tuple(inputs), all(supported(t) for t in tensors))

    def _referred(self, argument: Any, tensors: list[torch.Tensor], inputs: list[int]) -> Any:
        """The argument with a `Ref` for each tensor; tensors and their nodes are appended to the lists."""
        if isinstance(argument, torch.Tensor):
            node = self._memory.find(argument)
            tensors.append(argument)
            inputs.append(node)
            return Ref(node)
        if isinstance(argument, (tuple, list)):
            return type(argument)([self._referred(a, tensors, inputs) for a in argument])
        return argument

    def _compute(self, call: Call, results: list[torch.Tensor]) -> None:
        if all(self._memory.seen(t) is not None for t in results):
            return  # another view of what is known, such as detach()
        for t, node in zip(results, self._nodes(call, results), strict=True):
            self._memory.put(t, node)

    def _copy(self, source: int, t: torch.Tensor, before: int | None) -> None:
        if source == before:
            return  # `x[i] += y` ends in a copy of x[i] to itself
        node = self._fitted(source, (tuple(t.shape), format_of(t)))
        value = to_array(t) if node != source else None
        self._memory.write(t, node if value is None else self._valued(node, value))

    def _fitted(self, node: int, meta: _Meta) -> int:
        shape, fmt = meta
        if self.builder.format(node) != fmt:
            node = self.builder.add("cast", (node,), self.builder.shape(node), fmt)
        if self.builder.shape(node) != shape:
            node = self.builder.add("expand", (node,), shape, fmt)
        return node

    def _mutate(self, call: Call, written: list[torch.Tensor], results: list[torch.Tensor]) -> None:
        keys = [key_of(t) for t in written]
        if [key_of(t) for t in results] == keys:
            nodes = self._nodes(call, results)
        else:
            fresh = [t for t in results if key_of(t) not in keys]
            for t, node in zip(fresh, self._nodes(call, fresh), strict=True):
                self._memory.put(t, node)
            self._overwrite(call, written)
            return
        for t, node in zip(written, nodes, strict=True):
            self._memory.write(t, node)

    def _overwrite(self, call: Call, written: list[torch.Tensor]) -> None:
        for t, node in zip(written, self._unknown(call, [_meta(t) for t in written]), strict=True):
            self._memory.write(t, node)

    # ------------------------------------------------------------ the nodes of a call

    def _nodes(self, call: Call, results: list[torch.Tensor]) -> list[int]:
        """One node per result, by the simplest sufficient way: the same value, a constant, the table, unknown."""
        schema, metas = call.schema, [_meta(t) for t in results]
        inputs = call.inputs
        if self.eager and self._misleading():
            return self._unknown(call, metas)
        if schema.base in SAME and self._fits(inputs[:1], metas):
            return [inputs[0]]
        if schema.base in EMPTY:
            return [self.builder.const(np.zeros(shape, fmt.numpy), fmt) for shape, fmt in metas]
        arrays = [to_array(t) if supported(t) else None for t in results]
        known = [a for a in arrays if a is not None]
        if len(known) < len(arrays) or not call.plain:
            return self._unknown(call, metas)
        if not schema.random and not any(self.varies(i) for i in inputs) and not self._makes_nonfinite(inputs, known):
            nodes = [self.builder.const(a, fmt) for a, (_, fmt) in zip(known, metas, strict=True)]
        else:
            nodes = self._lowered(call, metas, known)
        if schema.random:
            self.notes["the loss draws random numbers: every run of it starts from the same seed"] = None
        return [self._valued(node, a) for node, a in zip(nodes, known, strict=True)]

    def _misleading(self) -> bool:
        """Whether this is inside a derivative that torch computes in another way when unwatched, and that nothing puts right."""
        node = torch._C._current_autograd_node()
        return node is not None and node.name() in WATCHED_OTHERWISE and node._sequence_nr() not in self.corrected

    def _makes_nonfinite(self, inputs: tuple[int, ...], results: list[Array]) -> bool:
        """Whether finite inputs gave a result that is not: a constant then, but the op is to blame."""
        if not inputs or all(_finite(a) for a in results):
            return False
        return all(_finite(self.values.get(i, self.builder.nodes[i].attrs.get("value"))) for i in inputs)

    def _lowered(self, call: Call, metas: list[_Meta], arrays: list[Array]) -> list[int]:
        start = len(self.builder.nodes)
        try:
            nodes = lower(self.builder, Aten(call.schema.name, call.args, call.kwargs, tuple(metas), tuple(arrays)))
            found = [n for n in nodes if n is not None]
            if self._fits(found, metas):
                return found
            reason = "its nodes do not have the shapes and formats of its results"
        except Exception as error:  # a defect of a lowering must not end the check: the op is unknown then, and the report says so
            reason = f"{type(error).__name__}: {error}"
        self.notes[f"{call.schema.spelling} could not be translated ({reason})"] = None
        del self.builder.nodes[start:], self._varies[start:]
        return self._unknown(call, metas)

    def _unknown(self, call: Call, metas: list[_Meta]) -> list[int]:
        inputs = call.inputs
        return [self.builder.add(f"unknown:{call.schema.name}", inputs, shape, fmt) for shape, fmt in metas]

    def _fits(self, nodes: Iterable[int], metas: list[_Meta]) -> bool:
        return [(self.builder.shape(n), self.builder.format(n)) for n in nodes] == metas

    def _valued(self, node: int, value: Array) -> int:
        self.values.setdefault(node, value)
        return node


class OpsMode(TorchDispatchMode):  # type: ignore[no-untyped-call]  # torch leaves its __init_subclass__ without types
    """Hands every aten op to the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()  # type: ignore[no-untyped-call]  # torch leaves it without types
        self._recorder = recorder

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return False  # the wrapper that this avoids imports torch._dynamo (a second) and costs two frames per op

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        with torch._C.DisableTorchFunction():  # what the recorder itself calls is not the loss's
            return self._recorder.op(func, args, kwargs or {})


class _Functions(TorchFunctionMode):
    """Hands every torch function that Python code calls to the recorder."""

    def __init__(self, recorder: Recorder) -> None:
        super().__init__()
        self._recorder = recorder

    def __torch_function__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        return self._recorder.function(func, args, kwargs or {})


def _overwrites(schema: Schema) -> bool:
    return schema.base in ("copy", "zero", "fill") and not schema.outs


def _tensors_of(schema: Schema, names: tuple[str, ...], args: tuple[Any, ...], kwargs: Mapping[str, Any]) -> list[torch.Tensor]:
    """The tensors among the arguments of those names."""
    if not names:
        return []
    given = dict(zip(schema.positions, args, strict=False)) | dict(kwargs)
    return [t for name in names for t in tensors_in(given.get(name))]


def _meta(t: torch.Tensor) -> _Meta:
    return tuple(t.shape), format_of(t)


def _finite(value: Array | None) -> bool:
    return value is None or value.dtype.kind in "iub" or bool(np.isfinite(value).all())
