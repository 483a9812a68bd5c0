"""Seeing calls that no hook of torch shows: a loss that is a plain function, `backward`, a gradient scaler's step.

A function is watched by giving the function object other code, which hands each call on: it is seen wherever the loop has it from, a
local name or a module's. The original is called with its own code, so that positions in the source stay right.
"""

import functools
import inspect
from collections.abc import Callable
from pathlib import Path
from sys import _getframe
from types import FrameType, FunctionType
from typing import Any

import torch

MOST_FRAMES = 5  # callers that are remembered: a backward may be called by way of a library

LIBRARIES = (str(Path(torch.__file__).parent), str(Path(__file__).parents[2]))

Undo = Callable[[], None]
Around = Callable[[Callable[..., Any], tuple[Any, ...], dict[str, Any]], Any]

_PLACE = "the function that the call is handed to"


def _handing_on(*args: Any, **kwargs: Any) -> Any:
    call: Any = "the function that the call is handed to"  # this constant is replaced, see below
    return call(args, kwargs)


def watch_function(function: Any, around: Around) -> Undo | None:
    """Let `around(original, args, kwargs)` be called in place of a function, method or partial; returns what ends it.

    A method is watched for its own object only, which is the first of `args`. None if the callable is not written in Python (a built-in, a
    scripted function).
    """
    plain = plain_function(function)
    if plain is None:
        return None
    owner = owner_of(function)
    code, before = plain.__code__, plain.__dict__.get("__wrapped__")
    original = FunctionType(code, plain.__globals__, plain.__name__, plain.__defaults__, plain.__closure__)
    original.__kwdefaults__, original.__qualname__, original.__module__ = plain.__kwdefaults__, plain.__qualname__, plain.__module__
    original.__annotations__ = plain.__annotations__

    active = True

    def handed(args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        if active and (owner is None or (args and args[0] is owner)):
            return around(original, args, kwargs)
        return original(*args, **kwargs)

    template = _handing_on.__code__
    constants = tuple(handed if c == _PLACE else c for c in template.co_consts)
    replaced = template.replace(co_consts=constants, co_freevars=code.co_freevars, co_name=code.co_name, co_qualname=code.co_qualname)
    plain.__code__ = replaced
    plain.__wrapped__ = original  # type: ignore[attr-defined]  # what inspect.signature looks at

    def undo() -> None:
        nonlocal active
        active = False
        if plain.__code__ is not replaced:
            return  # somebody else watches it, too, and goes on
        plain.__code__ = code
        if before is None:
            del plain.__wrapped__  # type: ignore[attr-defined]
        else:
            plain.__wrapped__ = before  # type: ignore[attr-defined]

    return undo


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


def frames_behind() -> tuple[tuple[FrameType, int], ...]:
    """The frames of the user's that lead to this call, innermost first, with where each of them is."""
    found: list[tuple[FrameType, int]] = []
    frame: FrameType | None = _getframe(1)
    while frame is not None and len(found) < MOST_FRAMES:
        if not frame.f_code.co_filename.startswith(LIBRARIES):
            found.append((frame, frame.f_lasti))
        frame = frame.f_back
    return tuple(found)


def place_behind() -> tuple[str, int]:
    """File and line of the user's that lead to this call."""
    frame: FrameType | None = _getframe(1)
    while frame is not None and frame.f_code.co_filename.startswith(LIBRARIES):
        frame = frame.f_back
    return (frame.f_code.co_filename, frame.f_lineno or 0) if frame is not None else ("", 0)


def watch_backward(seen: Callable[[list[Any], bool], None]) -> Undo:
    """Let `seen` have the tensors that `backward` is called on, before it runs, and whether it starts from ones."""

    def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        roots = args[0] if args else kwargs.get("tensors", ())
        first = args[1] if len(args) > 1 else kwargs.get("grad_tensors")
        seen([roots] if isinstance(roots, torch.Tensor) else list(roots), first is None)
        return original(*args, **kwargs)

    return _surely(torch.autograd.backward, around)


def watch_scalers(stepped: Callable[[Any, Any, Callable[[], Any]], Any]) -> Undo:
    """Let `stepped(scaler, optimizer, go)` stand in for every gradient scaler's step of an optimizer, which `go` makes."""

    def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        optimizer = args[1] if len(args) > 1 else kwargs.get("optimizer")
        return stepped(args[0], optimizer, lambda: original(*args, **kwargs))

    return _surely(torch.amp.GradScaler.step, around)


def watch_clipping(clipped: Callable[[Any], None]) -> Undo:
    """Let `clipped` have the total norm that `clip_grad_norm_` found."""

    def around(original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        norm = original(*args, **kwargs)
        clipped(norm)
        return norm

    return _surely(torch.nn.utils.clip_grad_norm_, around)


def _surely(function: Any, around: Around) -> Undo:
    undo = watch_function(function, around)
    assert undo is not None, f"{function} is written in Python"
    return undo
