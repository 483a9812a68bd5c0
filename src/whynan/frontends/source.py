"""From Python frames and source positions to the exact expression, for every front end.

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

import numpy as np

from whynan.ir.where import Site, source_text

USER, LIBRARY, PLUMBING = range(3)

_Span = tuple[int, int, int, int]  # line, column, end line, end column

_HERE = os.path.dirname(os.path.abspath(__file__))
_WHYNAN = os.path.dirname(_HERE) + os.sep
_GENERATED = ("<frozen", "<eval_with_key", "<attrs generated", "<__array_function__")


def _roots() -> tuple[str, ...]:
    packages = [*site_packages.getsitepackages(), site_packages.getusersitepackages(), os.path.dirname(os.path.dirname(np.__file__))]
    paths = [sysconfig.get_path(name) for name in ("stdlib", "platstdlib", "purelib", "platlib")]
    known = {os.path.abspath(p) + os.sep for p in [*packages, *paths] if p}
    real = {os.path.realpath(p) + os.sep for p in known}
    return tuple(sorted(known | real, key=len, reverse=True))


_ROOTS = _roots()


@cache
def kind_of(file: str, passing: tuple[str, ...] = ()) -> int:
    """Whether a file is the user's, a library's, or only passes calls on.

    `passing` are beginnings of paths below site-packages, of a framework's own files that only pass calls on.
    """
    if file.startswith("<"):
        return PLUMBING if file.startswith(_GENERATED) else USER
    path = os.path.abspath(file)
    if path.startswith(_WHYNAN):
        return PLUMBING
    if not path.startswith(_ROOTS):
        return USER
    below = relative(path)
    return PLUMBING if below.startswith(passing) or below in ("contextlib.py", "functools.py") else LIBRARY


def relative(path: str) -> str:
    """A library file's path below the folder that packages are installed in."""
    for root in _ROOTS:
        if path.startswith(root):
            return path[len(root) :].replace(os.sep, "/")
    return path


def detail_of(frame: FrameType | None) -> str:
    """A library frame below the user's expression, as text: "torch/nn/functional.py:3412 in kl_div"."""
    if frame is None:
        return ""
    return f"{relative(os.path.abspath(frame.f_code.co_filename))}:{frame.f_lineno} in {frame.f_code.co_name}"


def site_at(code: CodeType, lasti: int, detail: str = "") -> Site:
    """The expression that the instruction at that offset belongs to."""
    line, end_line, column, end_column = _position(code, lasti)
    file, function = code.co_filename, code.co_qualname
    if line is None or end_line is None or column is None or end_column is None:
        line = line or code.co_firstlineno
        text = linecache.getline(file, line).rstrip("\n")
        return Site(file, line, line, 0, len(text.encode()), text.strip(), function, detail)
    return site_of_span(file, (line, column, end_line, end_column), function, detail)


def site_of_span(file: str, span: _Span, function: str, detail: str = "") -> Site:
    """The expression at a span (line, column, end line, end column; lines from 1, columns from 0 in UTF-8 bytes)."""
    line, column, end_line, end_column = _expression(file, span)
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
