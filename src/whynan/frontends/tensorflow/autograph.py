"""From AutoGraph's generated code back to the user's expression.

`tf.function` runs a rewritten copy of a function, whose calls, branches and loops go through a helper module `ag__`. AutoGraph keeps the
user's line for each generated line. The expression within it is found by undoing the rewriting: what then reads the same is the same.
"""

import ast
import linecache
from functools import lru_cache
from types import CodeType
from typing import Any

from tensorflow.python.util import tf_stack

from whynan.frontends.source import _position, site_of_span
from whynan.ir.where import Site, source_text

_Span = tuple[int, int, int, int]
_Key = tuple[int, int]

_HELPERS = "ag__"
_COMPARISONS = {"eq": ast.Eq, "not_eq": ast.NotEq}
_BOOLEANS = {"and_": ast.And, "or_": ast.Or}
_FIRST = ("ld", "ldu", "if_stmt", "for_stmt", "assert_stmt", "stmt_value")  # helpers whose first argument is the user's expression


def is_generated(file: str) -> bool:
    """Whether a file was written by AutoGraph."""
    return "__autograph_generated_file" in file


def origin(file: str, line: int) -> tuple[str, int, str] | None:
    """The user's file, line and function behind a generated line. Known only while TensorFlow traces."""
    mapper = tf_stack._source_mapper_stacks[tf_stack._get_thread_key()][-1]
    found = mapper.get_effective_source_map().get((file, line))
    return None if found is None else (str(found[0]), int(found[1]), str(found[2]))


def site_behind(code: CodeType, lasti: int, file: str, line: int, function: str, detail: str = "") -> Site:
    """The user's expression behind an instruction of generated code that stems from that line of the user's file."""
    return site_of_span(file, _span_behind(code, lasti, file, line), function, detail)


def _span_behind(code: CodeType, lasti: int, file: str, line: int) -> _Span:
    start, end, column, end_column = _position(code, lasti)
    linecache.checkcache(code.co_filename)
    statement = _statement(tuple(linecache.getlines(file)), line)
    if statement is None:
        return (line, 0, line, len(linecache.getline(file, line).rstrip("\n").encode()))
    if start is not None and end is not None and column is not None and end_column is not None:
        text = source_text(code.co_filename, start, end, column, end_column)
        wanted = _plain(text)
        candidates = [span for text, span in _expressions(statement) if text == wanted]
        if len(candidates) > 1:
            before = _position_among(code.co_filename, (start, column), wanted)
            return candidates[min(before, len(candidates) - 1)]
        if candidates:
            return candidates[0]
    return _head(statement)


def _plain(text: str) -> str:
    """Generated code as the user would have written it."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except SyntaxError:
        return ""
    return ast.unparse(_Undo().visit(tree))


def _position_among(file: str, start: _Key, wanted: str) -> int:
    """How many expressions that read the same begin before that position, on its line of the generated file."""
    same = {column for text, column in _operations(linecache.getline(file, start[0])) if text == wanted}
    return sum(column < start[1] for column in same)


@lru_cache(maxsize=256)
def _operations(line: str) -> tuple[tuple[str, int], ...]:
    """What the user would have written for each operation on a line of generated code, and the column where it begins."""
    try:
        tree = ast.parse(line.strip())
    except SyntaxError:
        return ()
    indent = len(line) - len(line.lstrip())
    found = [n for n in ast.walk(tree) if isinstance(n, (ast.Call, ast.BinOp, ast.UnaryOp, ast.Compare, ast.Subscript))]
    return tuple((_plain(ast.unparse(n)), n.col_offset + indent) for n in found)


class _Undo(ast.NodeTransformer):
    """Calls of AutoGraph's helpers as the syntax that they stand for."""

    def visit_Call(self, node: ast.Call) -> Any:
        self.generic_visit(node)
        helper = node.func.attr if isinstance(node.func, ast.Attribute) and _is_helpers(node.func.value) else ""
        if helper == "converted_call":
            return _call(node)
        if helper in _FIRST:
            return node.args[0]
        if helper == "if_exp":
            return ast.IfExp(node.args[0], _body(node.args[1]), _body(node.args[2]))
        if helper in _BOOLEANS:
            return ast.BoolOp(_BOOLEANS[helper](), [_body(a) for a in node.args])
        if helper == "not_":
            return ast.UnaryOp(ast.Not(), node.args[0])
        if helper in _COMPARISONS:
            return ast.Compare(node.args[0], [_COMPARISONS[helper]()], [node.args[1]])
        if helper == "with_function_scope":
            return _body(node.args[0])
        return node


def _is_helpers(node: ast.expr) -> bool:
    return isinstance(node, ast.Name) and node.id == _HELPERS


def _call(node: ast.Call) -> ast.Call:
    """`converted_call(f, (a, b), dict(k=v), scope)` as `f(a, b, k=v)`."""
    function, positional, named = node.args[:3]
    args = positional.elts if isinstance(positional, ast.Tuple) else [ast.Starred(positional, ast.Load())]
    return ast.Call(function, list(args), named.keywords if isinstance(named, ast.Call) else [])


def _body(node: ast.expr) -> ast.expr:
    return node.body if isinstance(node, ast.Lambda) else node


# ---------------------------------------------------------------- the user's side


@lru_cache(maxsize=256)
def _statement(lines: tuple[str, ...], line: int) -> ast.stmt | None:
    """The innermost statement that covers a line."""
    covering = [n for n in _statements(lines) if n.lineno <= line <= (n.end_lineno or n.lineno)]
    return min(reversed(covering), key=lambda n: ((n.end_lineno or n.lineno) - n.lineno, -n.lineno), default=None)


@lru_cache(maxsize=64)
def _statements(lines: tuple[str, ...]) -> tuple[ast.stmt, ...]:
    """All statements of a source text."""
    try:
        return tuple(n for n in ast.walk(ast.parse("".join(lines))) if isinstance(n, ast.stmt))
    except SyntaxError:
        return ()


@lru_cache(maxsize=256)
def _expressions(statement: ast.stmt) -> list[tuple[str, _Span]]:
    """The text of every expression of a statement, in order; of an augmented assignment also what it computes."""
    found = [(ast.unparse(n), _span(n)) for n in ast.walk(statement) if isinstance(n, ast.expr)]
    if isinstance(statement, ast.AugAssign):
        found.append((f"{ast.unparse(statement.target)} {_symbol(statement)} {ast.unparse(statement.value)}", _span(statement)))
    return sorted(found, key=lambda item: item[1][:2])


def _symbol(statement: ast.AugAssign) -> str:
    return ast.unparse(ast.BinOp(ast.Name("a"), statement.op, ast.Name("b")))[2:-2]


def _head(statement: ast.stmt) -> _Span:
    """What a statement computes itself: its value, its condition, what it goes through."""
    for name in ("value", "test", "iter"):
        part = getattr(statement, name, None)
        if isinstance(part, ast.expr) and not isinstance(statement, ast.AugAssign):
            return _span(part)
    return _span(statement)


def _span(node: ast.expr | ast.stmt) -> _Span:
    return node.lineno, node.col_offset, node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
