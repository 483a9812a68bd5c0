"""From a parsed HLO module to nodes of the graph: every computation is written out where it is called.

`record` is the whole interface. A fusion becomes the instructions inside it (its kernel may contract products, see
`lower.contraction`), calls are inlined, loops with a known number of rounds unrolled, conditionals computed on all branches.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace

from whynan.frontends.hlo.lower import Kernel, Op, Operand, arrays, known, lower, unknown
from whynan.frontends.hlo.parse import Computation, Instruction, Metadata, Module, Types
from whynan.frontends.kit import Value, apply, where
from whynan.frontends.trace import Recording
from whynan.ir.graph import BACKWARD, FORWARD, Builder, Node, Place
from whynan.ir.where import Site

NOWHERE = Metadata()
MOST_ROUNDS = 1024  # of a loop
MOST_NODES = 5_000  # that one loop may add: the analysis looks at each of them


@dataclass(frozen=True, slots=True)
class Spot:
    """What a front end makes of an instruction's metadata.

    `forward` is a key that a forward operation and its derivative share (empty: none), `backward` says that the instruction belongs
    to a derivative. `written` is the canonical op that the source calls where the compiler has made several instructions of it.
    """

    site: Site | None = None
    forward: str = ""
    backward: bool = False
    written: str = ""


Place_ = Callable[[Metadata], Spot]


def record(recording: Recording, module: Module, arguments: Sequence[int], place: Place_, losses: int = 1) -> tuple[int, ...]:
    """Add the module's instructions to the recording and return a node for each array of the entry's result, in order.

    `arguments` are the nodes of the entry's parameters. Nodes that the first `losses` results need are forward, all others
    backward. What has no lowering becomes an `unknown:hlo.OPCODE` node.
    """
    builder = recording.builder
    run = _Run(recording, module, place, first=len(builder.nodes), source=_next_source(builder))
    operands = _bound(builder, [p.type for p in module.entry.parameters], arguments)
    result = run.computation(module.entry, operands, None)
    builder.place = Place()
    results = tuple(v.id for v in arrays(result))
    settle(builder, results[:losses], run.spots, run.first)
    return results


def _next_source(builder: Builder) -> int:
    return 1 + max((n.source for n in builder.nodes), default=-1)


def _bound(builder: Builder, types: Sequence[Types], nodes: Sequence[int]) -> list[Operand]:
    """The nodes as operands of these types."""
    rest = iter(nodes)

    def take(kind: Types) -> Operand:
        return tuple(take(k) for k in kind) if isinstance(kind, tuple) else Value(builder, next(rest))

    return [take(kind) for kind in types]


# ---------------------------------------------------------------- writing out


@dataclass(slots=True)
class _Run:
    """One recording: what it writes to, and what it has learnt about the sources it has numbered."""

    recording: Recording
    module: Module
    place: Place_
    first: int
    source: int
    kernels: int = 0
    spots: dict[int, Spot] = field(default_factory=dict)
    origins: dict[str, dict[str, Metadata]] = field(default_factory=dict)

    @property
    def builder(self) -> Builder:
        """The builder that nodes go to."""
        return self.recording.builder

    def computation(
        self, computation: Computation, operands: Sequence[Operand], kernel: Kernel | None, around: Metadata = NOWHERE
    ) -> Operand:
        """Write out a computation. Without a kernel every instruction is one of its own; `around` is where the caller stands."""
        if computation.name not in self.origins:
            self.origins[computation.name] = _origins(computation)
        origins = self.origins[computation.name]
        types = {i.name: i.type for i in computation.instructions}
        values: dict[str, Operand] = {}
        for instruction in computation.instructions:
            if instruction.opcode == "parameter":
                values[instruction.name] = operands[int(instruction.literal)]
                continue
            own = origins.get(instruction.name) or around
            self._move_to(own, instruction)
            inputs = tuple(values.get(name, ()) for name in instruction.operands)
            kinds = tuple(types.get(name, ()) for name in instruction.operands)
            values[instruction.name] = self._instruction(instruction, inputs, kinds, kernel, own)
        return values[computation.root.name]

    def _move_to(self, metadata: Metadata, instruction: Instruction) -> None:
        """Give the nodes that follow the place of an instruction, and a source number of their own."""
        spot = self.place(metadata)
        self.spots[self.source] = spot
        self.builder.place = Place(FORWARD, spot.site, self.source, f"hlo.{instruction.opcode}")
        self.source += 1

    def _instruction(
        self, instruction: Instruction, inputs: tuple[Operand, ...], types: tuple[Types, ...], kernel: Kernel | None, origin: Metadata
    ) -> Operand:
        inner = kernel or self._kernel(instruction.opcode in ("fusion", "call"))
        op = Op(
            self.builder,
            self.module,
            instruction,
            inputs,
            types,
            inner,
            lambda name, operands: self.computation(self.module.computations[name], operands, inner, origin),
            lambda text: self.recording.notes.setdefault(text),
        )
        if instruction.opcode == "fusion":
            return op.inline(op.called("calls").name, inputs)
        if instruction.opcode in ("call", "async-start") and "to_apply" in instruction.attributes:
            return op.inline(op.called().name, inputs)
        if instruction.opcode == "map":
            return op.inline(op.called().name, inputs)
        if instruction.opcode == "conditional":
            return self._conditional(op)
        if instruction.opcode == "while":
            return self._loop(op, kernel, origin)
        return lower(op)

    def _kernel(self, fused: bool) -> Kernel:
        self.kernels += 1
        return Kernel(self.kernels, len(self.builder.nodes), fused)

    # ------------------------------------------------------------ branches and loops

    def _conditional(self, op: Op) -> Operand:
        """All branches, and from each result the one that the index names; an index out of range means the last."""
        names = _branches(op.instruction)
        index = op[0]
        chosen = known(index)
        if chosen is not None:
            n = int(not chosen) if index.format.kind == "bool" else int(chosen)
            n = n if 0 <= n < len(names) else len(names) - 1
            return op.inline(names[n], [op.operands[1 + n]])
        results = [op.inline(name, [operand]) for name, operand in zip(names, op.operands[1:], strict=True)]
        out = results[-1]
        for n in range(len(results) - 2, -1, -1):
            out = _either_one(index if index.format.kind == "bool" else apply("eq", index, n), results[n], out)
        return out

    def _loop(self, op: Op, kernel: Kernel | None, origin: Metadata) -> Operand:
        """The rounds one after the other, as long as the condition is known; unknown nodes if it depends on values."""
        condition, body = op.called("condition"), op.called("body")
        state, start = op.operands[0], len(self.builder.nodes)
        for _ in range(MOST_ROUNDS):
            (going,) = arrays(self.computation(condition, [state], kernel, origin))
            more = known(going)
            if more is None or len(self.builder.nodes) - start > MOST_NODES:
                return unknown(op)
            if not more:
                return state
            state = self.computation(body, [state], kernel, origin)
        return unknown(op)


def _either_one(condition: Value, a: Operand, b: Operand) -> Operand:
    if isinstance(a, tuple) and isinstance(b, tuple):
        return tuple(_either_one(condition, x, y) for x, y in zip(a, b, strict=True))
    assert isinstance(a, Value) and isinstance(b, Value)
    return a if a.id == b.id else where(condition, a, b)


def _branches(instruction: Instruction) -> list[str]:
    attributes = instruction.attributes
    if "branch_computations" in attributes:
        return [name.strip().lstrip("%") for name in attributes["branch_computations"].strip("{}").split(",")]
    return [attributes[key].lstrip("%") for key in ("true_computation", "false_computation")]


def _origins(computation: Computation) -> dict[str, Metadata]:
    """Each instruction's metadata; one that has none (the compiler made it) takes that of the first instruction that reads it."""
    out: dict[str, Metadata] = {}
    for instruction in reversed(computation.instructions):
        if instruction.metadata.op_name or instruction.metadata.frames:
            out[instruction.name] = instruction.metadata
        if instruction.name in out:
            out.update(dict.fromkeys(instruction.operands, out[instruction.name]))
    return out


# ---------------------------------------------------------------- forward and backward


def settle(builder: Builder, losses: Sequence[int], spots: Mapping[int, Spot], first: int = 0) -> None:
    """Mark what the losses do not need as backward, and connect it with the forward instructions it is the derivative of.

    `spots` are by source number; nodes before the `first` stay as they are.
    """
    nodes = builder.nodes
    needed = set(losses)
    for node in reversed(nodes[first:]):
        if node.id in needed:
            needed.update(node.inputs)
    forward = _forward_sources(nodes[first:], needed, spots)
    for node in nodes[first:]:
        written = spots[node.source].written if node.source in spots and node.op not in PLAIN else ""
        if node.id in needed and written:
            nodes[node.id] = replace(node, attrs={**node.attrs, "written_as": written})
        if node.id not in needed:
            derives = _derives(nodes, node, forward, spots)
            nodes[node.id] = replace(node, phase=BACKWARD, derives=derives)


@dataclass(slots=True)
class _Source:
    """A forward instruction: its number, the ops it was lowered to, what it reads and what it gives."""

    number: int
    ops: set[str] = field(default_factory=set)
    inputs: set[int] = field(default_factory=set)
    results: set[int] = field(default_factory=set)


PLAIN = frozenset({"const", "reshape", "expand", "permute", "slice", "concat", "pad", "cast", "flip"})


def _forward_sources(nodes: Sequence[Node], needed: set[int], spots: Mapping[int, Spot]) -> dict[str, dict[int, _Source]]:
    """Forward instructions by the key they share with their derivatives."""
    out: dict[str, dict[int, _Source]] = {}
    for node in nodes:
        spot = spots.get(node.source)
        if node.id not in needed or spot is None or not spot.forward or node.op in PLAIN:
            continue
        source = out.setdefault(spot.forward, {}).setdefault(node.source, _Source(node.source))
        source.ops.add(node.op)
        source.inputs.update(node.inputs)
        source.results.add(node.id)
    return out


# forward ops whose derivative holds an operation of that kind
DERIVATIVES: Mapping[str, tuple[str, ...]] = {
    "div": ("log", "log1p", "sqrt", "div", "cbrt", "atan2", "acos", "asin", "pow", "atanh", "acosh", "asinh"),
    "rsqrt": ("sqrt", "rsqrt", "acos", "asin", "acosh", "asinh"),
    "sqrt": ("acos", "asin", "sqrt"),
    "pow": ("pow",),
    "log": ("pow",),
    "exp": ("exp", "expm1", "sigmoid"),
    "where": ("where", "pow", "abs", "sign", "maximum", "minimum", "clamp", "amax", "amin"),
    "mul": ("exp", "mul", "square", "pow", "div", "sqrt", "rsqrt", "tanh", "sigmoid", "where"),
    "sum": ("expand",),
}


def _derives(nodes: Sequence[Node], node: Node, forward: Mapping[str, Mapping[int, _Source]], spots: Mapping[int, Spot]) -> int:
    """The forward instruction that a backward node most likely differentiates: of those at the same place, the one that fits best."""
    spot = spots.get(node.source)
    candidates = forward.get(spot.forward, {}) if spot is not None and spot.forward else {}
    if not candidates:
        return -1
    read = set(_seen_through(nodes, node))
    likely = DERIVATIVES.get(node.op, ())

    def fit(source: _Source) -> tuple[bool, bool, int]:
        near = bool(read & (source.inputs | source.results))
        fits = bool(source.ops & set(likely))
        return near and fits, near or fits, source.number

    return max(candidates.values(), key=fit).number


def _seen_through(nodes: Sequence[Node], node: Node) -> Iterator[int]:
    """What a node reads, and what that shows where it only moves elements."""
    for i in node.inputs:
        yield i
        while nodes[i].op in PLAIN and nodes[i].inputs:
            i = nodes[i].inputs[0]
            yield i
