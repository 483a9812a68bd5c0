"""Where an operation stands: the user's own expression on the Python stack, or the forward expression behind a gradient.

The user's code is every file outside the standard library, the installed packages and whynan. If there is none below the target (the
target itself is a library function) the library's outermost frame takes its place.
"""

import ast
import linecache
import os
import re
import site as site_packages
import sysconfig
from dataclasses import dataclass
from functools import cache, lru_cache
from itertools import islice
from types import CodeType, FrameType
from typing import Any

import torch
from torch._C._autograd import _get_sequence_nr as sequence_number
from torch.autograd.graph import _engine_run_backward
from torch.overrides import handle_torch_function

from whynan.ir.graph import BACKWARD, FORWARD
from whynan.ir.where import Site, source_text

USER, LIBRARY, PLUMBING = range(3)

_Span = tuple[int, int, int, int]  # line, column, end line, end column

_HERE = os.path.dirname(os.path.abspath(__file__))
_WHYNAN = os.path.dirname(os.path.dirname(_HERE)) + os.sep
_GENERATED = ("<frozen", "<eval_with_key", "<attrs generated", "<__array_function__")
# files whose frames only pass a call on
_PASSING = ("torch/nn/modules/module.py", "torch/utils/_contextlib.py", "torch/_compile.py", "torch/_dynamo/", "torch/overrides.py")
_HANDOVER = handle_torch_function.__code__


def _roots() -> tuple[str, ...]:
    packages = [*site_packages.getsitepackages(), site_packages.getusersitepackages(), os.path.dirname(os.path.dirname(torch.__file__))]
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    known = {os.path.abspath(p) + os.sep for p in [*packages, *paths] if p}
    real = {os.path.realpath(p) + os.sep for p in known}
    return tuple(sorted(known | real, key=len, reverse=True))


_ROOTS = _roots()


@cache
def kind_of(file: str) -> int:
    """Whether a file is the user's, a library's, or only passes calls on."""
    if file.startswith("<"):
        return PLUMBING if file.startswith(_GENERATED) else USER
    path = os.path.abspath(file)
    if path.startswith(_WHYNAN):
        return PLUMBING
    if not path.startswith(_ROOTS):
        return USER
    relative = _relative(path)
    return PLUMBING if relative.startswith(_PASSING) or relative in ("contextlib.py", "functools.py") else LIBRARY


def _relative(path: str) -> str:
    for root in _ROOTS:
        if path.startswith(root):
            return path[len(root) :].replace(os.sep, "/")
    return path


class Places:
    """Sites for one capture. `floors` are whynan's functions that call the target and the autograd engine."""

    def __init__(self, floors: tuple[CodeType, ...]) -> None:
        self._floors = floors
        self._engine = (*floors, _engine_run_backward.__code__)
        self._sites: dict[tuple[int, int, int, int], Site] = {}
        self._files: set[str] = set()  # whose text is up to date
        self._codes: list[CodeType] = []  # kept alive: `_sites` knows them by id
        self._forward: dict[int, tuple[Site | None, int]] = {}  # sequence number of an autograd node -> the forward expression and call
        self._next = sequence_number()
        self._last: tuple[Site | None, int] = (None, -1)

    def here(self, frame: FrameType | None, source: int) -> tuple[str, Site | None, int]:
        """Phase and site of the op that is being called below that frame as call number `source`.

        Third, for a backward op, the number of the forward call whose derivative it computes, else -1.
        """
        node, derives = torch._C._current_autograd_node(), -1
        if node is None:
            phase, site = FORWARD, self._on_stack(frame, in_engine=False)
        else:
            forward, derives = self._forward.get(node._sequence_nr(), (None, -1))
            site = self._on_stack(frame, in_engine=True)
            # code of the user that autograd calls: a recomputed forward part (checkpoint) or a backward() of their own
            phase = FORWARD if site is not None and torch.is_grad_enabled() else BACKWARD
            site, derives = site or forward, derives if phase == BACKWARD else -1
        self._last = site, source
        self._assign()
        return phase, site, derives

    def forward(self, node: Any) -> Site | None:
        """The forward expression that made an autograd node."""
        return self._forward.get(node._sequence_nr(), (None, -1))[0]

    def returned(self) -> None:
        """A torch function has returned to Python: autograd nodes made since the last op belong to that op."""
        self._assign()

    def _assign(self) -> None:
        now = sequence_number()
        for number in range(self._next, now):
            self._forward[number] = self._last
        self._next = now

    def _on_stack(self, frame: FrameType | None, *, in_engine: bool) -> Site | None:
        floors = self._engine if in_engine else self._floors
        inner: FrameType | None = None
        outer: FrameType | None = None
        while frame is not None and frame.f_code not in floors:
            kind = kind_of(frame.f_code.co_filename)
            if kind == USER:
                return self._site(frame, inner)
            if kind == LIBRARY:
                inner, outer = inner or frame, frame
            if frame.f_code is _HANDOVER and frame.f_back is not None:
                frame = frame.f_back  # the function that hands itself over to the recorder's mode: it is on the stack twice
            frame = frame.f_back
        return None if in_engine or outer is None else self._site(outer, inner if inner is not outer else None)

    def _site(self, frame: FrameType, inner: FrameType | None) -> Site:
        below = inner.f_code if inner is not None else None
        key = (id(frame.f_code), frame.f_lasti, id(below), inner.f_lasti if inner is not None else -1)
        found = self._sites.get(key)
        if found is None:
            if frame.f_code.co_filename not in self._files:
                self._files.add(frame.f_code.co_filename)
                linecache.checkcache(frame.f_code.co_filename)
            found = self._sites[key] = site_at(frame.f_code, frame.f_lasti, _detail(inner))
            self._codes += [frame.f_code] if below is None else [frame.f_code, below]
        return found


def _detail(frame: FrameType | None) -> str:
    if frame is None:
        return ""
    return f"{_relative(os.path.abspath(frame.f_code.co_filename))}:{frame.f_lineno} in {frame.f_code.co_name}"


def site_at(code: CodeType, lasti: int, detail: str = "") -> Site:
    """The expression that the instruction at that offset belongs to."""
    line, end_line, column, end_column = _position(code, lasti)
    file, function = code.co_filename, code.co_qualname
    if line is None or end_line is None or column is None or end_column is None:
        line = line or code.co_firstlineno
        text = linecache.getline(file, line).rstrip("\n")
        return Site(file, line, line, 0, len(text.encode()), text.strip(), function, detail)
    span = _expression(file, (line, column, end_line, end_column))
    line, column, end_line, end_column = span
    return Site(file, line, end_line, column, end_column, source_text(file, line, end_line, column, end_column), function, detail)


@lru_cache(maxsize=8192)
def _position(code: CodeType, lasti: int) -> tuple[int | None, int | None, int | None, int | None]:
    """Line, end line, column and end column of an instruction."""
    return next(islice(code.co_positions(), lasti // 2, None), (None, None, None, None))


def _expression(file: str, span: _Span) -> _Span:
    """The span that a person would point at, where CPython's is another.

    CPython lets a method call on a later line of its chain begin at the method's name, and a branch be all of its `if` statement.
    """
    line, column, end_line, end_column = span
    text = source_text(file, line, end_line, column, end_column)
    before = linecache.getline(file, line).encode()[:column].rstrip()
    if before.endswith(b"."):
        starts = _tree(tuple(linecache.getlines(file))).starts.get((end_line, end_column), ())
        return (*max((s for s in starts if s < (line, column)), default=(line, column)), end_line, end_column)
    if re.match(r"(if|elif|while|assert)\b", text) or " if " in text:
        return _tree(tuple(linecache.getlines(file))).conditions.get(span, span)
    return span


@dataclass(frozen=True, slots=True)
class _Tree:
    """Of one source text: where the expressions that have a given end start, and the span of each branching construct's condition."""

    starts: dict[tuple[int, int], list[tuple[int, int]]]
    conditions: dict[_Span, _Span]


@lru_cache(maxsize=64)
def _tree(lines: tuple[str, ...]) -> _Tree:
    found = _Tree({}, {})
    try:
        nodes = list(ast.walk(ast.parse("".join(lines))))
    except SyntaxError:
        return found
    for node in nodes:
        if isinstance(node, ast.expr):
            start, end = _span(node)[:2], _span(node)[2:]
            found.starts.setdefault(end, []).append(start)
        if isinstance(node, (ast.If, ast.While, ast.Assert, ast.IfExp)):
            found.conditions[_span(node)] = _span(node.test)
    return found


def _span(node: ast.expr | ast.stmt) -> _Span:
    return node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
