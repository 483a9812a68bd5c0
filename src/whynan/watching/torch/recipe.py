"""What a bundle keeps of a PyTorch step: its tensors by name, and the calls as Python text for `replay.py`."""

import ast
import functools
import inspect
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from types import FunctionType, ModuleType
from typing import Any

import torch

from whynan.watching.recipe import Writer, piece
from whynan.watching.record import Piece, Recipe
from whynan.watching.torch.calls import Call
from whynan.watching.torch.intercept import plain_function
from whynan.watching.torch.needed import ROOT
from whynan.watching.torch.nested import tensors_in
from whynan.watching.torch.rerun import Part
from whynan.watching.torch.slices import Portable, Slice

_WRAPPERS = {"OptimizedModule": "_orig_mod", "DistributedDataParallel": "module", "DataParallel": "module"}


def bundled(part: Part, modules: Mapping[str, torch.nn.Module], loss: Any) -> tuple[Recipe, dict[str, Any]]:
    """How a piece of a step is run again, and the tensors for it.

    `modules` are the watched ones by the path that their parameters' names begin with, `loss` is what was given as the loss. The tensors'
    names begin with "batch/" (data), "differentiated/" (inputs with a gradient, values made between the calls), "parameters/",
    "buffers/", "seeds/" (the gradients that came in by the losses) and "rng/CALL/".
    """
    if part.lines is not None and part.lines.portable is not None:
        return _of_lines(part, part.lines, part.lines.portable, modules, loss)
    called = [m for m in modules.values() if any(c.target is m for c in part.calls)]
    pieces = {id(m): _module(prefix, m, len(modules)) for prefix, m in modules.items() if m in called}
    writer = Writer(lambda t: isinstance(t, torch.Tensor))
    lines: list[str] = []
    for number, c in enumerate(part.calls):
        callee = pieces[id(c.target)].name if id(c.target) in pieces else "loss"
        lines += [f"with state({number}, given):", f"    output{number} = {_called(c, callee, loss, writer)}"]
        made = [(t, f"leaf(output{number}, {i})") for i, o in enumerate(c.outputs) if (t := o()) is not None]
        writer.known[:0] = made
        if c in part.ends or not part.ends:
            lines.append(f"yield root(output{number})")
    function = [_function(loss)] if any(id(c.target) not in pieces for c in part.calls) else []
    recipe = Recipe((*pieces.values(), *function), tuple(lines), tuple(_autocast(c) for c in part.calls))
    return recipe, {**writer.tensors, **dict(_state(part, modules, called))}


def _of_lines(
    part: Part, lines: Slice, portable: Portable, modules: Mapping[str, torch.nn.Module], loss: Any
) -> tuple[Recipe, dict[str, Any]]:
    """The user's own lines, after assignments of what they read: data, models, functions, modules of Python."""
    read = {id(v) for v in portable.values.values()}
    needed = read | {id(t) for v in portable.values.values() for t in tensors_in(v)}
    used = {prefix: m for prefix, m in modules.items() if id(m) in read or any(id(p) in needed for p in m.parameters())}
    pieces = {id(m): _module(prefix, m, len(modules)) for prefix, m in used.items()}
    if loss is not None and id(loss) in read and id(loss) not in pieces:
        pieces[id(loss)] = _function(loss)
    others = {n: v for n, v in portable.values.items() if isinstance(v, torch.nn.Module) and id(v) not in pieces}
    pieces |= {id(m): _module(name, m, 1, name) for name, m in others.items()}
    writer = Writer(lambda t: isinstance(t, torch.Tensor))
    writer.known += [(p, f"{pieces[id(m)].name}.get_parameter({n!r})") for m in used.values() for n, p in m.named_parameters()]
    before = [f"{name} = {_value(name, value, pieces, writer)}" for name, value in portable.values.items()]
    before = [line for line in before if line.partition(" = ")[0] != line.partition(" = ")[2]]
    text = [*before, "with state(0, given):", *(f"    {line}" for line in portable.lines), f"yield {ROOT}"]
    autocast = tuple((device, str(dtype).removeprefix("torch.")) for device, _, dtype in lines.step.autocast)
    tensors = {**writer.tensors, **dict(_state(part, {**used, **others}, [*used.values(), *others.values()]))}
    if lines.seed != 1:
        tensors["seeds/0"] = torch.full_like(lines.step.roots[0], lines.seed)
    return Recipe(tuple(pieces.values()), tuple(text), (autocast,)), tensors


def _value(name: str, value: Any, pieces: Mapping[int, Piece], writer: Writer) -> str:
    """What a name of the user's lines stands for, as text."""
    if id(value) in pieces:
        return pieces[id(value)].name
    if isinstance(value, ModuleType):
        return f"importlib.import_module({value.__name__!r})"
    if isinstance(value, torch.amp.GradScaler):
        return f"torch.amp.GradScaler({value._device!r}, init_scale={value.get_scale()!r}, enabled={value.is_enabled()})"
    return writer.text(value, f"batch/{name}")


def _called(c: Call, callee: str, loss: Any, writer: Writer) -> str:
    """A call as text, with its arguments by name where the signature tells them."""
    try:
        names = [p.name for p in inspect.signature(getattr(c.target, "forward", c.target)).parameters.values() if p.kind in _NAMED]
    except (TypeError, ValueError):
        names = []
    args = c.args[1:] if c.args and c.args[0] is loss and callee == "loss" else c.args  # of an object that is called, `self`
    names = names[len(c.args) - len(args) :]
    parts = [writer.text(value, f"batch/{names[i] if i < len(names) else i}") for i, value in enumerate(args)]
    parts += [f"{name}={writer.text(value, f'batch/{name}')}" for name, value in c.kwargs.items()]
    return f"{callee}({', '.join(parts)})"


_NAMED = (inspect.Parameter.POSITIONAL_ONLY, inspect.Parameter.POSITIONAL_OR_KEYWORD)


def _autocast(c: Call) -> tuple[tuple[str, str], ...]:
    return tuple((device, str(dtype).removeprefix("torch.")) for device, _, dtype in c.autocast)


def _state(part: Part, modules: Mapping[str, torch.nn.Module], called: Sequence[torch.nn.Module]) -> Iterator[tuple[str, torch.Tensor]]:
    """Parameters, buffers, incoming gradients and random state."""
    for path, m in ((path, m) for path, m in modules.items() if m in called):
        dot = f"{path}." if path else ""
        yield from ((f"parameters/{dot}{name}", p) for name, p in m.named_parameters())
        yield from ((f"buffers/{dot}{name}", b) for name, b in m.named_buffers())
    yield from ((f"seeds/{i}", c.seed) for i, c in enumerate(part.ends) if isinstance(c.seed, torch.Tensor))
    for number, c in enumerate(part.calls):
        states = {**c.rng, **(c.chance.tensors() if c.chance is not None else {})}
        yield from ((f"rng/{number}/{device}", state) for device, state in states.items())


# ---------------------------------------------------------------- the user's code


def _module(path: str, module: torch.nn.Module, of: int, called: str = "") -> Piece:
    """A watched module. Wrappers of torch's own around it are left away; their part of the parameters' names stays in the prefix."""
    prefix, inner = f"{path}." if path else "", module
    while (held := _WRAPPERS.get(type(inner).__name__)) and type(inner).__module__.startswith("torch."):
        prefix, inner = f"{prefix}{held}.", getattr(inner, held)
    name = called or ("loss" if path == "loss" else f"model{path}")
    evaluating = tuple(n for n, m in inner.named_modules() if n and not m.training and inner.training)
    made = replace(piece(name, inner), prefix=prefix, training=inner.training, evaluating=evaluating)
    text = built_in(inner) if made.missing else ""
    return replace(made, missing="", text=text) if text else made


def _function(loss: Any) -> Piece:
    """A loss that is no module; of a partial the function behind it, since the call has all its arguments."""
    plain = plain_function(loss) if isinstance(loss, (FunctionType, functools.partial)) else None
    return piece("loss", plain or loss)


def built_in(module: torch.nn.Module) -> str:
    """The constructor's call of one of torch's own layers, or of a Sequential of them; empty if it cannot be told."""
    kind = type(module)
    if getattr(torch.nn, kind.__name__, None) is not kind:
        return ""
    if kind is torch.nn.Sequential:
        parts = [built_in(m) for m in module.children()]
        plain = [n for n, _ in module.named_children()] == [str(i) for i in range(len(parts))]
        return f"torch.nn.Sequential({', '.join(parts)})" if plain and all(parts) else ""
    text = f"torch.nn.{kind.__name__}({module.extra_repr()})"
    return text if not list(module.children()) and _is_call(text) else ""


def _is_call(text: str) -> bool:
    """Whether a text is one call with literal arguments."""
    try:
        call = ast.parse(text, mode="eval").body
        assert isinstance(call, ast.Call)
        for value in (*call.args, *(k.value for k in call.keywords)):
            ast.literal_eval(value)
    except (SyntaxError, ValueError, AssertionError):
        return False
    return True
