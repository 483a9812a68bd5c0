"""Mode eager: the step run op by op for real, each op that JAX compiles as a unit recorded from that unit's own HLO.

JAX sends every primitive to the current trace. `Recorder` stands where JAX's evaluation does: the derivatives are built on top of it
as they are on top of evaluation, so it sees the ops that really run, with their values, also where Python code looks at these.
"""

from collections.abc import Hashable, Mapping, Sequence
from dataclasses import dataclass, replace
from sys import _getframe
from types import FrameType
from typing import Any

import jax
import numpy as np

from whynan.frontends.hlo.parse import Metadata, Module, parse
from whynan.frontends.hlo.record import Spot, record, settle
from whynan.frontends.jax.arrays import format_of, plain_array, x64_enabled
from whynan.frontends.jax.ending import Recorded, add_inputs
from whynan.frontends.jax.inside import core, hlo_text, jitted_primitive, nowhere, showing, source_info
from whynan.frontends.jax.jaxpr import Traced, traced
from whynan.frontends.jax.places import UNIT, frames_of, functions_of, in_own_rule, inside, key_of, site_of
from whynan.frontends.jax.step import Target, caller, step_of
from whynan.frontends.trace import Recording
from whynan.ir.dtype import BOOL, FLOAT32, INT64, Array, flushed
from whynan.ir.graph import Assumption, Builder, Place
from whynan.ir.where import Site

# primitives that JAX itself evaluates op by op
_UNFOLDED = ("checkpoint", "remat", "remat2", "closed_call", "core_closed_call")


@dataclass(frozen=True, slots=True, eq=False)
class Unit:
    """What JAX compiles at once: the program of one primitive for one kind of arguments."""

    executable: Any
    module: Module
    inner: bool = True  # whether there are functions inside, whose own frames say where an instruction stands


Units = dict[Hashable, Unit]


def run_eagerly(
    target: Target, name: str, arrays: Mapping[str, Array], static: Mapping[str, Any], wrt: tuple[str, ...]
) -> tuple[list[Any], list[Any]]:
    """The loss's floating results and the gradients by `wrt`, computed op by op."""
    names = tuple(arrays)
    return step_of(caller(target, static, names), names, wrt, name)(*map(jax.numpy.asarray, arrays.values()))


def recorded_eagerly(
    target: Target,
    name: str,
    given: Mapping[str, Array],
    arrays: Mapping[str, Array],
    static: Mapping[str, Any],
    wrt: tuple[str, ...],
    units: Units,
) -> tuple[Recorded, tuple[list[Array], list[Array]]]:
    """The step as nodes, with its results; `units` keeps what was compiled. Raises what the loss raises."""
    names = tuple(arrays)
    loss = caller(target, static, names)
    known = traced(loss, list(arrays.values()))
    recorder = Recorder(units, known)
    inputs, arguments = add_inputs(recorder.recording.builder, given, arrays)
    means = {site: _mean_of_nothing(recorder.recording.builder, site) for site in known.empty}
    first = len(recorder.recording.builder.nodes)
    values = [Value(recorder, jax.numpy.asarray(arrays[n]), arguments[n]) for n in names]
    with core.set_current_trace(recorder), showing(target):
        losses, gradients = step_of(loss, names, wrt, name)(*values)
    recorder.recording.handwritten |= dict.fromkeys(known.handwritten)
    nodes = [recorder.node(x) for x in losses], [recorder.node(x) for x in gradients]
    recorder.settle([*nodes[0], *(a.node for a in recorder.recording.assumptions)], first)
    _unfold(recorder.recording.builder, means, first)
    done = Recorded(recorder.recording, inputs, nodes[0], dict(zip(wrt, nodes[1], strict=True)))
    return done, ([_array(x) for x in losses], [_array(x) for x in gradients])


def _mean_of_nothing(builder: Builder, site: Site) -> int:
    builder.place = Place(site=site)
    return builder.add("mean", (builder.const(np.empty(0, np.float32), FLOAT32),), (1,), FLOAT32, dims=(-1,))


def _unfold(builder: Builder, means: Mapping[Site, int], first: int) -> None:
    """Show each NaN from node `first` on that the compiler has made of a mean of no elements as that mean."""
    for node in builder.nodes[first:]:
        mean = means.get(node.site) if node.site is not None and node.op == "const" else None
        if mean is not None and np.isnan(node.attrs["value"].astype(np.float64)).all():
            builder.nodes[node.id] = replace(node, op="expand" if node.shape else "reshape", inputs=(mean,), attrs={})


class Value(core.Tracer):  # type: ignore[misc]  # JAX's own classes are not public
    """An array that a recorder follows: its value and its node."""

    __slots__ = ("node", "value")

    def __init__(self, trace: "Recorder", value: Any, node: int) -> None:
        super().__init__(trace, core.typeof(value))
        self.value = value
        self.node = node

    def to_concrete_value(self) -> Any:
        """The array, for Python code that looks at it. JAX asks in this way too whether there is one: that is no look."""
        frame: FrameType | None = _getframe(1)
        while frame is not None and frame.f_code.co_name == "to_concrete_value":
            frame = frame.f_back
        asked = frame.f_code.co_name if frame is not None else ""
        refused = asked == "__index__" and self.dtype.kind not in "iu"  # whatever the value: only an integer can be an index
        if asked != "is_concrete" and not refused:
            self._trace.look(self)
        return self.value

    def __array__(self, *given: Any, **named: Any) -> Array:
        self._trace.look(self)
        return np.asarray(self.value).__array__(*given, **named)

    def __float__(self) -> float:
        self._trace.look(self)
        return float(self.value)

    def tolist(self) -> Any:
        """The elements, which Python code then knows."""
        self._trace.look(self)
        return self.value.tolist()


class Recorder(core.Trace):  # type: ignore[misc]  # as above
    """Evaluates every primitive for real and records it, where an argument depends on the inputs."""

    __slots__ = ("_looked", "_loss", "_spots", "_units", "random_is_given", "recording", "ruled", "scopes")

    def __init__(self, units: Units, loss: Traced) -> None:
        super().__init__()
        self._loss = loss
        self.recording = Recording()
        self._units = units
        self._spots: dict[int, Spot] = {}  # by the source number of an instruction
        self._looked: set[int] = set()
        self.scopes: dict[int, str] = {}  # the name scopes that an instruction stands in, by its source number
        self.random_is_given = False  # whether what is drawn is a constant, and how it is drawn no part of the recording
        self.ruled: set[int] = set()  # source numbers of what a derivative's rule of the user's has computed

    def process_primitive(self, primitive: Any, tracers: Sequence[Any], params: dict[str, Any], /) -> Any:
        """Run and record one primitive."""
        values = [_value(t) for t in tracers]
        if not any(isinstance(t, Value) for t in tracers):
            with core.eval_context():
                return primitive.bind(*values, **params)
        if self.random_is_given and _draws(values):
            with core.eval_context():
                return primitive.bind(*values, **params)
        if primitive.name in _UNFOLDED:
            jaxpr = params["jaxpr"] if "jaxpr" in params else params["call_jaxpr"]
            with core.set_current_trace(self):
                return core.eval_jaxpr(getattr(jaxpr, "jaxpr", jaxpr), getattr(jaxpr, "consts", ()), *tracers)
        unit = self._unit(primitive, params, values)
        results = unit.executable(*values)
        nodes = self._record(unit, [self.node(t) for t in tracers], jax.tree.leaves(results))
        wrapped = [Value(self, r, n) for r, n in zip(jax.tree.leaves(results), nodes, strict=True)]
        return wrapped if primitive.multiple_results else wrapped[0]

    def stage_value(self, value: Any) -> Any:
        """A value that needs no recording stays as it is."""
        return value

    def process_call(self, primitive: Any, f: Any, tracers: Sequence[Any], params: Any, /) -> Any:
        """A function that is called: op by op."""
        with core.set_current_trace(self):
            return f.call_wrapped(*tracers)

    def process_custom_jvp_call(self, primitive: Any, fun: Any, jvp: Any, tracers: Sequence[Any], /, **_: Any) -> Any:
        """A function with a derivative of its own, not differentiated: op by op."""
        with core.set_current_trace(self):
            return fun.call_wrapped(*tracers)

    def process_custom_vjp_call(self, primitive: Any, fun: Any, fwd: Any, bwd: Any, tracers: Sequence[Any], /, **_: Any) -> Any:
        """As `process_custom_jvp_call`."""
        with core.set_current_trace(self):
            return fun.call_wrapped(*tracers)

    def node(self, value: Any) -> int:
        """The node of a value: its own, or a constant."""
        if isinstance(value, Value):
            return int(value.node)
        value = plain_array(value)
        builder, aval = self.recording.builder, core.typeof(value)
        fmt = format_of(aval.dtype) if isinstance(aval.dtype, np.dtype) else None
        if fmt is not None:
            return builder.const(np.asarray(value).astype(fmt.numpy), fmt)
        if jax.numpy.issubdtype(aval.dtype, jax.numpy.unsignedinteger):
            return builder.const(np.asarray(value).astype(np.int64), INT64)
        return builder.add(f"unknown:jax.{aval.dtype}", (), aval.shape, flushed(FLOAT32))

    def look(self, value: Value) -> None:
        """Python code has looked at a value: the recording holds only while it stays the same."""
        if value.node in self._looked:
            return
        self._looked.add(value.node)
        array = _array(value)
        what = {"b": "bool(array)", "f": "float(array)"}.get(array.dtype.kind, "int(array)")
        site = site_of(frames_of(source_info.current().traceback))
        if array.size == 1:
            number = float(array.reshape(()))
            self.recording.assumptions.append(Assumption(value.node, number, number, what, site))
        else:
            builder = self.recording.builder
            same = builder.add("eq", (value.node, self.node(array)), array.shape, BOOL)
            self.recording.assumptions.append(Assumption(same, 1.0, 1.0, "numpy.asarray(array)", site))

    def settle(self, forward: Sequence[int], first: int) -> None:
        """From node `first` on mark what these do not need as backward, and connect it with what it is the derivative of."""
        settle(self.recording.builder, forward, self._spots, first)

    def _unit(self, primitive: Any, params: Mapping[str, Any], values: Sequence[Any]) -> Unit:
        avals = tuple(core.typeof(v) for v in values)
        key = (primitive, tuple(sorted(params.items(), key=lambda p: p[0])), avals, x64_enabled())
        try:
            found = self._units.get(key)
        except TypeError:  # a parameter without a hash
            return _compiled(primitive, params, values)
        if found is None:
            found = self._units[key] = _compiled(primitive, params, values)
        return found

    def _record(self, unit: Unit, arguments: Sequence[int], results: Sequence[Any]) -> tuple[int, ...]:
        info = source_info.current()
        frames = frames_of(info.traceback)
        key = key_of(frames, f"{info.name_stack}/")

        def place(metadata: Metadata) -> Spot:
            own = self._loss.exact(inside(metadata.frames, UNIT), metadata.op_name) if unit.inner else ()
            return Spot(site_of((*own, *frames), functions_of(metadata.op_name)), key)

        nodes, start = self.recording.builder.nodes, len(self.recording.builder.nodes)
        made = record(self.recording, unit.module, arguments, place, losses=len(results))
        made_here = {node.source: node.site for node in nodes[start:]}
        self._spots |= {source: Spot(site, key) for source, site in made_here.items()}
        self.scopes |= dict.fromkeys(made_here, str(info.name_stack))
        if in_own_rule(info.traceback):
            self.ruled |= made_here.keys()
        arrays = {node: _array(value) for node, value in zip(made, results, strict=True)}
        self.recording.values |= {node: array for node, array in arrays.items() if not np.iscomplexobj(array)}
        return made


def _compiled(primitive: Any, params: Mapping[str, Any], values: Sequence[Any]) -> Unit:
    """The unit for these arguments. One without functions inside is JAX's own: what has run before is not compiled again."""
    if not any(hasattr(p, "eqns") for p in jax.tree.leaves(list(params.values()), is_leaf=lambda p: hasattr(p, "eqns"))):
        executable = jitted_primitive(primitive, params).lower(*values).compile()
        module = parse(hlo_text(executable))
        if len(module.entry.parameters) == len(values):
            return Unit(executable, module, inner=False)

    def unit(*arguments: Any) -> Any:
        return primitive.bind(*arguments, **params)

    with core.eval_context(), nowhere():
        executable = jax.jit(unit, keep_unused=True).lower(*values).compile()
    return Unit(executable, parse(hlo_text(executable)))


def _draws(values: Sequence[Any]) -> bool:
    """Whether all arrays of more than one number are random keys, or bits made of them."""
    arrays = [v for v in values if getattr(v, "ndim", 0) or plain_array(v) is not v]
    return bool(arrays) and all(plain_array(v) is not v or jax.numpy.issubdtype(v.dtype, jax.numpy.unsignedinteger) for v in arrays)


def _value(x: Any) -> Any:
    return x.value if isinstance(x, Value) else x


def _array(x: Any) -> Array:
    return np.array(plain_array(_value(x)))
