"""The user's own lines from the data to `backward`, run again: those statements of the training loop that the differentiated loss needs.

A loss that the loop computes with lines of its own is no call that could be repeated. What was differentiated is, though, an expression
in a frame: the one that called `backward`. Backwards from it over the statements of the enclosing blocks, the assignments that it needs
are kept (a static slice: Weiser, "Program slicing", 1984), up to values that hold no gradient history, which are taken from the frame as
they are. Their places in the file stay, so that what is found in them has the right line. A watched model gets, call by call, the
arguments that it got in the step. Where the slice cannot be right there is none, and the caller has the step's recorded calls instead.
"""

import ast
import dis
import linecache
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from types import CodeType, FrameType, FunctionType, ModuleType
from typing import Any

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_pre_hook

from whynan.watching.torch.calls import (
    MODEL,
    Call,
    Refused,
    in_autocast,
    mapped,
    refuse_in_replay,
    replay,
    set_random_state,
)
from whynan.watching.torch.intercept import line_of, place_behind
from whynan.watching.torch.nested import attributes, items_of, replaced_in, tensors_in
from whynan.watching.torch.statements import SCOPES, Level, changes, differentiated_in, name_of, path_to, reads, stores
from whynan.watching.torch.window import Differentiated

_PLAIN = (int, float, complex, str, bytes, bool, type, type(None), torch.dtype, torch.device, torch.nn.Module, torch.optim.Optimizer)
_PLAIN_TOO = (np.ndarray, np.generic, FunctionType, ModuleType, range, torch.Generator)
_ITERATES_AGAIN = frozenset({"range", "zip", "enumerate", "reversed", "items", "values", "keys"})
ROOT = "differentiated_by_backward"

Replaced = Callable[[torch.Tensor], torch.Tensor]


@dataclass(frozen=True, slots=True, eq=False)
class Portable:
    """The lines as text, with the values of all names that they read of the frame and of its module; the last line assigns `result`."""

    lines: tuple[str, ...]
    values: dict[str, Any]


@dataclass(slots=True, eq=False)
class Slice:
    """Lines of the user's that can be run again.

    `values` are what they read of the frame, `calls` the step's calls of models, `root` what `backward` was called on, and `exactly`
    whether the lines must give just that (a library in between may have scaled it); `seed` is the gradient that came in by their result.
    """

    code: CodeType
    globals: Mapping[str, Any]
    values: dict[str, Any]
    calls: list[Call]
    step: Differentiated
    exactly: bool
    portable: "Portable | None" = None
    seed: float = 1.0

    def run(self, replaced: Replaced) -> torch.Tensor:
        """Run the lines, with tensors of the data replaced; returns their result.

        Raises Refused if they do what may not be done twice, and whatever the lines raise.
        """
        space = {**self.globals, **{n: replaced_in(v, replaced) for n, v in self.values.items()}}
        with replay(), in_autocast(self.step.autocast), _Replay(self.calls, replaced):
            exec(self.code, space)  # the user's own lines, which this process has run already
        root = space[ROOT]
        if not isinstance(root, torch.Tensor) or not root.requires_grad:
            raise Refused("the lines give no tensor that could be differentiated")
        return root

    def confirmed(self, root: torch.Tensor) -> bool:
        """Whether a result on the whole data is what was differentiated in the step: the same numbers, but for rounding."""
        was, now = self.step.roots[0].double(), root.detach().double()
        if was.shape != now.shape:
            return False
        if not self.exactly and bool(torch.isfinite(was).all() & torch.isfinite(now).all()):
            self.seed = float((was / now).mean())
            return True
        return torch.allclose(now, was, rtol=1e-3, atol=1e-6, equal_nan=True)

    def data(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors that the lines read, by the name that leads to them."""
        named = dict(_data(self.portable.values)) if self.portable is not None else {}
        read = {id(t): t for _, t in _data(self.values)} | {id(t): t for c in self.calls for t in c.tensors()}
        yield from ((n, t) for n, t in named.items() if id(t) in read)
        yield from _data(self.values)


def slices_of(step: Differentiated) -> Iterator[Slice]:
    """The lines that lead to a call of `backward`: for each frame in which they can be found, innermost first. None has been run yet."""
    if len(step.roots) != 1 or not step.plain:
        return
    for depth, (frame, last) in enumerate(step.frames):
        if depth and not _hands_on(step.frames[depth - 1][0]):
            return
        try:
            yield _in_frame(frame, last, step, step.calls, outer=depth > 0)
        except Exception:  # of whatever kind: there are other ways to look into the step
            continue


def _hands_on(frame: FrameType) -> bool:
    """Whether the function was called with what it differentiates: then the caller's lines made it."""
    names = frame.f_code.co_varnames[: frame.f_code.co_argcount + frame.f_code.co_kwonlyargcount]
    first = next((n for n in names if n not in ("self", "cls")), "")
    value = frame.f_locals.get(first)
    if not isinstance(value, torch.Tensor):
        return False
    # a function that has returned may have put a detached tensor into the place of its argument
    return value.grad_fn is not None or any(i.opname == "STORE_FAST" and i.argval == first for i in dis.get_instructions(frame.f_code))


def _in_frame(frame: FrameType, last: int, step: Differentiated, calls: Sequence[Call], outer: bool) -> Slice:
    code = frame.f_code
    where = next(islice(code.co_positions(), last // 2, None), None)
    lines = linecache.getlines(code.co_filename, frame.f_globals)
    if where is None or where[0] is None or not lines:
        raise Refused("the source is not there")
    replayed = {id(c.target) for c in calls} - {id(c.target) for c in calls if c.continues()}
    source = "".join(lines)
    known = frame.f_globals if frame.f_locals is frame.f_globals else dict(frame.f_locals)

    def read(tree: ast.Module) -> tuple[list[ast.stmt], _Reader]:
        found = path_to(tree, where)
        reader = _Reader(known, frame.f_globals, _stored_since(found, frame))
        return reader.sliced(found, differentiated_in(found, where, outer)), reader

    body, reader = read(_Unread(frame, replayed).visit(ast.parse(source)))
    module = ast.fix_missing_locations(ast.Module(body, type_ignores=[]))
    compiled = compile(module, code.co_filename, "exec", dont_inherit=True).replace(co_name=code.co_name, co_qualname=code.co_qualname)
    return Slice(compiled, frame.f_globals, reader.free(), list(calls), step, not outer, _portable(*read(ast.parse(source))))


def _stored_since(found: list[Level], frame: FrameType) -> set[str]:
    """The names that may have been assigned to since `backward` was called."""
    line = frame.f_lineno or sys.maxsize
    later: set[str] = set()
    for level in found:
        for statement in level.block[level.index + 1 :]:
            if statement.lineno <= line:
                later |= stores(statement)
    return later


def _portable(body: list[ast.stmt], reader: "_Reader") -> Portable | None:
    """The lines as another program can run them; None if they need a value that the frame no longer has."""
    try:
        values = reader.everything()
    except Refused:
        return None
    if any(isinstance(v, _Missing) for v in values.values()):
        return None
    return Portable(tuple(line for s in body for line in ast.unparse(ast.fix_missing_locations(s)).split("\n")), values)


# ---------------------------------------------------------------- the slice


class _Unread(ast.NodeTransformer):
    """Takes the arguments out of calls of watched models: they get those of the step, so that what has made them need not run."""

    def __init__(self, frame: FrameType, replayed: set[int]) -> None:
        self._frame, self._replayed = frame, replayed

    def visit_Call(self, node: ast.Call) -> ast.AST:
        """A call without its arguments if it calls a model."""
        base, _, attribute = name_of(node.func).partition(".")
        target = self._frame.f_locals.get(base, self._frame.f_globals.get(base))
        if id(getattr(target, attribute, None) if attribute else target) in self._replayed:
            return ast.copy_location(ast.Call(node.func, [], []), node)
        return self.generic_visit(node)


class _Missing:
    """Stands for a value that the frame no longer has. A watched model does not look at it: it gets its arguments of the step."""


class _Reader:
    """Walks backwards through the blocks of one frame, whose names have the values `known`, and else those of its module."""

    def __init__(self, known: Mapping[str, Any], module: Mapping[str, Any], later: set[str]) -> None:
        self._known, self._module, self._later = known, module, later  # `later`: assigned to after the statement that is looked at
        self._needed: set[str] = set()
        self._taken: dict[str, Any] = {}

    def sliced(self, found: list[Level], expression: ast.expr) -> list[ast.stmt]:
        """The statements that the expression needs, the blocks `with` around them included, and the expression as the last."""
        self._need(expression)
        target = ast.copy_location(ast.Name(ROOT, ast.Store()), expression)
        kept: list[ast.stmt] = [ast.copy_location(ast.Assign([target], expression), expression)]
        for level in reversed(found):
            kept = self._before(level.block[: level.index]) + kept
            if isinstance(level.owner, (ast.For, ast.While, ast.AsyncFor, *SCOPES)):
                break  # what lies before was made in another round, or by the caller
            if isinstance(level.owner, ast.With):
                kept = self._within(level.owner, kept)
        return kept

    def _need(self, node: ast.AST) -> None:
        _decent(node)
        self._needed |= reads(node)

    def _before(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        kept: list[ast.stmt] = []
        for statement in reversed(statements):
            kept = self._looked_at(statement) + kept
            self._later |= stores(statement)
        return kept

    def _looked_at(self, statement: ast.stmt) -> list[ast.stmt]:
        """The statement as far as it is needed."""
        wanted = stores(statement) & self._needed
        for name in [n for n in wanted if self._is_there(n)]:
            self._taken[name] = self._value(name)
            self._needed.discard(name)
            wanted.discard(name)
        wanted |= {n for n in changes(statement) & self._needed if self._is_container(n)}
        if not wanted:
            return []
        if isinstance(statement, ast.With):
            return self._within(statement, self._before(statement.body))
        if isinstance(statement, ast.If):
            return [self._branches(statement)]
        if isinstance(statement, (ast.For, ast.AsyncFor)) and not self._again(statement.iter):
            raise Refused("a loop takes from an iterator")
        if isinstance(statement, ast.AugAssign) and not isinstance(statement.target, ast.Name):
            raise Refused("the lines change an object")
        if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.FunctionDef)):
            self._needed -= stores(statement)
        self._need(statement)
        return [statement]

    def _within(self, statement: ast.With, body: list[ast.stmt]) -> list[ast.stmt]:
        """The statements under those contexts that say how torch computes; other contexts are not entered a second time."""
        items = [item for item in statement.items if self._is_torchs(item.context_expr)]
        if any(stores(item) & self._needed for item in statement.items if item not in items):
            raise Refused("a context's value is needed")
        for item in items:
            self._need(item)
        return [ast.copy_location(ast.With(items, body), statement)] if items and body else body

    def _is_torchs(self, context: ast.expr) -> bool:
        """Whether a context is one of torch's, or is called autocast."""
        made = context.func if isinstance(context, ast.Call) else context
        if "autocast" in ast.unparse(made):
            return True
        while isinstance(made, ast.Attribute):
            made = made.value
        value = self._value(name_of(made))
        kind = value if isinstance(value, (type, FunctionType, ModuleType)) else type(value)
        return f"{kind.__name__ if isinstance(kind, ModuleType) else kind.__module__}.".startswith("torch.")

    def _branches(self, statement: ast.If) -> ast.If:
        needed = set(self._needed)
        yes = self._before(statement.body)
        after, self._needed = self._needed, set(needed)
        no = self._before(statement.orelse)
        self._needed |= after | needed
        self._need(statement.test)
        return ast.copy_location(ast.If(statement.test, yes or [_nothing(statement)], no), statement)

    def _value(self, name: str) -> Any:
        """The name's present value, `_Missing` if it has none."""
        base, _, attribute = name.partition(".")
        value = self._known.get(base, self._module.get(base, _Missing))
        return vars(value).get(attribute, _Missing) if attribute and hasattr(value, "__dict__") else value

    def _is_there(self, name: str) -> bool:
        """Whether the frame still has the value that the statement gave the name, and it holds no gradient history."""
        return name not in self._later and self._value(name) is not _Missing and plain(self._value(name))

    def _is_container(self, name: str) -> bool:
        """Whether this is a container of what the lines make, so that it has to be filled again, too."""
        value = self._value(name)
        return value is _Missing or (isinstance(value, (list, dict, set)) and not plain(value))

    def _again(self, iterated: ast.expr) -> bool:
        """Whether a second loop over this would give the same."""
        if isinstance(iterated, ast.Call):
            f = iterated.func
            return (f.attr if isinstance(f, ast.Attribute) else name_of(f)) in _ITERATES_AGAIN
        if isinstance(iterated, (ast.List, ast.Tuple)):
            return True
        value = self._value(name_of(iterated))
        return isinstance(value, (list, tuple, dict, torch.Tensor, torch.nn.Module)) or (value is _Missing and bool(name_of(iterated)))

    def everything(self) -> dict[str, Any]:
        """As `free`, with the values of the module's names too."""
        free = self.free()
        return {n: self._module[n] for n in sorted(self._needed) if n in self._module and n not in self._known} | free

    def free(self) -> dict[str, Any]:
        """The values of the names that are read before they are assigned to. Raises Refused if one has a history of its own."""
        for name in self._needed & self._known.keys():
            value = self._known[name]
            if name not in self._later and not plain(value) and _has_history(value):
                raise Refused(f"{name} was made before these lines")
            self._taken[name] = _Missing() if name in self._later else value
        if any("." in name and name in self._later for name in self._needed):
            raise Refused("an attribute has changed since")
        return {n: v for n, v in self._taken.items() if "." not in n}


def _nothing(statement: ast.stmt) -> ast.stmt:
    return ast.copy_location(ast.Pass(), statement)


def _decent(node: ast.AST) -> None:
    """Raises Refused for what may not be done again."""
    for n in ast.walk(node):
        if isinstance(n, (ast.Yield, ast.YieldFrom, ast.Await, ast.Return, ast.Global, ast.Nonlocal)) and not isinstance(node, SCOPES):
            raise Refused("the lines hand something out")
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in ("next", "input"):
            raise Refused("the lines take from an iterator")
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in ("backward", "step"):
            raise Refused("the lines change gradients or parameters")


# ---------------------------------------------------------------- values


def plain(value: Any, depth: int = 4) -> bool:
    """Whether a value is known to hold no gradient history, so that it can be used as it is."""
    if isinstance(value, torch.Tensor):
        return value.grad_fn is None
    if isinstance(value, (*_PLAIN, *_PLAIN_TOO)):
        return True
    if depth and isinstance(value, Mapping):
        return all(plain(v, depth - 1) for v in value.values())
    if depth and isinstance(value, (tuple, list, set, frozenset)):
        return all(plain(v, depth - 1) for v in value)
    return bool(depth and attributes(value)) and plain(attributes(value), depth - 1)


def _has_history(value: Any) -> bool:
    return any(t.grad_fn is not None for t in tensors_in(value))


def _data(values: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that the lines read, by the name that leads to them."""
    for name, value in values.items():
        if isinstance(value, torch.Tensor):
            yield name, value
        elif not isinstance(value, torch.nn.Module):
            yield from _data({f"{name}.{k}": v for k, v in items_of(value)})


# ---------------------------------------------------------------- running


class _Replay:
    """While the lines run: each call of a watched model gets the arguments and the random state of the step; nothing is updated."""

    def __init__(self, calls: Sequence[Call], replaced: Replaced) -> None:
        self._left = [c for c in calls if c.role == MODEL]
        self._replaced = replaced
        self._rng = calls[0].rng if calls else {}
        self._handles: list[Any] = []
        self._inside = 0

    def __enter__(self) -> None:
        set_random_state(self._rng)
        self._handles.append(register_optimizer_step_pre_hook(refuse_in_replay))
        for module in {id(c.target): c.target for c in self._left}.values():
            self._handles.append(module.register_forward_pre_hook(self._begin, with_kwargs=True, prepend=True))
            self._handles.append(module.register_forward_hook(self._end, always_call=True))

    def __exit__(self, *_: object) -> None:
        for handle in self._handles:
            handle.remove()

    def _begin(self, module: torch.nn.Module, args: Any, kwargs: Any) -> Any:
        self._inside += 1
        if self._inside > 1:
            return None
        here = line_of(place_behind())
        same = [c for c in self._left if c.target is module and line_of(c.place) == here]
        fresh = [c for c in same if not c.carried]  # a carried one may be of an earlier round of the loop
        kept = fresh[0] if fresh else same[-1] if same else None
        if kept is None:
            raise Refused("the model is called otherwise than in the step")
        self._left.remove(kept)
        set_random_state(kept.rng)
        if kept.continues():  # made by the lines: what they have made now goes in
            return None
        return mapped(self._replaced, kept.args, kept.kwargs)

    def _end(self, module: torch.nn.Module, args: Any, result: Any) -> None:
        self._inside -= 1
