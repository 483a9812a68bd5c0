"""Seeing calls without hooks of torch: of modules, a loss that is a plain function, `backward`, a gradient scaler's step.

A function is watched by giving the function object other code, which hands each call on: it is seen wherever the loop has it from, a
local name or a module's. The original is called with its own code, so that positions in the source stay right.
"""

import ast
import functools
import inspect
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from itertools import islice
from opcode import opmap
from pathlib import Path
from sys import _getframe
from types import CodeType, FrameType, FunctionType
from typing import Any, cast

import torch
from torch._C._dynamo import eval_frame
from torch.compiler import is_compiling

from whynan.frontends.source import USER, kind_of

MOST_FRAMES = 5  # callers that are remembered: a backward may be called by way of a library

LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))

Place = tuple[CodeType, int]  # where a frame is: its code and the offset of the instruction
Undo = Callable[[], None]
Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

DOOR = "_compiled_call_impl"  # where a module has what it is called by, if that is not its own call
_PLACE = "the function that the call is handed to"
_APART = "the same, where torch.compile would compile it"
_ASKED = "what tells whether it would"


def _handing_on(*args: Any, **kwargs: Any) -> Any:  # these constants are replaced, see below
    compiling: Any = "what tells whether it would"
    apart: Any = "the same, where torch.compile would compile it"
    call: Any = "the function that the call is handed to"
    return call(args, kwargs) if compiling() is None else apart(args, kwargs)


class _Station:
    """A function whose calls are handed on: those who watch it, latest outermost, and what it was before."""

    __slots__ = ("_before", "_code", "_entry", "_function", "_marks", "_original", "_replaced", "_watching")

    def __init__(self, function: FunctionType, compiled: bool) -> None:
        self._function, self._code, self._before = function, function.__code__, function.__dict__.get("__wrapped__")
        self._original = original = FunctionType(
            function.__code__, function.__globals__, function.__name__, function.__defaults__, function.__closure__
        )
        original.__kwdefaults__, original.__qualname__ = function.__kwdefaults__, function.__qualname__
        original.__module__, original.__annotations__ = function.__module__, function.__annotations__
        original.__dict__.update(function.__dict__)
        self._watching: tuple[Around, ...] = ()
        self._entry = _Entry()
        self._replaced = _code_that_calls(self._entry, self._apart, function.__code__)
        function.__code__ = self._replaced
        _left_alone(function)
        function.__wrapped__ = original  # type: ignore[attr-defined]  # what inspect.signature looks at
        # what torch.compile takes the function for where compiled code calls it, or that it does not take it in
        apart = {"_torchdynamo_disable": True, "_torchdynamo_disable_msg": "whynan.watch looks at each call of it"}
        marks = {"_torchdynamo_inline": original} if compiled else apart
        self._marks = {k: v for k, v in marks.items() if k not in vars(original)}
        vars(function).update(self._marks)

    def _hand_on(self, watching: tuple[Around, ...]) -> None:
        self._watching = watching
        self._entry.__call__ = _chained(self._original, watching)

    def _apart(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """Hand on so that torch.compile leaves those alone who watch; the function itself is compiled."""
        compiling = eval_frame.set_eval_frame(None)

        def compiled(*args: Any, **kwargs: Any) -> Any:
            eval_frame.set_eval_frame(compiling)
            try:
                return self._original(*args, **kwargs)
            finally:
                eval_frame.set_eval_frame(None)

        compiled.stands_for = self._original  # type: ignore[attr-defined]
        try:
            return _chained(compiled, self._watching)(args, kwargs)
        finally:
            eval_frame.set_eval_frame(compiling)

    def add(self, around: Around) -> None:
        self._hand_on((*self._watching, around))

    def remove(self, around: Around) -> None:
        """Nobody left: the function is as it was."""
        self._hand_on(tuple(a for a in self._watching if a is not around))
        if self._watching:
            return
        _stations.pop(self._function, None)
        if self._function.__code__ is not self._replaced:
            return  # somebody else has changed it since, and hands on to here
        self._function.__code__ = self._code
        for mark in self._marks:
            vars(self._function).pop(mark, None)
        if self._before is None:
            del self._function.__wrapped__  # type: ignore[attr-defined]
        else:
            self._function.__wrapped__ = self._before  # type: ignore[attr-defined]


class _Entry:
    """What the replaced code calls."""

    __slots__ = ("__call__",)
    __call__: Callable[[tuple[Any, ...], dict[str, Any]], Any]


_stations: dict[FunctionType, _Station] = {}


def _chained(call: Callable[..., Any], watching: tuple[Around, ...]) -> Callable[[tuple[Any, ...], dict[str, Any]], Any]:
    for around in watching[:-1]:
        call = _with(around, call)
    return partial(watching[-1], call) if watching else lambda args, kwargs: call(*args, **kwargs)


def _with(around: Around, call: Callable[..., Any]) -> Callable[..., Any]:
    return lambda *args, **kwargs: around(call, args, kwargs)


def itself(call: Callable[..., Any]) -> Callable[..., Any]:
    """The function that a watcher was given to call, as it can be called later and elsewhere."""
    function: Callable[..., Any] = getattr(call, "stands_for", call)
    return function


def _left_alone(function: Any) -> None:
    """Let torch.compile run the function's frames as they are; those of what it calls are none of this."""
    code, frames = function.__code__, cast("Any", eval_frame)
    if hasattr(frames, "set_code_exec_strategy"):
        frames.set_code_exec_strategy(code, frames._FrameExecStrategy(frames._FrameAction.SKIP, frames._FrameAction.DEFAULT))
    else:  # torch 2.6
        frames.skip_code(code)


_left_alone(_Station._apart)


def _code_that_calls(handed: Callable[..., Any], apart: Callable[..., Any], like: CodeType) -> CodeType:
    template = _handing_on.__code__
    put = {_PLACE: handed, _APART: apart, _ASKED: eval_frame.get_eval_frame_callback}
    constants = tuple(put.get(c, c) for c in template.co_consts)
    code = template.replace(co_consts=constants, co_freevars=like.co_freevars, co_name=like.co_name, co_qualname=like.co_qualname)
    if not like.co_freevars:
        return code
    # the frame gets the closure's cells by an instruction: without them, whoever reads its locals (a debugger) would crash Python
    cells, nowhere = bytes((opmap["COPY_FREE_VARS"], len(like.co_freevars))), bytes((0xF8,))
    return code.replace(co_code=cells + code.co_code, co_linetable=nowhere + code.co_linetable)


def watch_function(function: Any, around: Around, compiled: bool = True) -> Undo | None:
    """Let `around(original, args, kwargs)` be called in place of a function, method or partial; returns what ends it.

    In code that torch.compile compiles, a call of it is a part of that, and not seen; unless `compiled` is False.

    Several may watch the same function and may end in any order. A method is watched for its own object only, which is the first of
    `args`. None if the callable is not written in Python (a built-in, a scripted function).
    """
    plain = plain_function(function)
    if plain is None:
        return None
    owner = owner_of(function)

    def mine(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        return around(original, args, kwargs) if args and args[0] is owner else original(*args, **kwargs)

    entry = around if owner is None else mine
    station = _stations.get(plain) or _stations.setdefault(plain, _Station(plain, compiled))
    station.add(entry)
    return lambda: station.remove(entry)


def owner_of(callable_: Any) -> Any:
    """The object whose method this is, or that is called itself; None for a function."""
    while isinstance(callable_, functools.partial):
        callable_ = callable_.func
    if inspect.ismethod(callable_):
        return callable_.__self__
    return None if isinstance(callable_, FunctionType) else callable_


def plain_function(callable_: Any) -> FunctionType | None:
    """The Python function behind a callable that is no module: itself, a method's, a partial's, a class's `__call__`."""
    while isinstance(callable_, functools.partial):
        callable_ = callable_.func
    if inspect.ismethod(callable_):
        callable_ = callable_.__func__
    if not isinstance(callable_, FunctionType):
        callable_ = vars(type(callable_)).get("__call__")
    return callable_ if isinstance(callable_, FunctionType) else None


@cache
def _foreign(file: str) -> bool:
    return file.startswith(LIBRARIES)


def frames_behind(skipped: int = 0) -> tuple[tuple[FrameType, int], ...]:
    """The frames of the user's that lead to this call, innermost first, with where each of them is.

    Of the callers, the innermost `skipped` are known not to be the user's; not to look at them is faster.
    """
    found: list[tuple[FrameType, int]] = []
    frame: FrameType | None = _getframe(1 + skipped)
    while frame is not None and len(found) < MOST_FRAMES:
        if not _foreign(frame.f_code.co_filename):
            found.append((frame, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def place_behind(skipped: int = 0) -> Place | None:
    """Where in the user's code this call comes from; `skipped` as above."""
    frame: FrameType | None = _getframe(1 + skipped)
    while frame is not None and _foreign(frame.f_code.co_filename):
        frame = frame.f_back
    return (frame.f_code, frame.f_lasti) if frame is not None else None


def line_of(place: Place | None) -> tuple[str, int | None]:
    """File and line of a place; to find the line takes longer than to note the place."""
    if place is None:
        return "", None
    code, last = place
    return code.co_filename, next(islice(code.co_positions(), last // 2, None), (None,))[0]


def standing_at(place: Place | None, target: Callable[..., Any]) -> Callable[..., Any]:
    """The callable as if it were called from that place: what finds no line of the user's below it finds the call's. Else the callable."""
    if place is None or kind_of(place[0].co_filename) != USER:
        return target
    code, last = place
    line, end_line, column, end_column = next(islice(code.co_positions(), last // 2, None), (None,) * 4)
    if line is None or end_line is None or column is None or end_column is None:
        return target
    tree = ast.parse("lambda *args, **kwargs: target(*args, **kwargs)", mode="eval")
    for node in ast.walk(tree):
        if isinstance(node, (ast.expr, ast.arg)):
            node.lineno, node.end_lineno, node.col_offset, node.end_col_offset = line, end_line, column, end_column
    call: FunctionType = eval(compile(tree, code.co_filename, "eval"), {"target": target})  # a constant text
    call.__code__ = call.__code__.replace(co_name=code.co_name, co_qualname=code.co_qualname)
    return call


def watch_scalers(stepped: Callable[[Any, Any, Callable[[], Any]], Any]) -> Undo:
    """Let `stepped(scaler, optimizer, go)` stand in for every gradient scaler's step of an optimizer, which `go` makes."""

    def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        optimizer = args[1] if len(args) > 1 else kwargs.get("optimizer")
        return stepped(args[0], optimizer, lambda: original(*args, **kwargs))

    return surely(torch.amp.GradScaler.step, around)


@dataclass(frozen=True, slots=True, eq=False)
class Clip:
    """One call of `clip_grad_norm_`: the parameters, the total norm that it found, and how to make it again."""

    parameters: list[torch.Tensor]
    norm: Any
    again: Callable[[], Any]


def watch_clipping(clipped: Callable[[Clip], None]) -> Undo:
    """Let `clipped` have each call of `clip_grad_norm_`, after it."""

    def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        given = args[0] if args else kwargs.pop("parameters", ())
        parameters = [given] if isinstance(given, torch.Tensor) else list(given)
        norm = original(parameters, *args[1:], **kwargs)
        clipped(Clip(parameters, norm, lambda: original(parameters, *args[1:], **kwargs)))
        return norm

    return surely(torch.nn.utils.clip_grad_norm_, around)


def watch_module(module: torch.nn.Module, around: Around) -> Undo:
    """Let `around(original, args, kwargs)` stand in for each call of a module; returns what ends it. Several may, and end in any order.

    It takes the place of what `Module.compile` leaves in a module to be called by. That costs a fraction of what hooks do, and no copy of
    the module has it, nor a saved one.
    """
    door = vars(module).get(DOOR)
    if not isinstance(door, _Door):
        door = vars(module)[DOOR] = _Door(module, door)
    door.add(around)
    return lambda: door.remove(around)


def watch_replicas() -> Undo:
    """See to it that the replicas that DataParallel makes of a module are called by themselves, not by way of the module's door."""

    def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        replica = original(*args, **kwargs)
        vars(replica).pop(DOOR, None)
        return replica

    return surely(torch.nn.Module._replicate_for_data_parallel, around)


class _Door:
    """What a watched module is called by; `_before` is what `Module.compile` has put there."""

    __slots__ = ("__call__", "_before", "_module", "_watching")

    def __init__(self, module: torch.nn.Module, before: Callable[..., Any] | None) -> None:
        self._module, self._before = module, before
        self._watching: tuple[Around, ...] = ()

    def add(self, around: Around) -> None:
        """Watch, outermost."""
        self._hand_on((*self._watching, around))

    def remove(self, around: Around) -> None:
        """Watch no more. Nobody left: the module is as it was."""
        self._hand_on(tuple(a for a in self._watching if a is not around))
        if not self._watching and vars(self._module).get(DOOR) is self:
            if self._before is None:
                del vars(self._module)[DOOR]
            else:
                vars(self._module)[DOOR] = self._before

    def _hand_on(self, watching: tuple[Around, ...]) -> None:
        self._watching = watching
        original: Callable[..., Any] = self._before or self._module._call_impl
        call = _chained(original, watching)

        def handed_on(*args: Any, **kwargs: Any) -> Any:
            return original(*args, **kwargs) if is_compiling() else call(args, kwargs)

        self.__call__ = handed_on


def surely(function: Any, around: Around, compiled: bool = False) -> Undo:
    """`watch_function` for one that is known to be written in Python."""
    undo = watch_function(function, around, compiled)
    assert undo is not None, f"{function} is written in Python"
    return undo


def unwrapped(module: torch.nn.Module) -> torch.nn.Module:
    """The module that torch.compile or DistributedDataParallel was given."""
    while True:
        inside = "_orig_mod" if "_orig_mod" in module._modules else "module" if is_data_parallel(module) else None
        inner = None if inside is None else module._modules[inside]
        if inner is None:
            return module
        module = inner


def is_data_parallel(module: torch.nn.Module) -> bool:
    """Whether it is a DistributedDataParallel; does not import it."""
    return any(c.__name__ == "DistributedDataParallel" for c in type(module).__mro__)
