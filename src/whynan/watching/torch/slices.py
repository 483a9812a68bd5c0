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
from collections.abc import Callable, Iterator, Mapping, Sequence, Set
from dataclasses import dataclass, field
from itertools import islice
from types import CodeType, FrameType
from typing import Any

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
)
from whynan.watching.torch.intercept import line_of, place_behind
from whynan.watching.torch.needed import ROOT, Missing, Reader, Way, finite
from whynan.watching.torch.nested import named_in, replaced_in, tensors_in
from whynan.watching.torch.statements import Level, differentiated_in, name_of, path_to, stores
from whynan.watching.torch.window import Differentiated

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
    `made` are the models, by id, whose arguments the lines make again. `left` are the tensors that the frame has of the names that the
    lines assign to, `again` what they gave these names when they ran last.
    """

    code: CodeType
    globals: Mapping[str, Any]
    values: dict[str, Any]
    calls: list[Call]
    step: Differentiated
    exactly: bool
    made: Set[int]
    left: Mapping[str, torch.Tensor]
    portable: "Portable | None" = None
    seed: float = 1.0
    again: Mapping[str, Any] = field(default_factory=dict)

    def run(self, replaced: Replaced) -> torch.Tensor:
        """Run the lines, with tensors of the data replaced; returns their result.

        Raises Refused if they do what may not be done twice, and whatever the lines raise.
        """
        space = {**self.globals, **{n: replaced_in(v, replaced) for n, v in self.values.items()}}
        with replay(), in_autocast(self.step.autocast), _Replay(self.calls, replaced, self.made):
            exec(self.code, space)  # the user's own lines, which this process has run already
        root, self.again = space[ROOT], {n: space.get(n) for n in self.left}
        if not isinstance(root, torch.Tensor) or not root.requires_grad:
            raise Refused("the lines give no tensor that could be differentiated")
        return root

    def confirmed(self, root: torch.Tensor) -> bool:
        """Whether a run on the whole data, with this result, was as in the step: the same numbers, but for rounding."""
        was, now = self.step.roots[0].double(), root.detach().double()
        if was.shape != now.shape or not all(map(_alike, self.left.values(), self.again.values())):
            return False
        if not self.exactly and bool(torch.isfinite(was).all() & torch.isfinite(now).all()):
            self.seed = float((was / now).mean())
            return True
        return _alike(now, was)

    def given(self) -> list[Call]:
        """The calls of models that get the arguments that they had in the step."""
        return [c for c in self.calls if id(c.target) not in self.made]

    def data(self) -> Iterator[tuple[str, torch.Tensor]]:
        """The tensors that the lines read, by the name that leads to them."""
        named = dict(_data(self.portable.values)) if self.portable is not None else {}
        read = {id(t): t for _, t in _data(self.values)} | {id(t): t for c in self.given() for t in c.tensors()}
        yield from ((n, t) for n, t in named.items() if id(t) in read)
        yield from _data(self.values)


def _alike(a: torch.Tensor, b: Any) -> bool:
    """Whether two tensors hold the same numbers, but for rounding."""
    if not isinstance(b, torch.Tensor) or a.shape != b.shape:
        return False
    return torch.allclose(a.detach().double(), b.detach().double(), rtol=1e-3, atol=1e-6, equal_nan=True)


def slices_of(step: Differentiated, way: Way) -> Iterator[Slice]:
    """The lines that lead to a call of `backward`: for each frame in which they can be found, innermost first. None has been run yet."""
    if len(step.roots) != 1 or not step.plain:
        return
    frames = step.frames if step.round is None else (*step.frames, (step.round.frame, step.round.last))
    for depth, (frame, last) in enumerate(frames):
        if depth and not _hands_on(frames[depth - 1][0]):
            return
        try:
            yield _in_frame(frame, last, step, way, outer=depth > 0)
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


def _in_frame(frame: FrameType, last: int, step: Differentiated, way: Way, outer: bool) -> Slice:
    code = frame.f_code
    where = next(islice(code.co_positions(), last // 2, None), None)
    lines = linecache.getlines(code.co_filename, frame.f_globals)
    if where is None or where[0] is None or not lines:
        raise Refused("the source is not there")
    doubted = {id(c.target) for c in step.calls if way.doubting and not all(map(finite, c.tensors()))}
    made = doubted | {id(c.target) for c in step.calls if c.continues()}
    replayed = {id(c.target) for c in step.calls} - made
    source = "".join(lines)
    known = frame.f_globals if frame.f_locals is frame.f_globals else dict(frame.f_locals)
    past = step.round if step.round is not None and step.round.frame is frame else None
    if past is not None:
        known = {**known, **past.values}

    def read(tree: ast.Module) -> tuple[list[ast.stmt], Reader]:
        found = path_to(tree, where)
        since = _stored_since(found, frame)
        reader = Reader(known, frame.f_globals, since if past is None else (since | past.names) - past.values.keys(), way)
        return reader.sliced(found, differentiated_in(found, where, outer)), reader

    body, reader = read(_Unread(frame, replayed).visit(ast.parse(source)))
    module = ast.fix_missing_locations(ast.Module(body, type_ignores=[]))
    compiled = compile(module, code.co_filename, "exec", dont_inherit=True).replace(co_name=code.co_name, co_qualname=code.co_qualname)
    values, portable = reader.free(), _portable(*read(ast.parse(source)))
    left = reader.left(body)
    return Slice(compiled, frame.f_globals, values, list(step.calls), step, not outer, doubted, left, portable)


def _stored_since(found: list[Level], frame: FrameType) -> set[str]:
    """The names that may have been assigned to since `backward` was called."""
    line = frame.f_lineno or sys.maxsize
    later: set[str] = set()
    for level in found:
        for statement in level.block[level.index + 1 :]:
            if statement.lineno <= line:
                later |= stores(statement)
    return later


def _portable(body: list[ast.stmt], reader: Reader) -> Portable | None:
    """The lines as another program can run them; None if they need a value that the frame no longer has."""
    try:
        values = reader.everything()
    except Refused:
        return None
    if any(isinstance(v, Missing) for v in values.values()):
        return None
    return Portable(tuple(line for s in body for line in ast.unparse(ast.fix_missing_locations(s)).split("\n")), values)


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


def _data(values: Mapping[str, Any]) -> Iterator[tuple[str, torch.Tensor]]:
    """The tensors that the lines read, by the name that leads to them."""
    for name, value in values.items():
        yield from named_in(name, value)


# ---------------------------------------------------------------- running


class _Replay:
    """While the lines run: each call of a watched model gets the arguments and the random state of the step; nothing is updated."""

    def __init__(self, calls: Sequence[Call], replaced: Replaced, made: Set[int]) -> None:
        self._left = [c for c in calls if c.role == MODEL]
        self._replaced, self._made = replaced, made
        self._first = calls[0] if calls else None
        self._handles: list[Any] = []
        self._inside = 0

    def __enter__(self) -> None:
        if self._first is not None:
            self._first.rewind()
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
        kept.rewind()
        if kept.continues():  # made by the lines: what they have made now goes in
            return None
        if id(module) in self._made:
            _as_in_the_step(kept.tensors(), tensors_in((args, kwargs)))
            return None
        return mapped(self._replaced, kept.args, kept.kwargs)

    def _end(self, module: torch.nn.Module, args: Any, result: Any) -> None:
        self._inside -= 1


def _as_in_the_step(kept: Sequence[torch.Tensor], now: Sequence[torch.Tensor]) -> None:
    """Raises Refused where the lines have made other arguments of the whole batch than the step had."""
    same = len(kept) == len(now)
    if not same or any(a.shape == b.shape and not torch.allclose(a, b, equal_nan=True) for a, b in zip(kept, now, strict=True)):
        raise Refused("the model's arguments come out otherwise when they are made again")
