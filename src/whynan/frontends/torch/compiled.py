"""The program that `torch.compile` makes of a loss: compiled for a run, or recorded as the graph that Inductor generates code from.

A recording lets Dynamo, AOTAutograd, Inductor's decompositions and its passes before, over and after the joint graph do their work,
and then, instead of generating code, runs the resulting forward and backward graphs op by op under a `Recorder`. What code
generation itself changes is written down here (`_GENERATED`, `_Wide`). Looked up and measured with PyTorch 2.13 on x86 with gcc 12:

- C++ is compiled with `-O3 -fno-unsafe-math-optimizations -fno-finite-math-only -ffp-contract=off`: no FMA in elementwise code,
  nothing reassociated, NaN and infinities kept, subnormals not flushed, neither in the compiled code nor in eager code after it.
  `-fno-signed-zeros` is on: a zero may have either sign.
- Division by a constant stays a division on the CPU. `x ** n` for a whole |n| < 32 is a chain of products.
- exp, log, log1p, tanh, sigmoid, sqrt, rsqrt, asin, acos, atan, sin, cos and the like stay within 2 ulps of the true value in both
  the vectorised and the scalar code, as in eager mode. These do not: expm1 (`exp(x) - 1`: 0 for small x), atanh (the log of a
  quotient: 0 for small x), erf (up to 1e-7 off: 0 for small x), acosh (infinite from 1.9e19 on), remainder
  (`a - floor(a / b) * b`) and floor division. Whether an element meets vectorised code depends on sizes and on the machine, so
  both results are allowed (op `either`; values are recorded of the likelier).
- float16 and bfloat16 are computed in float32 and rounded only where a kernel stores them: both are allowed at each use.
- Sums and other reductions go in any order, means divide, variances are Welford's: as the graph's own operations allow.

Modules of `torch._inductor` are imported here, so this module must only be imported where something is compiled.
"""

import linecache
import logging
import operator
import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, nullcontext
from dataclasses import dataclass, field
from typing import Any

import torch
import torch._dynamo.config as dynamo_config
import torch._functorch.config as functorch_config
import torch._inductor.config as inductor_config
from torch._dynamo.exc import TorchDynamoException
from torch._functorch._aot_autograd.utils import make_boxed_func
from torch._inductor.compile_fx import _recursive_post_grad_passes, compile_fx, fake_tensor_prop
from torch._inductor.exc import InvalidCxxCompiler
from torch._inductor.fx_passes.post_grad import view_to_reshape
from torch._inductor.virtualized import V
from torch.distributions import Distribution
from torch.fx import GraphModule, Node
from torch.fx.node import map_aggregate

from whynan.errors import TargetError
from whynan.frontends.source import LIBRARY, USER, expression_at, kind_of, relative
from whynan.frontends.torch.places import PASSING
from whynan.frontends.torch.recorder import OpsMode, Recorder
from whynan.ir.graph import BACKWARD, FORWARD, Place
from whynan.ir.where import Site

Target = Callable[..., Any]

_HALVES = (torch.float16, torch.bfloat16)
_TALKERS = ("torch._dynamo", "torch._inductor", "torch._functorch")
_MANY = 1 << 20  # more programs of one function than anyone checks; past Dynamo's own limit it would run the function eagerly


# ---------------------------------------------------------------- running


def compiled(target: Target) -> Target:
    """The target as a user's `torch.compile` makes it, for each shape it is called with."""
    function = torch.compile(target, dynamic=False)

    def run(*args: Any, **kwargs: Any) -> Any:
        with _patient():
            return function(*args, **kwargs)

    return run


@contextmanager
def _patient() -> Iterator[None]:
    """Many shapes may be tried, in this process alone; Dynamo's advice is left out, and so are, as it has it, checks of distributions."""
    checks = Distribution._validate_args
    Distribution.set_default_validate_args(False)
    levels = [(logger, logger.level) for logger in map(logging.getLogger, _TALKERS)]
    try:
        for logger, _ in levels:
            logger.setLevel(logging.ERROR)
        with (
            dynamo_config.patch(recompile_limit=_MANY, accumulated_recompile_limit=_MANY),
            inductor_config.patch(compile_threads=1),
        ):
            yield
    finally:
        Distribution.set_default_validate_args(checks)
        for logger, level in levels:
            logger.setLevel(level)


def without_compiler(error: BaseException | None) -> TargetError | None:
    """What to tell a user whose machine has no C++ compiler; None for any other error."""
    while error is not None:
        if isinstance(error, InvalidCxxCompiler):
            return TargetError(
                "torch.compile finds no working C++ compiler on this machine.",
                "Install g++ or clang (and name it in the variable CXX if it is not found), or use --mode eager.",
            )
        error = getattr(error, "inner_exception", None) or error.__cause__ or error.__context__
    return None


# ---------------------------------------------------------------- recording


@dataclass(slots=True, eq=False)
class Stage:
    """One run of a traced target: the graphs that were played, and the recorder if there is one."""

    recorder: Recorder | None = None
    played: int = 0
    sources: dict[Any, int] = field(default_factory=dict)  # the number of each framework call
    forward: dict[Any, tuple[int, Site | None]] = field(default_factory=dict)  # graph, number of an autograd node, call's name -> the call


_stage: list[Stage] = []  # the run under way: compiled graphs are called by the framework, which passes on nothing of ours


@contextmanager
def on_stage(recorder: Recorder | None = None) -> Iterator[Stage]:
    """Inside, the graphs of traced targets are played for this stage, and recorded by its recorder."""
    stage = Stage(recorder)
    _stage.append(stage)
    try:
        with _patient(), functorch_config.patch(enable_autograd_cache=False):
            yield stage
    finally:
        _stage.pop()


def modes(recorder: Recorder) -> tuple[OpsMode, ...]:
    """What hands ops to the recorder of a traced target. Dynamo would trace a mode for functions, and recompile."""
    return (_Shielded(recorder),)


class _Shielded(OpsMode):  # type: ignore[no-untyped-call]  # torch leaves its __init_subclass__ without types
    """Hands every aten op to the recorder, while Dynamo leaves the recorder's own code alone and compiles the target all the same."""

    @classmethod
    def _should_skip_dynamo(cls) -> bool:
        return True

    @classmethod
    def ignore_compile_internals(cls) -> bool:
        """Whether functions under this mode are compiled at all."""
        return True

    def __torch_dispatch__(self, func: Any, types: Any, args: tuple[Any, ...] = (), kwargs: dict[str, Any] | None = None) -> Any:
        told = getattr(func, "impl_aten", None)
        if told is not None:  # an op of `prims` is told by aten ops
            with self:
                return told(*args, **(kwargs or {}))
        return super().__torch_dispatch__(func, types, args, kwargs)


def traced(target: Target, *, whole: bool) -> Target:
    """The target compiled up to the point where code would be generated; if it must be `whole`, a graph break raises."""
    return torch.compile(target, backend=_backend, dynamic=False, fullgraph=whole)


def graph_break(error: BaseException) -> str | None:
    """Dynamo's own words for why it cannot trace a function in one piece, and where that is; None for any other error."""
    if not isinstance(error, TorchDynamoException):
        return None
    what = (str(error).strip().splitlines() or ["unsupported code"])[0].rstrip(".")
    frames = [f for f in getattr(error, "real_stack", None) or () if kind_of(f.filename, PASSING) == USER]
    return f"graph break: {what}" + (f" ({frames[-1].filename}:{frames[-1].lineno})" if frames else "")


def difference(first: Stage, second: Stage) -> str:
    """Why the second run may not have been the program that the first one traced; empty if it was."""
    return "" if first.played == second.played else "the compiled program changes from run to run"


@dataclass(frozen=True, slots=True, eq=False)
class _Piece:
    """One graph to play. `sites` are the expressions of the calls that Dynamo saw, by their names; `key` tells traces apart.

    `handwritten` are those of them whose derivatives are Python code.
    """

    module: GraphModule
    key: object
    backward: bool
    sites: Mapping[str, Site]
    handwritten: tuple[Site, ...]


def _backend(module: GraphModule, examples: list[Any]) -> Any:
    key, sites = object(), _sites(module)
    functions = [_path(n.meta.get("source_fn_stack")) for n in module.graph.nodes if _called_name(n.target) == "autograd_function_apply"]
    handwritten = tuple(sites[path] for path in functions if path in sites)

    def inner(graph: GraphModule, inputs: Sequence[Any], **facts: Any) -> Any:
        last = _finished(graph, inputs, bool(facts.get("is_inference")))
        piece = _Piece(last, key, bool(facts.get("is_backward")), sites, handwritten)
        return make_boxed_func(lambda *args: _play(piece, args))

    return compile_fx(module, examples, inner_compile=inner)


def _finished(graph: GraphModule, inputs: Sequence[Any], is_inference: bool) -> GraphModule:
    """The graph after the last of Inductor's passes, with the element type of every value noted."""
    view_to_reshape(graph)  # type: ignore[no-untyped-call]  # torch leaves it without types
    with torch.no_grad():
        mode = fake_tensor_prop(graph, inputs)
        with V.set_fake_mode(mode):
            _recursive_post_grad_passes(graph, is_inference=is_inference)
        fake_tensor_prop(graph, inputs, force_allow_non_fake_inputs=True)
    graph.recompile()
    return graph


# ---------------------------------------------------------------- playing a graph


@dataclass(frozen=True, slots=True, eq=False)
class _Wide:
    """A value of a half format while a graph is played: its float32 number. `stored` is the rounded tensor, where there is one."""

    number: torch.Tensor
    dtype: torch.dtype
    stored: torch.Tensor | None = None


def _play(piece: _Piece, args: tuple[Any, ...]) -> list[Any]:
    stage = _stage[-1] if _stage else Stage()
    stage.played += 1
    if stage.recorder is not None:
        stage.recorder.recording.handwritten.update(dict.fromkeys(piece.handwritten))
    known: dict[Node, Any] = {}
    rest = iter(args)
    for node in piece.module.graph.nodes:
        with stage.recorder.standing_at(_place(stage, piece, node)) if stage.recorder else nullcontext():
            if node.op == "placeholder":
                known[node] = _widened(next(rest))
            elif node.op == "get_attr":
                known[node] = _widened(operator.attrgetter(str(node.target))(piece.module))
            elif node.op == "output":
                return list(map_aggregate(node.args[0], lambda a: _narrow(known.get(a, a))))  # type: ignore[arg-type]  # a nest of any values
            else:
                known[node] = _called(stage, node, known)
    return []


def _called(stage: Stage, node: Node, known: dict[Node, Any]) -> Any:
    """The result of one node of a graph; values of half formats stay wide."""
    target: Any = node.target
    if target is operator.getitem:
        return known[node.args[0]][node.args[1]]  # type: ignore[index]  # a node of several results and a number
    arguments = target._schema.arguments if isinstance(target, torch._ops.OpOverload) else []
    shown = {a.name for a in arguments if a.alias_info is not None}  # arguments that the op makes views of or writes to
    named = [(a.name, value) for a, value in zip(arguments, node.args, strict=False)] or [("", value) for value in node.args]
    args = tuple(_ready(stage, known, value, shared=name in shown) for name, value in named)
    kwargs = {name: _ready(stage, known, value, shared=name in shown) for name, value in node.kwargs.items()}
    result = _rewidened(_computed(stage, target, args, kwargs), node.meta.get("val"))
    if arguments and target._schema.is_mutable:
        _write_back(known, [value for value in (*node.args, *node.kwargs.values()) if isinstance(value, Node)])
    return result


def _ready(stage: Stage, known: Mapping[Node, Any], value: Any, *, shared: bool) -> Any:
    """An argument in float32. One that the op shares memory with is the number itself, which is then what its storage holds."""
    return map_aggregate(value, lambda a: _used(stage, known.get(a, a) if isinstance(a, Node) else a, shared=shared))


def _write_back(known: dict[Node, Any], nodes: Sequence[Node]) -> None:
    """After a write: what came in as a half format tensor takes the new numbers."""
    for node in nodes:
        value = known[node]
        if isinstance(value, _Wide) and value.stored is not None:
            value.stored.copy_(value.number)
            known[node] = _widened(value.stored)


def _computed(stage: Stage, target: Any, args: Any, kwargs: Any) -> Any:
    if target in _GENERATED:
        return _GENERATED[target](_Notes(stage.recorder), *args, **kwargs)
    if isinstance(target, torch._ops.OpOverload):
        return target(*args, **kwargs)
    if getattr(target, "__module__", "") in ("_operator", "math"):
        return target(*args, **kwargs)
    with torch._C._DisableTorchDispatch():
        result = target(*args, **kwargs)
    if stage.recorder is not None:
        stage.recorder.opaque(f"unknown:{getattr(target, '__name__', target)}", _tensors((args, kwargs)), result)
    return result


def _tensors(values: Any) -> list[torch.Tensor]:
    found: list[torch.Tensor] = []
    map_aggregate(values, lambda a: found.append(a) if isinstance(a, torch.Tensor) else None)
    return found


# ---------------------------------------------------------------- half formats


def _widened(value: Any) -> Any:
    if isinstance(value, torch.Tensor) and value.dtype in _HALVES:
        return _Wide(value.float(), value.dtype, value)
    return value


def _narrow(value: Any) -> Any:
    """The value as it is stored."""
    if not isinstance(value, _Wide):
        return value
    return value.number.to(value.dtype) if value.stored is None else value.stored


def _used(stage: Stage, value: Any, *, shared: bool) -> Any:
    """An argument of an op that is told in float32: a number that may or may not have been rounded since it was computed."""
    if isinstance(value, torch.dtype):
        return torch.float32 if value in _HALVES else value
    if not isinstance(value, _Wide):
        return value
    if shared or value.stored is not None:
        return value.number
    return _Notes(stage.recorder).either(value.number, value.number.to(value.dtype).float())


def _rewidened(result: Any, meant: Any) -> Any:
    """The results of an op that was told in float32 where the graph means a half format."""
    if isinstance(result, (tuple, list)):
        wanted = meant if isinstance(meant, (tuple, list)) else [None] * len(result)
        return type(result)([_rewidened(r, m) for r, m in zip(result, wanted, strict=True)])
    if isinstance(result, torch.Tensor) and isinstance(meant, torch.Tensor) and meant.dtype in _HALVES:
        return _Wide(result, meant.dtype) if result.dtype is torch.float32 else _widened(result)
    return result


# ---------------------------------------------------------------- what code generation makes of an op


@dataclass(frozen=True, slots=True)
class _Notes:
    """How a replacement says more than ops can. Without a recorder it only computes."""

    recorder: Recorder | None

    def either(self, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
        """One of two values per element, and not always the same one: a new tensor with the first's numbers."""
        with torch._C._DisableTorchDispatch():
            result = a.clone()
        if self.recorder is not None:
            self.recorder.opaque("either", [a, b], result, use=len(self.recorder.builder.nodes))  # no two uses are one value
        return result

    def code(self, vector: torch.Tensor, scalar: torch.Tensor) -> torch.Tensor:
        """What one op gives in vectorised code and in scalar code, which a single element meets unless it is fused into a loop."""
        return self.either(scalar, vector) if vector.numel() == 1 else self.either(vector, scalar)

    def between(self, low: float, high: float, like: torch.Tensor) -> torch.Tensor:
        """Some number of the range: a new tensor with the given one's values."""
        with torch._C._DisableTorchDispatch():
            result = like.clone()
        if self.recorder is not None:
            self.recorder.opaque("random", [], result, low=low, high=high)
        return result


def _power(notes: _Notes, x: torch.Tensor, exponent: Any) -> torch.Tensor:
    if isinstance(exponent, (int, float)) and float(exponent).is_integer() and -32 < exponent < 32 and x.is_floating_point():
        return _product(x, int(exponent))
    return x**exponent  # type: ignore[no-any-return]  # torch leaves it without types


def _product(x: torch.Tensor, n: int) -> torch.Tensor:
    """x to the n as Inductor multiplies it out."""
    if n < 0:
        return _product(x.reciprocal(), -n)
    if n < 2:
        return x.clone() if n else torch.ones_like(x)
    half = _product(x, n // 2) if n > 3 else x
    return half * half * x if n % 2 else half * half


def _expm1(notes: _Notes, x: torch.Tensor) -> torch.Tensor:
    return notes.code(x.exp() - 1, x.expm1())


def _atanh(notes: _Notes, x: torch.Tensor) -> torch.Tensor:
    return notes.code(0.5 * ((1 + x) / (1 - x)).log(), x.atanh())


def _acosh(notes: _Notes, x: torch.Tensor) -> torch.Tensor:
    return notes.code((x + (x * x - 1).sqrt()).log(), x.acosh())


def _erf(notes: _Notes, x: torch.Tensor) -> torch.Tensor:
    value = x.erf()
    return notes.either(value, notes.between(-1.0, 1.0, value))


def _remainder(notes: _Notes, a: Any, b: Any) -> torch.Tensor:
    value = torch.remainder(a, b)
    return notes.code(a - (a / b).floor() * b, value) if value.is_floating_point() else value


def _quotient(notes: _Notes, a: Any, b: Any, *, rounding_mode: str | None = None) -> torch.Tensor:
    value = torch.div(a, b, rounding_mode=rounding_mode)
    return notes.code((a / b).floor(), value) if rounding_mode == "floor" and value.is_floating_point() else value


def _added(notes: _Notes, x: torch.Tensor, mask: torch.Tensor, indices: list[Any], values: torch.Tensor) -> torch.Tensor:
    """An index_put that adds, where the mask holds; elsewhere indices may be anything."""
    inside = [None if i is None else i.clamp(-size, size - 1) for i, size in zip(indices, x.shape, strict=False)]
    return x.index_put(inside, torch.where(mask, values, 0), accumulate=True)


def _copysign(notes: _Notes, a: torch.Tensor, b: torch.Tensor) -> torch.Tensor:
    value = torch.copysign(a, b)
    return notes.either(value, torch.where(b == 0, -value, value))


def _signbit(notes: _Notes, x: torch.Tensor) -> torch.Tensor:
    value = torch.signbit(x)
    return notes.either(value, value ^ (x == 0))


_aten = torch.ops.aten
_GENERATED: Mapping[Any, Callable[..., Any]] = {
    _aten.pow.Tensor_Scalar: _power,
    _aten.expm1.default: _expm1,
    _aten.atanh.default: _atanh,
    _aten.acosh.default: _acosh,
    _aten.erf.default: _erf,
    _aten.remainder.Tensor: _remainder,
    _aten.remainder.Scalar: _remainder,
    _aten.div.Tensor_mode: _quotient,
    _aten.div.Scalar_mode: _quotient,
    _aten.copysign.Tensor: _copysign,
    _aten.signbit.default: _signbit,
    _aten._unsafe_masked_index_put_accumulate.default: _added,
}


# ---------------------------------------------------------------- places


def _place(stage: Stage, piece: _Piece, node: Node) -> Place:
    """Where a node of a compiled graph comes from; a forward op that is computed again in the backward graph stays a forward op."""
    meta, recorder = node.meta, stage.recorder
    assert recorder is not None
    ours, theirs = (list(meta.get(key) or ()) for key in ("source_fn_stack", "fwd_source_fn_stack"))
    tag = meta.get("partitioner_tag", "")
    backward = bool(theirs) or tag == "is_backward" or (piece.backward and not ours and tag != "is_forward")
    calls = theirs or ours  # of Dynamo's graph, and inside what that calls
    name = _path(calls)
    site = piece.sites.get(name) or _site(str(meta.get("stack_trace") or ""), [_called_name(call[1]) for call in calls[-1:]])
    number = (piece.key, meta.get("seq_nr"))
    call = (number, piece.backward, backward, name, str(meta.get("original_aten")), node if not name else None)
    if call not in stage.sources:
        stage.sources[call] = recorder.new_source()
    source = stage.sources[call]
    if not backward and not piece.backward and node.all_input_nodes:  # a constant has no derivative, only the number of an op before it
        stage.forward.setdefault((number, name), (source, site))
        stage.forward.setdefault((number, ""), (source, site))
    if not backward:
        return Place(FORWARD, site, source)
    derives, origin = stage.forward.get((number, name)) or stage.forward.get((number, ""), (-1, None))
    return Place(BACKWARD, site or origin, source, "", -1 if meta.get("is_gradient_acc") else derives)


def _sites(module: GraphModule) -> dict[str, Site]:
    """The expression of each call of a graph of Dynamo's, by its `_path`."""
    found: dict[str, Site] = {}
    seen: dict[object, int] = {}
    for node in module.graph.nodes:
        if node.op not in ("call_function", "call_method"):
            continue
        trace, name = str(node.meta.get("stack_trace") or ""), _called_name(node.target)
        occurrence = seen[trace, name] = seen.get((trace, name), -1) + 1
        site = _site(trace, [name], occurrence)
        if site is not None:
            found[_path(node.meta.get("source_fn_stack"))] = site
    return found


def _path(calls: Any) -> str:
    """The name that Dynamo gave a call first, below those of the calls that it is inside; later its node may be named after a variable."""
    return ".".join(str(call[0]) for call in calls or ())


def _called_name(target: Any) -> str:
    return target if isinstance(target, str) else str(getattr(target, "__name__", target))


_FRAME = re.compile(r'^  File "(.*)", line (\d+), in (.*)\n(?:    (.*)\n)?(?:    ( *)[\^~]+)?', re.MULTILINE)


def _site(trace: str, names: list[str], occurrence: int = 0) -> Site | None:
    """The expression that a traceback points at, chosen among its frames as for a running program."""
    frames = [(m[1], int(m[2]), m[3], m[5]) for m in _FRAME.finditer(trace)]
    kinds = [kind_of(file, PASSING) for file, *_ in frames]
    users = [i for i, kind in enumerate(kinds) if kind == USER]
    libraries = [i for i, kind in enumerate(kinds) if kind == LIBRARY]
    if not users and not libraries:
        return None
    at = users[-1] if users else libraries[0]
    below = [i for i in libraries if i > at]
    file, line, function, indent = frames[at]
    detail = f"{relative(frames[below[-1]][0])}:{frames[below[-1]][1]} in {frames[below[-1]][2]}" if below else ""
    inside = [frames[i][2] for i in range(at + 1, len(frames))][:1]
    return expression_at(file, line, _column(file, line, indent), inside or names, function, detail, 0 if inside else occurrence)


def _column(file: str, line: int, indent: str | None) -> int | None:
    """The byte at which an expression begins whose carets stand after that much space, below a line shown without indentation."""
    if indent is None:
        return None
    text = linecache.getline(file, line)
    return len(text[: len(text) - len(text.lstrip()) + len(indent)].encode())
