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
from collections.abc import Iterator, Sequence
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


# files of Keras whose frames only pass a call on
KERAS_PASSING = (
    "keras/src/utils/traceback_utils.py",
    "keras/src/ops/operation.py",
    "keras/src/ops/function.py",
    "keras/src/layers/preprocessing/data_layer.py",
    "keras/src/models/",
    "keras/src/trainers/",
    "keras/src/backend/tensorflow/trainer.py",
    "keras/src/backend/torch/trainer.py",
    "keras/src/backend/jax/trainer.py",
)


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


# ---------------------------------------------------------------- places without an end, as tracebacks give them


def expression_at(
    file: str, line: int, column: int | None, names: Sequence[str], function: str, detail: str = "", occurrence: int = 0
) -> Site:
    """The expression that an operation stands for whose place has no end: a line and, if it is known, the column where it begins.

    `names` are what the operation may be called there, the likeliest first: a function's or method's name ("log", "mean") or that of
    an operator in any framework's spelling ("mul", "truediv", "RealDiv", "getitem", "neg", "lt"). Among the calls and operators
    that begin there (without a column: that stand on the line) those with the earliest name are taken, else the smallest call, else
    the smallest operator. `a + b + c` has two sums that begin at one place: `occurrence` counts among them, the innermost first. If
    nothing fits, the line itself is the expression. `function` is the name that a traceback gives; the site has the qualified one.
    """
    tree = _forms(tuple(linecache.getlines(file)))
    here = [f for f in tree.forms if _begins(f, line, column)]
    wanted = [plain_name(n) for n in names]
    fitting: list[_Form] = next((found for n in wanted if (found := [f for f in here if f.name == n])), [])
    fitting = [f for f in fitting if f.called] or fitting  # `torch.log(x)` rather than `torch.log`
    chosen = fitting or sorted(here, key=lambda f: not f.called)[:1]
    qualified = tree.qualified(line, function)
    if not chosen:
        text = linecache.getline(file, line).rstrip("\n")
        start = len(text) - len(text.lstrip())
        return Site(file, line, line, start, len(text.encode()), text.strip(), qualified, detail)
    start_line, start_column, end_line, end_column = chosen[occurrence % len(chosen)].span
    text = source_text(file, start_line, end_line, start_column, end_column)
    return Site(file, start_line, end_line, start_column, end_column, text, qualified, detail)


def plain_name(name: str) -> str:
    """An operation's name without what frameworks put around it: "__radd__", "AddV2" and "iadd" are all "add"."""
    bare = re.sub(r"_?v?\d+$", "", name.rpartition(".")[2].strip("_").lower())
    return _ALIASES.get(bare, bare)


_ALIASES = {
    **{prefix + op: op for prefix in "ri" for op in ("add", "sub", "mul", "div", "pow", "matmul", "mod")},
    **dict.fromkeys(("truediv", "rtruediv", "itruediv", "realdiv", "divide", "true_divide"), "div"),
    **dict.fromkeys(("floor_divide", "rfloordiv", "ifloordiv"), "floordiv"),
    **dict.fromkeys(("multiply", "square"), "mul"),
    **dict.fromkeys(("subtract", "rsub"), "sub"),
    **dict.fromkeys(("negative", "usub"), "neg"),
    **dict.fromkeys(("less",), "lt"),
    **dict.fromkeys(("lessequal", "less_equal"), "le"),
    **dict.fromkeys(("greater",), "gt"),
    **dict.fromkeys(("greaterequal", "greater_equal"), "ge"),
    **dict.fromkeys(("equal",), "eq"),
    **dict.fromkeys(("notequal", "not_equal"), "ne"),
    **dict.fromkeys(("stridedslice", "select", "slice", "index"), "getitem"),
    **dict.fromkeys(("remainder", "floormod"), "mod"),
    **dict.fromkeys(("batchmatmul", "mm", "bmm"), "matmul"),
    **dict.fromkeys(("logical_not", "bitwise_not"), "invert"),
}
_OPERATORS: dict[type[ast.AST], str] = {
    ast.Add: "add",
    ast.Sub: "sub",
    ast.Mult: "mul",
    ast.Div: "div",
    ast.FloorDiv: "floordiv",
    ast.Mod: "mod",
    ast.Pow: "pow",
    ast.MatMult: "matmul",
    ast.BitAnd: "and",
    ast.BitOr: "or",
    ast.BitXor: "xor",
    ast.USub: "neg",
    ast.Invert: "invert",
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}


@dataclass(frozen=True, slots=True)
class _Form:
    """A call or operator in a source text: what it is called, where it stands, and where CPython may say that it begins."""

    name: str
    span: _Span
    starts: tuple[tuple[int, int], ...]
    called: bool


@dataclass(frozen=True, slots=True)
class _Forms:
    """Of one source text: its calls and operators, the smaller first, and its functions and classes, the outer first."""

    forms: tuple[_Form, ...]
    scopes: tuple[tuple[int, int, str, bool], ...]  # first and last line, name, whether it is a class

    def qualified(self, line: int, function: str) -> str:
        """The qualified name of the function of that name around a line."""
        around = [s for s in self.scopes if s[0] <= line <= s[1]]
        while around and not function.startswith("<") and around[-1][2] != function:
            around.pop()
        names = [name if is_class else f"{name}.<locals>" for _, _, name, is_class in around]
        if not function.startswith("<") and names:
            names[-1] = around[-1][2]
            return ".".join(names)
        return function if function == "<module>" else ".".join([*names, function])


@lru_cache(maxsize=64)
def _forms(lines: tuple[str, ...]) -> _Forms:
    try:
        nodes = list(ast.walk(ast.parse("".join(lines))))
    except SyntaxError:
        return _Forms((), ())
    forms = [f for node in nodes for f in _form(node)]
    functions = [n for n in nodes if isinstance(n, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))]
    scopes = [(n.lineno, n.end_lineno or n.lineno, n.name, isinstance(n, ast.ClassDef)) for n in functions]
    return _Forms(tuple(sorted(forms, key=lambda f: _extent(f.span))), tuple(sorted(scopes, key=lambda s: (s[0], -s[1]))))


def _form(node: ast.AST) -> Iterator[_Form]:
    if isinstance(node, ast.Call):
        function = node.func
        starts = [_span(node)[:2]]
        if isinstance(function, ast.Attribute):  # of a chain of methods over several lines CPython gives the method's name
            end_line, end_column = _span(function)[2:]
            starts.append((end_line, end_column - len(function.attr.encode())))
        name = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
        yield _Form(plain_name(name), _span(node), tuple(starts), True)
    elif isinstance(node, (ast.BinOp, ast.UnaryOp, ast.AugAssign)):
        yield _Form(_OPERATORS.get(type(node.op), ""), _span(node), (_span(node)[:2],), False)
    elif isinstance(node, ast.Compare):
        yield _Form(_OPERATORS.get(type(node.ops[0]), ""), _span(node), (_span(node)[:2],), False)
    elif isinstance(node, ast.Subscript):
        yield _Form("getitem", _span(node), (_span(node)[:2],), False)
    elif isinstance(node, ast.Attribute):
        yield _Form(plain_name(node.attr), _span(node), (_span(node)[:2],), False)


def _begins(form: _Form, line: int, column: int | None) -> bool:
    if column is None:
        return form.span[0] <= line <= form.span[2]
    return (line, column) in form.starts


def _extent(span: _Span) -> tuple[int, int]:
    line, column, end_line, end_column = span
    return end_line - line, end_column - column
