"""A step traced into a graph, once per signature: what `tf.function` runs, and where in the source each of the graph's ops stands."""

import re
from collections.abc import Callable, Mapping, Sequence
from sys import _getframe
from typing import Any

import numpy as np
import tensorflow as tf
from tensorflow.python.framework import op_callbacks
from tensorflow.python.framework.ops import SymbolicTensor

from whynan.frontends.hlo.literals import constants
from whynan.frontends.hlo.parse import Module, parse
from whynan.frontends.tensorflow.addends import addends
from whynan.frontends.tensorflow.derivatives import Derivatives, Found
from whynan.frontends.tensorflow.places import Places, Spot
from whynan.frontends.tensorflow.session import DRAWING
from whynan.frontends.tensorflow.step import Step, call, differentiate, no_loss
from whynan.frontends.tensorflow.tensors import to_tensor
from whynan.ir.dtype import Array
from whynan.ir.graph import FORWARD, Addend
from whynan.ir.where import Site

# what Grappler puts before the name of an op when it makes another one of it
_GRAPPLER = re.compile(r"(^|/)(?:ArithmeticOptimizer/[A-Za-z0-9]+_|ConstantFolding/)")

Key = tuple[int, str]  # an op: the number of its graph and its name


class Compiled:
    """A step as one `tf.function`. `body` takes the tensors of the arguments `names` in that order.

    `graphs` and `spots` are what all steps of a program know of graphs that have been traced: TensorFlow traces a function only once.
    """

    def __init__(
        self, body: Callable[..., Step], names: tuple[str, ...], graphs: list[Any], spots: dict[int, dict[str, Spot]], *, jit: bool
    ) -> None:
        self.names = names
        self.jit = jit
        self.handwritten: dict[Site, None] = {}
        self.added: dict[Addend, None] = {}  # the small constants that the source adds
        self.cache: Any = None  # what a recording makes of the graph, which is the same for all inputs
        self._body = body
        self._result: Any = None
        self._order: tuple[str, ...] = ()
        self._function = tf.function(self._traced, autograph=False, jit_compile=jit or None)
        self._concrete: Any = None
        self._draws: bool | None = None
        self._spots = spots
        self._callees: dict[int, dict[str, dict[str, Any]]] = {}
        self._twins: dict[tuple[str, frozenset[Key | None]], Key] | None = None
        self._graphs = graphs  # kept alive, for their numbers

    @property
    def draws(self) -> bool:
        """Whether a run must be seeded: it is yet to be traced, or its ops draw random numbers."""
        if self._draws is None:
            if self._concrete is None:
                return True
            ops = (op.type for graph in self._graphs for op in graph.get_operations())
            self._draws = any(type_ in DRAWING or type_.startswith("StatelessRandom") for type_ in ops)
        return self._draws

    @property
    def traced(self) -> Any:
        """The traced function, after `concrete` has made it."""
        return self._concrete

    def run(self, inputs: Mapping[str, Array]) -> Step:
        """Run the step. Raises what it raises while it is traced or run."""
        concrete = self.concrete(inputs)
        return self.step(concrete(*self.tensors(inputs)))

    def tensors(self, inputs: Mapping[str, Array]) -> list[tf.Tensor]:
        """The arguments as tensors, in order."""
        return [to_tensor(np.asarray(inputs[name])) for name in self.names]

    def compiler_ir(self, tensors: Sequence[Any]) -> Module:
        """XLA's optimised program; its text leaves out the elements of large constants, which the serialised form has."""
        ir = self._function.experimental_get_compiler_ir(*tensors)
        text = str(ir(stage="optimized_hlo"))
        left_out = "constant({...})" in text
        return parse(text, constants(ir(stage="optimized_hlo_serialized")) if left_out else {})

    @property
    def losses(self) -> int:
        """How many of the results, the first ones, are parts of the loss."""
        return len(self._concrete.outputs) - len(self._order)

    def _specified(self, inputs: Mapping[str, Array]) -> list[tf.TensorSpec]:
        given = zip(self.names, self.tensors(inputs), strict=True)
        return [tf.TensorSpec(t.shape, t.dtype, name=name if name.isidentifier() else None) for name, t in given]

    def step(self, outputs: Sequence[Any]) -> Step:
        """The results of the graph, in order, as parts of the loss and gradients."""
        parts = outputs[: len(outputs) - len(self._order)]
        return Step(parts, dict(zip(self._order, outputs[len(parts) :], strict=True)), self._result)

    def concrete(self, inputs: Mapping[str, Array]) -> Any:
        """The traced function; traced on the first call, while every op's place in the source is noted."""
        if self._concrete is None:
            places = Places(call.__code__, differentiate.__code__)
            watch = self._watch(places)
            derivatives = Derivatives(places, self._find, lambda t: self._meet(places, t))
            op_callbacks.add_op_callback(watch)
            try:
                with derivatives:
                    self._concrete = self._function.get_concrete_function(*self._specified(inputs))
            finally:
                op_callbacks.remove_op_callback(watch)
            self.handwritten = derivatives.handwritten
            self.added = dict.fromkeys(addends(self._concrete, self._calls, lambda key: self._spots.get(key[0], {}).get(key[1])))
        return self._concrete

    # ------------------------------------------------------------ tracing

    def _traced(self, *tensors: tf.Tensor) -> list[Any]:
        taken = self._body(*tensors)
        if not taken.parts:
            raise TypeError(no_loss(taken.result))
        self._result, self._order = None, tuple(taken.gradients)
        return [*taken.parts, *taken.gradients.values()]

    def _watch(self, places: Places) -> Callable[..., None]:
        def watch(op_type: Any, inputs: Any, attrs: Any, outputs: Any, op_name: Any = None, graph: Any = None) -> None:
            if graph is not None and outputs:
                self._table(graph)[outputs[0].op.name] = places.here(_getframe(1))

        return watch

    def _meet(self, places: Places, tensor: Any) -> None:
        if isinstance(tensor, SymbolicTensor) and tensor.op.name not in self._table(tensor.graph):
            self._table(tensor.graph)[tensor.op.name] = places.here(_getframe(2))

    def _table(self, graph: Any) -> dict[str, Spot]:
        if id(graph) not in self._spots:
            self._spots[id(graph)] = {}
            self._graphs.append(graph)
        return self._spots[id(graph)]

    def _find(self, tensor: Any) -> Found | None:
        """The op that made a tensor, and where it stands; of one that only hands a tensor on, the op before it."""
        if not isinstance(tensor, SymbolicTensor):
            return None
        spot = self._spots.get(id(tensor.graph), {}).get(tensor.op.name)
        while tensor.op.type in ("Identity", "IdentityN") and isinstance(tensor.op.inputs[tensor.value_index], SymbolicTensor):
            tensor = tensor.op.inputs[tensor.value_index]
        return None if spot is None else ((id(tensor.graph), tensor.op.name), spot.site)

    # ------------------------------------------------------------ places afterwards

    def spot(self, name: str) -> tuple[Spot | None, Key | None]:
        """Where the op of that name in the optimised graph stands, and the traced op that it stems from.

        A compiler puts what it makes of a called function below the call's name, and derives the names of new ops from old ones.
        """
        if self._concrete is None:
            return None, None
        parts = _GRAPPLER.sub(r"\1", name).split("/")
        found = next((f for end in range(len(parts), 0, -1) if (f := self._inside(self._concrete.graph, parts[:end]))), None)
        for start in range(len(parts)):
            if found is not None:
                break
            found = self._anywhere("/".join(parts[start:]))
        if found is None:
            return None, None
        return self.at(found), found

    def _inside(self, graph: Any, parts: list[str]) -> Key | None:
        """The op of that path: one of the graph's own, or one of a function that an op of the graph calls."""
        if "/".join(parts) in self._spots.get(id(graph), {}):
            return id(graph), "/".join(parts)
        for end in range(len(parts) - 1, 0, -1):
            calls = self._calls(graph).get("/".join(parts[:end]), {})
            for called in [calls[parts[end]]] if parts[end] in calls else calls.values():
                for start in range(end, len(parts)):
                    found = self._inside(called, parts[start:])
                    if found is not None:
                        return found
        return None

    def twin(self, type_: str, inputs: Sequence[Key | None]) -> Key | None:
        """The traced op of the loss itself that does the same as one of its gradient's: of that type, on the same inputs in any order."""
        if self._twins is None:
            self._twins = {}
            for graph in self._graphs:
                for op in graph.get_operations():
                    spot = self._spots[id(graph)].get(op.name)
                    if spot is not None and spot.phase == FORWARD:
                        self._twins[op.type, frozenset((id(graph), t.op.name) for t in op.inputs)] = (id(graph), op.name)
        return None if None in inputs else self._twins.get((type_, frozenset(inputs)))

    def at(self, key: Key) -> Spot:
        """Where a traced op stands."""
        return self._spots[key[0]][key[1]]

    def _calls(self, graph: Any) -> dict[str, dict[str, Any]]:
        """The graphs of the functions that each op of a graph names, by the part of the path that a compiler gives each."""
        if id(graph) not in self._callees:
            found = {node.name: _called(graph, node) for node in graph.as_graph_def().node}
            self._callees[id(graph)] = {name: called for name, called in found.items() if called}
        return self._callees[id(graph)]

    def _anywhere(self, text: str) -> Key | None:
        """The op whose name is the text, or the longest one that the text ends or begins with."""
        candidates = [text, *(text[i + 1 :] for i, c in enumerate(text) if c in "_-"), *_shortened(text)]
        for candidate in sorted(dict.fromkeys(candidates), key=len, reverse=True):
            for name in (candidate, *_shortened(candidate)):
                for graph in self._graphs:
                    if name in self._spots[id(graph)]:
                        return id(graph), name
        return None


def _shortened(text: str) -> list[str]:
    """The text without its last words: "sub_recip" as "sub"."""
    return [text[:i] for i, c in reversed(list(enumerate(text))) if c in "_-" and i]


def _called(graph: Any, node: Any) -> dict[str, Any]:
    """The graphs of the functions that a node names in its attributes, by "then", "else", "body", "branch1" and the like."""
    named = {name.removesuffix("_branch"): value.func.name for name, value in node.attr.items() if value.HasField("func")}
    named |= {f"branch{i}": f.name for value in node.attr.values() for i, f in enumerate(value.list.func)}
    functions = {label: graph._get_function(name) for label, name in named.items()}
    return {label: f.graph for label, f in functions.items() if hasattr(f, "graph")}
