"""A training step that has run, recorded: one program with loss, gradients and update, each operation with its place and its module.

The step's own jitted functions are written out, so that mode eager sees operation by operation what the user wrote. In the written-out
program JAX's transformations have left their names: what stands below `transpose(...)` is the backward pass, and a value that leaves it is
a gradient.
"""

import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from whynan.frontends.hlo.parse import parse
from whynan.frontends.hlo.record import record
from whynan.frontends.jax.arrays import format_of, is_floating, on_one_device, plain_array
from whynan.frontends.jax.eager import Recorder, Units, Value
from whynan.frontends.jax.ending import anything
from whynan.frontends.jax.inside import HOME, core, hlo_text, located, standing
from whynan.frontends.jax.jaxpr import traced_in
from whynan.frontends.jax.places import in_own_rule, spot_of
from whynan.frontends.trace import Recording, finished
from whynan.ir.dtype import INT64, Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import BACKWARD, FORWARD, Builder, Output

_TRANSPOSED = "transpose("
_MOVES = ("sharding_constraint", "device_put", "reshard")  # where a value lies is no part of what is written out: one device runs it all


@dataclass(frozen=True, slots=True, eq=False)
class Steps:
    """A step as a program: flat arrays in (`names` says what they are called), flat arrays out, in the order of the step's own result."""

    closed: Any
    names: tuple[str, ...]

    @property
    def eqns(self) -> Sequence[Any]:
        """The equations, in order of execution."""
        found: Sequence[Any] = self.closed.jaxpr.eqns
        return found


@dataclass(frozen=True, slots=True, eq=False)
class RecordedStep:
    """A recording, with the name scopes that a node stands in, and which nodes a derivative's rule of the user's computed."""

    trace: Trace
    scopes: Mapping[int, str]  # by source number
    ruled: frozenset[int]  # source numbers


def written_out(function: Callable[..., Any], names: Sequence[str], arrays: Sequence[Any]) -> tuple[Steps, Any]:
    """The program of a function of flat arrays, and the structure of what it returns. Raises what the function raises when traced."""
    with standing(in_own_rule):
        closed, shape = jax.make_jaxpr(function, return_shape=True)(*arrays)

    def flat(*given: Any) -> list[Any]:
        return list(_evaluated(closed.jaxpr, closed.consts, given))

    return Steps(jax.make_jaxpr(flat)(*arrays), tuple(names)), shape


def _evaluated(jaxpr: Any, consts: Sequence[Any], given: Sequence[Any]) -> list[Any]:
    """The results of a jaxpr, with the equations of jitted functions that are not JAX's own in the place of their calls."""
    known = dict(zip((*jaxpr.constvars, *jaxpr.invars), (*consts, *given), strict=True))

    def read(v: Any) -> Any:
        return v.val if isinstance(v, core.Literal) else known[v]

    for equation in jaxpr.eqns:
        values = [read(v) for v in equation.invars]
        with located(equation):
            inner = equation.params.get("jaxpr") if equation.primitive.name in ("jit", "pjit") else None
            if equation.primitive.name in _MOVES:
                results = values
            elif inner is not None and not _is_jaxs(inner):
                results = _evaluated(inner.jaxpr, inner.consts, values)
            else:
                results = equation.primitive.bind(*values, **equation.primitive.get_bind_params(equation.params))
                results = results if equation.primitive.multiple_results else [results]
        known |= zip(equation.outvars, results, strict=True)
    return [read(v) for v in jaxpr.outvars]


def _is_jaxs(inner: Any) -> bool:
    """Whether a jitted function is one of JAX's own, which it compiles as a unit wherever it is called."""
    where = inner.jaxpr.debug_info.func_src_info or ""  # "relu at FILE:71"
    return bool(where.rpartition(" at ")[2].startswith(HOME))


# ---------------------------------------------------------------- gradients


def gradients(step: Steps) -> list[Any]:
    """The floating variables that leave the backward pass, in the order in which the optimizer uses them, which is the parameters'."""
    backward = {v for e in step.eqns if _is_backward(e) for v in e.outvars if is_floating(v.aval)}
    used = [v for e in step.eqns if not _is_backward(e) for v in e.invars if not isinstance(v, core.Literal)]
    used += [v for v in step.closed.jaxpr.outvars if not isinstance(v, core.Literal)]
    return list(dict.fromkeys(v for v in used if v in backward))


def _is_backward(equation: Any) -> bool:
    return _TRANSPOSED in str(equation.source_info.name_stack)


def _is_differentiated(equation: Any) -> bool:
    return "jvp(" in str(equation.source_info.name_stack) and not _is_backward(equation)


def results(step: Steps, outputs: Sequence[int]) -> list[Any]:
    """The variables that the step returns at these places; a result that is a constant is left out."""
    found = [step.closed.jaxpr.outvars[i] for i in outputs]
    return [v for v in found if not isinstance(v, core.Literal)]


def reached(step: Steps, ends: Sequence[Any]) -> set[int]:
    """The places of the arguments that these variables are computed from."""
    needed = _needed(step, ends)
    return {i for i, v in enumerate(step.closed.jaxpr.invars) if v in needed}


def read_when_differentiated(step: Steps) -> list[int]:
    """The places of the arguments that go into what is differentiated as they are: parameters and data, no state of an optimizer."""
    read = {v for e in step.eqns if _is_differentiated(e) for v in e.invars if not isinstance(v, core.Literal)}
    return [i for i, v in enumerate(step.closed.jaxpr.invars) if v in read]


def depends(step: Steps, output: int, sources: set[Any]) -> bool:
    """Whether the step's result at that place is computed from one of these variables."""
    return bool(_needed(step, results(step, [output])) & sources)


def in_forward_pass(step: Steps, output: int) -> bool:
    """Whether the step's result at that place was computed inside of what is differentiated."""
    ends = set(results(step, [output]))
    return any(_is_differentiated(e) for e in step.eqns if any(v in ends for v in e.outvars))


def _needed(step: Steps, ends: Sequence[Any]) -> set[Any]:
    needed = set(ends)
    for equation in reversed(step.eqns):
        if any(v in needed for v in equation.outvars):
            needed.update(v for v in equation.invars if not isinstance(v, core.Literal))
    return needed


def cut(step: Steps, ends: Sequence[Any]) -> Steps:
    """The part of the step that these variables are computed by, as a program that returns them.

    What is differentiated stays whole: a gradient needs no logarithm, but is told as the logarithm's.
    """
    needed = _needed(step, [*ends, *(v for e in step.eqns if _is_differentiated(e) for v in e.outvars)])
    kept = [e for e in step.eqns if any(v in needed for v in e.outvars)]
    jaxpr = step.closed.jaxpr.replace(eqns=kept, outvars=list(ends), debug_info=step.closed.jaxpr.debug_info.with_unknown_names())
    return Steps(core.ClosedJaxpr(jaxpr, step.closed.consts), step.names)


# ---------------------------------------------------------------- recording


def recorded_step(step: Steps, arrays: Sequence[Any], outputs: Sequence[tuple[str, str]], mode: str, units: Units) -> RecordedStep:
    """Run the step on these arrays and record it; `outputs` are kind and name of what it returns, the losses first."""
    step = Steps(core.ClosedJaxpr(step.closed.jaxpr, list(map(on_one_device, step.closed.consts))), step.names)
    arrays = list(map(on_one_device, arrays))
    done = _eagerly(step, arrays, outputs, units) if mode == "eager" else _compiled(step, arrays, sum(k == "loss" for k, _ in outputs))
    recorder, inputs, ends, scopes, ruled = done
    kept = [Output(kind, name, node) for (kind, name), node in zip(outputs, ends, strict=True)]
    return RecordedStep(finished(recorder, inputs, kept), scopes, ruled)


_Done = tuple[Recording, dict[str, int], list[int], Mapping[int, str], frozenset[int]]


def _eagerly(step: Steps, arrays: Sequence[Any], outputs: Sequence[tuple[str, str]], units: Units) -> _Done:
    known = traced_in(step.closed)
    recorder = Recorder(units, known)
    recorder.random_is_given = True
    builder, values = recorder.recording.builder, recorder.recording.values
    inputs, nodes = _inputs(builder, step.names, arrays, values)
    first = len(builder.nodes)
    given = [Value(recorder, jax.numpy.asarray(a), n) for a, n in zip(arrays, nodes, strict=True)]
    with core.set_current_trace(recorder):
        ended = core.eval_jaxpr(step.closed.jaxpr, step.closed.consts, *given)
    recorder.recording.handwritten |= dict.fromkeys(known.handwritten)
    recorder.recording.added |= dict.fromkeys(known.added)
    ends = [recorder.node(x) for x in ended]
    recorder.recording.kept.update(_primal(builder, recorder.scopes, first))
    losses = {n for n, (kind, _) in zip(ends, outputs, strict=True) if kind == "loss"}
    recorder.settle(sorted(losses | recorder.recording.kept), first)
    _as_update(builder, recorder.scopes, first)
    return recorder.recording, inputs, ends, recorder.scopes, frozenset(recorder.ruled)


def _primal(builder: Builder, scopes: Mapping[int, str], first: int) -> list[int]:
    """Where the forward pass ends: nodes that nothing uses, and that are not computed from one of the backward pass."""
    later: set[int] = set()
    for n in builder.nodes[first:]:
        if _TRANSPOSED in scopes.get(n.source, "") or any(i in later for i in n.inputs):
            later.add(n.id)
    used = {i for n in builder.nodes[first:] for i in n.inputs}
    return [n.id for n in builder.nodes[first:] if n.id not in later and n.id not in used]


def _as_update(builder: Builder, scopes: Mapping[int, str], first: int) -> None:
    """What is neither differentiated nor a derivative is no backward pass, although it is computed from one: the optimizer's update."""
    for n in builder.nodes[first:]:
        if n.phase == BACKWARD and n.op != "const" and not re.search(r"(jvp|transpose)\(", scopes.get(n.source, _TRANSPOSED)):
            builder.nodes[n.id] = replace(n, phase=FORWARD, derives=-1)


def _compiled(step: Steps, arrays: Sequence[Any], losses: int) -> _Done:
    """The program that XLA makes of the whole step, with its results; what happens in between, the analysis computes."""
    recording = Recording()
    known = traced_in(step.closed)
    inputs, nodes = _inputs(recording.builder, step.names, arrays, recording.values)
    function = core.jaxpr_as_fun(step.closed)
    executable = jax.jit(function, keep_unused=True).lower(*arrays).compile()
    module = parse(hlo_text(executable))
    hoisted = [anything(recording.builder, p.type) for p in module.entry.parameters[: len(module.entry.parameters) - len(nodes)]]
    ends = list(record(recording, module, [*hoisted, *nodes], lambda metadata: spot_of(metadata, known.exact), losses=losses))
    recording.values |= {n: np.array(x) for n, x in zip(ends, executable(*arrays), strict=True)}
    recording.handwritten |= dict.fromkeys(known.handwritten)
    recording.added |= dict.fromkeys(known.added)
    return recording, inputs, ends, {}, frozenset()


def _inputs(builder: Builder, names: Sequence[str], arrays: Sequence[Any], values: dict[int, Array]) -> tuple[dict[str, int], list[int]]:
    """A node for each array: an input where whynan has a number format for it, else a constant or a value of which nothing is known."""
    inputs: dict[str, int] = {}
    nodes = []
    for name, array in zip(names, map(plain_array, arrays), strict=True):
        fmt = format_of(array.dtype) if isinstance(array.dtype, np.dtype) else None
        if fmt is not None:
            inputs[name] = builder.add("input", (), array.shape, fmt, name=name)
            values[inputs[name]] = np.asarray(array)
            nodes.append(inputs[name])
        elif jax.numpy.issubdtype(array.dtype, jax.numpy.unsignedinteger):
            nodes.append(builder.const(np.asarray(array).astype(np.int64), INT64))
        else:
            nodes.append(builder.add("unknown:jax.input", (), array.shape, INT64))
    return inputs, nodes
