"""Recording the graph that a `tf.function` really runs: the one that Grappler has rewritten.

The rewritten graph is played node by node, each with TensorFlow's own kernel, and every node is recorded as an eager op would be.
Branches are switches and merges there: both sides are played, and a merge becomes a choice on the predicate. Loops are played as often
as they run; that the predicate stays what it was is an assumption.
"""

from collections.abc import Callable, Mapping, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.core.protobuf import config_pb2
from tensorflow.python.eager import context
from tensorflow.python.eager.execute import quick_execute
from tensorflow.python.framework import op_def_registry, tensor_util
from tensorflow.python.grappler import tf_optimizer
from tensorflow.python.training import saver

from whynan.errors import TargetError
from whynan.frontends.tensorflow.compiled import Compiled, Key
from whynan.frontends.tensorflow.places import Spot
from whynan.frontends.tensorflow.recorder import Op, Recorder, plain_attribute
from whynan.frontends.tensorflow.tensors import format_of
from whynan.ir.graph import FORWARD

LOOPS = 256  # a loop that runs more often is not unrolled: its results are unknown

_PASS = frozenset({"Enter", "Exit", "NextIteration", "LoopCond"})
_SILENT = frozenset({"NoOp", "PrintV2", "Print", "Assert", "_Retval", "_DeviceRetval"})
_Context = tuple[tuple[str, int], ...]  # the loops that a value belongs to, each with its iteration
_Condition = tuple[str, int]  # a predicate's tensor and the value under which a node is live


@dataclass(frozen=True, slots=True, eq=False)
class _Node:
    """A node of the optimised graph: data inputs as (node, result), control inputs as names, where it stands.

    `count` is how many results it has, `attrs` are its attributes, `given` the same as an eager op takes them, `constant` its tensor.
    """

    name: str
    type: str
    definition: Any
    inputs: tuple[tuple[str, int], ...]
    controls: tuple[str, ...]
    source: int
    spot: Spot
    derives: int
    count: int
    attrs: Mapping[str, Any]
    given: tuple[Any, ...]
    constant: Any


@dataclass(frozen=True, slots=True, eq=False)
class Optimised:
    """A graph after Grappler: nodes in order, the loops around each node, and the conditions under which each is live."""

    nodes: Mapping[str, _Node]
    feeds: tuple[str, ...]  # the names of the placeholders, arguments first, then what the function captures
    outputs: tuple[tuple[str, int], ...]
    frames: Mapping[str, tuple[str, ...]]
    live: Mapping[str, frozenset[_Condition]]


@dataclass(frozen=True, slots=True, eq=False)
class _Choice:
    """A value without a number format (a list, an optional) that a branch decides on, by the predicate."""

    predicate: Any
    on_false: Any
    on_true: Any


@dataclass(frozen=True, slots=True, eq=False)
class _Optional:
    """What `OptionalFromValue` wraps: tensors, choices, other optionals; `OptionalNone` gives dead values."""

    values: tuple[Any, ...]


class _Dead:
    """The result of an op that cannot run, in a branch that is not taken."""


_DEAD = _Dead()


def play(recorder: Recorder, graph: Optimised, tensors: Sequence[Any]) -> list[Any]:
    """Record a graph on these arguments (the step's, then what it captures); returns the step's results."""
    return _Player(recorder, graph, dict(zip(graph.feeds, tensors, strict=True))).results()


# ---------------------------------------------------------------- Grappler


def optimised(compiled: Compiled, tensors: Sequence[Any], fresh: Callable[[], AbstractContextManager[Any]]) -> Optimised:
    """The graph that TensorFlow makes of a traced step when it first runs it; for that it is run once here.

    `fresh` is a context that every run starts in alike: it restores variables and random generators. A graph is believed only if it
    gives, on these arguments, the results of the run. Raises TargetError if none does.
    """
    with fresh():
        real, found = _executed(compiled, tensors)
    arguments = [*tensors, *compiled.traced.captured_inputs]
    graph = None if found is None else _read(compiled, found)
    if graph is None or not (compiled.draws or _gives(graph, arguments, real, fresh)):
        graph = _read(compiled, _rewritten(compiled))
        if not _gives(graph, arguments, real, fresh):
            raise TargetError(
                "TensorFlow does not tell which graph it runs: no optimised graph gives the results of a real run.",
                "Check the loss in mode eager.",
            )
    return graph


_Ends = tuple[Any, tuple[str, ...], tuple[tuple[str, int], ...]]  # a graph, the names of its placeholders, the tensors of its results


def _read(compiled: Compiled, ends: _Ends) -> Optimised:
    definition, feeds, outputs = ends
    for inner in definition.library.function:
        if not context.context().has_function(inner.signature.name):
            context.context().add_function_def(inner)
    spots = _spots(compiled, definition.node, {name for name, _ in outputs[: compiled.losses]})
    sources = {key: i for i, (_, key) in reversed(list(enumerate(spots))) if key is not None}
    bare = {n.name: _node(n, i, spot, sources) for i, (n, (spot, _)) in enumerate(zip(definition.node, spots, strict=True))}
    nodes = _neighbourly(_sorted(bare))
    frames = _frames(nodes)
    return Optimised(nodes, feeds, outputs, frames, _conditions(nodes, frames))


def _gives(graph: Optimised, tensors: Sequence[Any], real: Sequence[Any], fresh: Callable[[], AbstractContextManager[Any]]) -> bool:
    """Whether a graph, played on these arguments, gives these results. One that cannot be played does not."""
    try:
        with fresh():
            played = _Player(Recorder(), graph, dict(zip(graph.feeds, tensors, strict=True)), muted=True).results()
    except (tf.errors.OpError, KeyError, IndexError, ValueError):
        return False
    return all(p is t or (isinstance(p, tf.Tensor) and _alike_results(p, t)) for p, t in zip(played, real, strict=True))


def _alike_results(one: Any, other: Any) -> bool:
    """Whether two tensors are of one type, are not finite in the same places, and agree elsewhere up to the order of summation.

    Kernels that are run one by one may add in another order than those of a fused or parallel program.
    """
    if one.dtype != other.dtype or one.shape != other.shape:
        return False
    a, b = np.asarray(one._numpy(), np.float64), np.asarray(other._numpy(), np.float64)
    finite = np.isfinite(a)
    if not np.array_equal(finite, np.isfinite(b)) or not np.array_equal(a[~finite], b[~finite], equal_nan=True):
        return False
    relative = 1e-3 if one.dtype in (tf.float32, tf.float64) else 0.05
    return np.allclose(a[finite], b[finite], rtol=relative, atol=relative * float(np.abs(b[finite]).max(initial=0.0)))


def _executed(compiled: Compiled, tensors: Sequence[Any]) -> tuple[list[Any], _Ends | None]:
    """The results of a run, and the graph that the runtime reports to have made for it; None if it reports none for this function."""
    ctx = context.context()
    ctx.enable_graph_collection()
    try:
        ctx.export_run_metadata()  # forgets the graphs of earlier runs
        ctx.clear_kernel_cache()
        real = list(compiled.traced(*tensors))
        reported = ctx.export_run_metadata().function_graphs
    finally:
        ctx.disable_graph_collection()
    return real, next((_ends(g.post_optimization_graph) for g in reported if _is_of(compiled.traced, g)), None)


def _is_of(function: Any, reported: Any) -> bool:
    """Whether reported graphs are those of a traced function: the same ops before Grappler, the same arguments and results after it."""
    own = {node.name: node for node in function.graph.as_graph_def().node}
    before = {node.name: node for node in reported.pre_optimization_graph.node if node.op not in _ENDS}
    arguments = {t.op.name for t in function.inputs}
    alike = all(name in own and _alike(node, own[name]) for name, node in before.items())
    if not alike or any(name not in before and name not in arguments for name in own):
        return False
    after = reported.post_optimization_graph.node
    ends = [sorted((n.attr["index"].i, n.attr["T"].type) for n in after if n.op in kinds) for kinds in _KINDS]
    return ends == [[(i, t.dtype.as_datatype_enum) for i, t in enumerate(known)] for known in (function.inputs, function.outputs)]


_KINDS = (("_Arg", "_DeviceArg"), ("_Retval", "_DeviceRetval"))
_ENDS = frozenset(name for names in _KINDS for name in names)


def _alike(one: Any, other: Any) -> bool:
    """Whether two nodes are the same op with the same attributes, apart from those of the runtime's own."""
    own = {name: value for name, value in other.attr.items() if not name.startswith("_")}
    return one.op == other.op and all(one.attr[name] == value for name, value in own.items() if name in one.attr)


def _ends(graph: Any) -> _Ends:
    feeds = {n.attr["index"].i: n.name for n in graph.node if n.op in _KINDS[0]}
    results = {n.attr["index"].i: _reference(n.input[0]) for n in graph.node if n.op in _KINDS[1]}
    return graph, tuple(feeds[i] for i in sorted(feeds)), tuple(results[i] for i in sorted(results))


def _rewritten(compiled: Compiled) -> _Ends:
    """The graph that Grappler makes when it is asked, which is nearly what the runtime makes."""
    function = compiled.traced
    meta = saver.export_meta_graph(graph_def=function.graph.as_graph_def(), graph=function.graph)
    fetches = meta.collection_def["train_op"].node_list.value
    fetches.extend(t.name for t in function.outputs)
    definition = tf_optimizer.OptimizeGraph(config_pb2.ConfigProto(), meta)
    return definition, tuple(t.op.name for t in function.inputs), tuple(_reference(t.name) for t in function.outputs)


def _spots(compiled: Compiled, nodes: Sequence[Any], losses: set[str]) -> list[tuple[Spot | None, Key | None]]:
    """Where each node stands, and the traced op that it stems from.

    An op of the gradient that equals one of the loss may have taken its place. What the loss needs is the loss's.
    """
    found = {n.name: compiled.spot(n.name) for n in nodes}
    inputs = {n.name: [_reference(i)[0] for i in n.input if not i.startswith("^")] for n in nodes}
    needed, pending = set(losses), list(losses)
    while pending:
        fresh = set(inputs[pending.pop()]) - needed
        needed |= fresh
        pending += fresh
    for n in nodes:
        spot, key = found[n.name]
        if spot is not None and spot.phase != FORWARD and n.name in needed:
            twin = compiled.twin(n.op, [found[i][1] for i in inputs[n.name]])
            found[n.name] = (compiled.at(twin), twin) if twin is not None else (Spot(FORWARD, spot.site, inner=spot.inner), key)
    return [found[n.name] for n in nodes]


def _sorted(nodes: dict[str, _Node]) -> dict[str, _Node]:
    """The nodes in an order in which each stands after its inputs, except for the way back in a loop."""
    done: dict[str, _Node] = {}
    stack = [(node, False) for node in reversed(nodes.values())]
    while stack:
        node, ready = stack.pop()
        if ready:
            done[node.name] = node
        elif node.name not in done:
            stack.append((node, True))
            before = [*(i for i, _ in node.inputs), *node.controls]
            stack += [(nodes[b], False) for b in before if b not in done and nodes[b].type != "NextIteration"]
    return done


def _node(definition: Any, source: int, spot: Spot | None, sources: Mapping[Key, int]) -> _Node:
    data = tuple(_reference(i) for i in definition.input if not i.startswith("^"))
    controls = tuple(i[1:] for i in definition.input if i.startswith("^"))
    derives = sources.get(spot.forward, -1) if spot is not None and isinstance(spot.forward, tuple) else -1
    place = spot or Spot("", None)
    attrs = {name: plain_attribute(value) for name, value in definition.attr.items()}
    kind, constant = op_def_registry.get(definition.op), None
    if definition.op == "Const":
        constant = tf.constant(tensor_util.MakeNdarray(attrs["value"]), attrs["dtype"])
    count, given = _count(kind, attrs), _given(kind, attrs)
    return _Node(definition.name, definition.op, definition, data, controls, source, place, derives, count, attrs, given, constant)


def _neighbourly(nodes: dict[str, _Node]) -> dict[str, _Node]:
    """Nodes that only the optimiser knows stand where their first input with a place stands, else where their first user does."""
    users: dict[str, list[str]] = {name: [] for name in nodes}
    for node in nodes.values():
        for name, _ in node.inputs:
            users[name].append(node.name)
    placed: dict[str, _Node] = {}
    for name, node in nodes.items():
        near = [placed[i].spot for i, _ in node.inputs if i in placed] + [nodes[u].spot for u in users[name]]
        spot = node.spot if node.spot.phase else next((s for s in near if s.phase), Spot(FORWARD, None))
        placed[name] = replace(node, spot=spot)
    return placed


def _reference(text: str) -> tuple[str, int]:
    name, _, index = text.partition(":")
    return name, int(index or 0)


def _frames(nodes: Mapping[str, _Node]) -> dict[str, tuple[str, ...]]:
    """The loops around each node, outermost first."""
    frames: dict[str, tuple[str, ...]] = {}
    pending = list(nodes.values())
    while pending:
        late = []
        for node in pending:
            before = [*(i for i, _ in node.inputs), *node.controls]
            known = [_after(nodes[b], frames[b]) for b in before if b in frames]
            if before and not known:
                late.append(node)
            else:
                outer = max(known, key=len, default=())
                frames[node.name] = (*outer, node.definition.attr["frame_name"].s.decode()) if node.type == "Enter" else outer
        if len(late) == len(pending):
            return {**frames, **{n.name: () for n in late}}
        pending = late
    return frames


def _after(node: _Node, frame: tuple[str, ...]) -> tuple[str, ...]:
    """The loops around what a node hands on."""
    return frame[:-1] if node.type == "Exit" else frame


def _conditions(nodes: Mapping[str, _Node], frames: Mapping[str, tuple[str, ...]]) -> dict[str, frozenset[_Condition]]:
    live: dict[str, frozenset[_Condition]] = {}
    for node in nodes.values():
        parts = [_under(nodes, live, i, index) for i, index in node.inputs if i in live]
        if node.type == "Merge":
            live[node.name] = frozenset.intersection(*parts) if parts else frozenset()
        else:
            live[node.name] = frozenset().union(*parts, *(live[c] for c in node.controls if c in live))
    return live


def _under(nodes: Mapping[str, _Node], live: Mapping[str, frozenset[_Condition]], name: str, index: int) -> frozenset[_Condition]:
    node = nodes[name]
    if node.type not in ("Switch", "_SwitchN") or _is_loop(nodes, node):
        return live[name]
    return live[name] | {(_text(node.inputs[1]), index)}


def _is_loop(nodes: Mapping[str, _Node], switch: _Node) -> bool:
    return nodes[switch.inputs[1][0]].type == "LoopCond"


def _text(reference: tuple[str, int]) -> str:
    return f"{reference[0]}:{reference[1]}"


# ---------------------------------------------------------------- playing


class _Player:
    """One playing of a graph: the tensors that each node gave, per iteration of the loops around it."""

    def __init__(self, recorder: Recorder, graph: Optimised, feeds: Mapping[str, Any], *, muted: bool = False) -> None:
        self._recorder = recorder
        self._graph = graph
        self._feeds = feeds
        self._done: dict[tuple[str, _Context], list[Any]] = {}
        self._trips: dict[tuple[str, _Context], int] = {}
        self._muted = muted  # whether nothing is recorded

    def results(self) -> list[Any]:
        """Play the whole graph; the tensors of its outputs."""
        for node in self._graph.nodes.values():
            if not self._graph.frames[node.name]:
                self._play(node, ())
        return [self._tensor(reference, ()) for reference in self._graph.outputs]

    def _tensor(self, reference: tuple[str, int], where: _Context) -> Any:
        node = self._graph.nodes[reference[0]]
        results = self._play(node, where)
        return results[reference[1]] if results else None

    def _play(self, node: _Node, where: _Context) -> list[Any]:
        frames = self._graph.frames[node.name]
        where = where[: len(frames)] if node.type != "Exit" else where
        key = (node.name, where)
        if key not in self._done:
            self._done[key] = self._fresh(node, where)
        return self._done[key]

    def _fresh(self, node: _Node, where: _Context) -> list[Any]:
        if node.name in self._feeds:
            return [self._feeds[node.name]]
        if node.type == "Const":
            return [node.constant]
        if node.type == "Exit":
            return self._exit(node, where)
        if node.type == "Enter":
            return [self._tensor(node.inputs[0], where[:-1])]
        if node.type == "Merge":
            return self._merge(node, where)
        if node.type == "Switch":
            return self._switch(node, where)
        if node.type.startswith("Optional"):
            return self._optional(node, where)
        if node.type == "_SwitchN":
            return [self._tensor(node.inputs[0], where)] * node.count
        if node.type in _PASS:
            return [self._tensor(node.inputs[0], where)]
        if node.type in _SILENT:
            return []
        return self._run(node, where)

    def _run(self, node: _Node, where: _Context) -> list[Any]:
        inputs = [self._tensor(i, where) for i in node.inputs]
        conditions = self._graph.live[node.name]
        taken = self._all_hold(conditions, where)
        definition = op_def_registry.get(node.type)
        writes = definition is not None and definition.is_stateful and not node.type.startswith(("Read", "Random", "Resource"))
        if node.type == "Identity" and _is_python(inputs[0]):
            return inputs
        if any(_is_python(t) for t in inputs) or (writes and not taken):
            return [_DEAD] * node.count
        try:
            outputs = list(quick_execute(node.type, node.count, inputs, node.given, context.context()))
        except tf.errors.OpError:
            if taken:
                raise
            return [_DEAD] * node.count
        if not self._muted:
            self._start(node, where)
            for op in _parts(Op(node.type, self._with_own_numbers(node, inputs), node.attrs, outputs)):
                self._recorder.op(op)
        return outputs

    def _with_own_numbers(self, node: _Node, inputs: list[Any]) -> list[Any]:
        """An op's tensors; numbers of the loss stand where this op does, though Grappler keeps one constant for all equal ones."""
        if node.spot.phase != FORWARD:
            return inputs
        sources = [self._graph.nodes[name] for name, _ in node.inputs]
        return [tf.identity(t) if s.type == "Const" and t.dtype.is_floating else t for s, t in zip(sources, inputs, strict=True)]

    def _optional(self, node: _Node, where: _Context) -> list[Any]:
        inputs = [self._tensor(i, where) for i in node.inputs]
        if node.type == "OptionalFromValue":
            return [_Optional(tuple(inputs))]
        if node.type == "OptionalGetValue" and isinstance(inputs[0], _Optional) and inputs[0].values:
            return list(inputs[0].values)
        return [_Optional(())] if node.type == "OptionalNone" else [_DEAD] * node.count

    def _start(self, node: _Node, where: _Context) -> None:
        serial = sum(iteration for _, iteration in where)
        source = node.source + serial * len(self._graph.nodes)
        self._recorder.start(node.type, node.spot, node.derives, source)

    def _holds(self, condition: _Condition, where: _Context) -> bool:
        predicate = self._tensor(_reference(condition[0]), where)
        return predicate is not _DEAD and int(predicate._numpy()) == condition[1]

    # ------------------------------------------------------------ branches

    def _switch(self, node: _Node, where: _Context) -> list[Any]:
        data, predicate = (self._tensor(i, where) for i in node.inputs)
        if isinstance(data, _Choice) and self._same(data.predicate, predicate):
            return [data.on_false, data.on_true]
        return [data, data]

    def _same(self, one: Any, other: Any) -> bool:
        """Whether two predicates are the same value of the program."""
        if other is _DEAD or self._muted:
            return other is not _DEAD and bool(one._numpy()) == bool(other._numpy())
        return self._recorder.node(one) == self._recorder.node(other)

    def _merge(self, node: _Node, where: _Context) -> list[Any]:
        previous = [i for i, _ in node.inputs if self._graph.nodes[i].type == "NextIteration"]
        if previous and where:
            frame, iteration = where[-1]
            if iteration:
                return [self._tensor((previous[0], 0), (*where[:-1], (frame, iteration - 1)))]
            return [self._tensor(next(r for r in node.inputs if r[0] not in previous), where)]
        return [self._joined(node, where), tf.constant(0)]

    def _joined(self, node: _Node, where: _Context) -> Any:
        """The value behind a branch: of both sides as far as they ran, chosen by the predicate."""
        sides = [_under(self._graph.nodes, self._graph.live, *i) for i in node.inputs]
        values = [self._tensor(i, where) for i in node.inputs]
        name = _deciding(sides)
        predicate: Any = _DEAD if name is None else self._tensor(_reference(name), where)
        if predicate is _DEAD or predicate.dtype != tf.bool:
            ran = (v for v, side in zip(values, sides, strict=True) if self._all_hold(side, where))
            return self._taken(node, where, predicate, next(ran, _DEAD))
        true_first = (name, 1) in sides[0] or (name, 0) in sides[1]
        on_true, on_false = values if true_first else values[::-1]
        taken, other = (on_true, on_false) if bool(predicate._numpy()) else (on_false, on_true)
        if isinstance(taken, (_Choice, _Optional)) or (taken is not _DEAD and format_of(taken) is None):
            return _Choice(predicate, on_false, on_true)
        if taken is _DEAD or self._muted:
            return taken
        return self._chosen(node, where, predicate, taken, (on_true, on_false), dead=other is _DEAD)

    def _all_hold(self, conditions: frozenset[_Condition], where: _Context) -> bool:
        return all(self._holds(c, where) for c in conditions)

    def _taken(self, node: _Node, where: _Context, predicate: Any, taken: Any) -> Any:
        """The value of the one of several branches that ran, which is so only for this value of the predicate."""
        if _is_python(taken) or _is_python(predicate) or self._muted:
            return taken
        self._start(node, where)
        self._recorder.assume_elements(self._recorder.node(predicate), "the branch of a tf.switch_case")
        return taken

    def _chosen(self, node: _Node, where: _Context, predicate: Any, taken: Any, sides: tuple[Any, Any], *, dead: bool) -> Any:
        self._start(node, where)
        result = tf.identity(taken)
        known = self._recorder.node(predicate)
        alike = not dead and sides[0].shape == sides[1].shape and sides[0].dtype == sides[1].dtype
        if self._recorder.varies(known) and alike:
            self._recorder.op(Op("SelectV2", [predicate, *sides], {}, [result]))
        else:
            self._recorder.assume_elements(known, "the branch of a tf.cond")
            self._recorder.put(result, self._recorder.node(taken))
        return result

    # ------------------------------------------------------------ loops

    def _exit(self, node: _Node, where: _Context) -> list[Any]:
        switch = self._graph.nodes[node.inputs[0][0]]
        frame = self._graph.frames[switch.name][-1]
        trips, muted = self._loop(frame, switch.inputs[1], where)
        value = self._tensor(switch.inputs[0], (*where, (frame, trips)))
        if not muted or self._muted or _is_python(value) or format_of(value) is None:
            return [value]
        result = tf.identity(value)
        self._start(node, where)
        entering = [n for n in self._graph.nodes.values() if n.type == "Enter" and self._graph.frames[n.name][-1] == frame]
        self._recorder.unknown("While", [self._tensor(n.inputs[0], where) for n in entering], [result])
        return [result]

    def _loop(self, frame: str, condition: tuple[str, int], where: _Context) -> tuple[int, bool]:
        """How often a loop runs, and whether that is too often to be unrolled."""
        if (frame, where) not in self._trips:
            self._trips[frame, where] = self._iterate(frame, condition, where)
        trips = self._trips[frame, where]
        return trips, trips > LOOPS

    def _iterate(self, frame: str, condition: tuple[str, int], where: _Context) -> int:
        outer, inside = self._muted, [n for n in self._graph.nodes.values() if frame in self._graph.frames[n.name][-1:]]
        try:
            for trip in range(10_000_000):
                self._muted = outer or trip >= LOOPS
                here = (*where, (frame, trip))
                predicate = self._tensor(condition, here)
                if not self._muted:
                    self._start(self._graph.nodes[condition[0]], here)
                    self._recorder.assume_elements(self._recorder.node(predicate), "how often a tf.while_loop runs")
                if not bool(predicate._numpy()):
                    return trip
                for node in inside:
                    if node.type != "Exit":
                        self._play(node, here)
        finally:
            self._muted = outer
        return 0


def _parts(op: Op) -> list[Op]:
    """The op itself, or those that Grappler has composed into it."""
    if op.type != "_UnaryOpsComposition":
        return [op]
    names = [name.decode() for name in op.attrs["op_names"]]
    found, x = [], op.inputs[0]
    for i, name in enumerate(names):
        y = op.outputs[0] if i == len(names) - 1 else quick_execute(name, 1, [x], ("T", op.attrs["T"]), context.context())[0]
        found.append(Op(name, [x], {"T": op.attrs["T"]}, [y]))
        x = y
    return found


def _is_python(value: Any) -> bool:
    """Whether a value is no tensor of TensorFlow's, so that no kernel can take it."""
    return value is _DEAD or isinstance(value, (_Choice, _Optional))


def _deciding(sides: Sequence[frozenset[_Condition]]) -> str | None:
    """The predicate whose values lead to the inputs of a merge."""
    common = frozenset.intersection(*sides)
    return next((name for name, _ in sorted(frozenset().union(*sides) - common)), None)


def _count(definition: Any, attrs: Mapping[str, Any]) -> int:
    """How many results a node of that kind and these attributes has."""
    total = 0
    for output in definition.output_arg if definition is not None else ():
        if output.number_attr:
            total += attrs[output.number_attr]
        elif output.type_list_attr:
            total += len(attrs[output.type_list_attr])
        else:
            total += 1
    return total


def _given(definition: Any, attrs: Mapping[str, Any]) -> tuple[Any, ...]:
    """The attributes of a node as an eager op takes them: names and values in turn."""
    found: list[Any] = []
    for attr in definition.attr if definition is not None else ():
        if attr.name in attrs:
            found += [attr.name, _executable(attr.type, attrs[attr.name])]
    return tuple(found)


def _executable(kind: str, value: Any) -> Any:
    """An attribute's value in the form that `quick_execute` takes: shapes as sizes, functions by name."""
    if kind == "shape":
        return None if value.unknown_rank else [d.size for d in value.dim]
    if kind == "list(shape)":
        return [_executable("shape", v) for v in value]
    return value.name if kind == "func" else value
