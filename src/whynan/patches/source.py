"""A source file as text and tree: positions, statements, imports, and what each local name stands for where."""

import ast
from bisect import bisect_right
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

Span = tuple[int, int]  # character offsets: first, behind the last
Function = ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.Module
MUTATING = "_"  # a method whose name ends so changes its receiver: x.clamp_(0, 1)


@dataclass(frozen=True, eq=False)
class Source:
    """The text of a module. Raises SyntaxError when `tree` is first asked for and the text does not parse."""

    text: str

    @cached_property
    def tree(self) -> ast.Module:
        """The syntax tree."""
        return ast.parse(self.text)

    @cached_property
    def parents(self) -> dict[ast.AST, ast.AST]:
        """Each node's parent."""
        return {child: node for node in ast.walk(self.tree) for child in ast.iter_child_nodes(node)}

    @cached_property
    def _starts(self) -> list[int]:
        starts, at = [0], self.text.find("\n")
        while at >= 0:
            starts.append(at + 1)
            at = self.text.find("\n", at + 1)
        return starts

    def offset(self, line: int, column: int) -> int:
        """The character offset of a line (from 1) and a column in UTF-8 bytes, as `ast` counts."""
        start = self._starts[line - 1]
        end = self._starts[line] if line < len(self._starts) else len(self.text)
        return start + len(self.text[start:end].encode()[:column].decode(errors="ignore"))

    def line_of(self, offset: int) -> int:
        """The line (from 1) that an offset stands in."""
        return bisect_right(self._starts, offset)

    def span(self, node: ast.expr | ast.stmt) -> Span:
        """Where a node stands."""
        end_line, end_column = node.end_lineno or node.lineno, node.end_col_offset or node.col_offset
        return self.offset(node.lineno, node.col_offset), self.offset(end_line, end_column)

    def text_of(self, node: ast.expr | ast.stmt) -> str:
        """The node as written."""
        start, end = self.span(node)
        return self.text[start:end]

    def expression(self, start: tuple[int, int], end: tuple[int, int]) -> ast.expr | None:
        """The expression with these ends (line, column in bytes), or the smallest around them."""
        around = [n for n in ast.walk(self.tree) if isinstance(n, ast.expr) and _ends(n)[0] <= start and end <= _ends(n)[1]]
        return min(around, key=lambda n: self.span(n)[1] - self.span(n)[0], default=None)

    def statement(self, node: ast.AST) -> ast.stmt | None:
        """The innermost statement around an expression."""
        while not isinstance(node, ast.stmt):
            if node not in self.parents:
                return None
            node = self.parents[node]
        return node

    def function(self, node: ast.AST) -> Function:
        """The innermost function around a node, or the module."""
        while node in self.parents:
            node = self.parents[node]
            if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda):
                return node
        return self.tree

    @cached_property
    def imports(self) -> dict[str, str]:
        """What names bound by imports stand for: {"F": "torch.nn.functional", "log": "torch.log"}."""
        found: dict[str, str] = {}
        for node in ast.walk(self.tree):
            if isinstance(node, ast.Import):
                for a in node.names:
                    found[a.asname or a.name.partition(".")[0]] = a.name if a.asname else a.name.partition(".")[0]
            elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
                found.update({a.asname or a.name: f"{node.module}.{a.name}" for a in node.names})
        return found

    def constructed(self, node: ast.AST) -> ast.Call | None:
        """The call that made the object of a module-level name: of `crit` after `crit = nn.BCELoss()`; None if that is not known."""
        if not isinstance(node, ast.Name):
            return node if isinstance(node, ast.Call) else None  # nn.BCELoss()(p, t)
        made = [s for s in stores(self.tree, node.id) if isinstance(s, ast.Assign)]
        value = made[0].value if len(made) == 1 else None
        return value if isinstance(value, ast.Call) else None

    def dotted(self, node: ast.AST) -> str:
        """The full name that an expression such as `F.softplus` stands for through the imports; empty if it is none."""
        parts: list[str] = []
        while isinstance(node, ast.Attribute):
            parts.insert(0, node.attr)
            node = node.value
        if not isinstance(node, ast.Name) or node.id not in self.imports:
            return ""
        return plain(".".join([self.imports[node.id], *parts]))


def plain(name: str) -> str:
    """A dotted name without the detours that frameworks offer: `tensorflow.keras.ops.log` is `keras.ops.log`."""
    for detour, short in (("tensorflow.compat.v2.", "tensorflow."), ("tensorflow.keras.", "keras."), ("keras.src.", "keras.")):
        if name.startswith(detour):
            name = short + name[len(detour) :]
    return name


def _ends(node: ast.expr) -> tuple[tuple[int, int], tuple[int, int]]:
    return (node.lineno, node.col_offset), (node.end_lineno or node.lineno, node.end_col_offset or node.col_offset)


# ---------------------------------------------------------------- what a name stands for


@dataclass(frozen=True, eq=False)
class Definition:
    """An assignment that gives a name its value at some use: the statement and the expression assigned."""

    statement: ast.stmt
    value: ast.expr


def definition(source: Source, use: ast.AST, name: str) -> Definition | None:
    """The one assignment whose value the name has at a use, if all that this value is computed from is still the same there."""
    function = source.function(use)
    here = source.statement(use)
    if isinstance(function, ast.Lambda | ast.Module) or here is None:
        return None
    before = [s for s in stores(function, name) if _before(s, here)]
    last = max(before, key=_place, default=None)
    if not isinstance(last, ast.Assign) or len(last.targets) != 1 or not _runs_before(source, last, here):
        return None
    value = _assigned(last, name)
    if value is None or any(isinstance(n, ast.Await | ast.Yield | ast.YieldFrom | ast.NamedExpr) for n in ast.walk(value)):
        return None
    return Definition(last, value) if all(_unchanged(source, function, n, last, here) for n in [name, *loaded(value)]) else None


def _assigned(statement: ast.Assign, name: str) -> ast.expr | None:
    target, value = statement.targets[0], statement.value
    if isinstance(target, ast.Name):
        return value
    if isinstance(target, ast.Tuple) and isinstance(value, ast.Tuple) and len(target.elts) == len(value.elts):
        if any(isinstance(e, ast.Starred) for e in [*target.elts, *value.elts]):
            return None
        names = {t.id for t in target.elts if isinstance(t, ast.Name)}
        if names & set(loaded(value)):
            return None  # a, b = b, a
        return next((v for t, v in zip(target.elts, value.elts, strict=True) if isinstance(t, ast.Name) and t.id == name), None)
    return None


def loaded(node: ast.AST) -> list[str]:
    """The names that an expression reads, each once."""
    return list(dict.fromkeys(n.id for n in ast.walk(node) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)))


def stores(function: Function, name: str) -> list[ast.stmt]:
    """The statements of a function that give a name a value or change the value it has."""
    return [s for s in _statements(function) if name in _stored(s)]


def _statements(function: Function) -> Iterator[ast.stmt]:
    """All statements of a function, nested blocks included, nested functions not."""
    blocks: list[list[ast.stmt]] = [] if isinstance(function, ast.Lambda) else [function.body]
    while blocks:
        for s in blocks.pop():
            yield s
            if not isinstance(s, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
                blocks += blocks_of(s)


def blocks_of(node: ast.AST) -> list[list[ast.stmt]]:
    """The blocks of statements directly inside a statement."""
    found = [getattr(node, name) for name in ("body", "orelse", "finalbody") if isinstance(getattr(node, name, None), list)]
    inner = [part.body for part in [*getattr(node, "handlers", []), *getattr(node, "cases", [])]]
    return [block for block in [*found, *inner] if block and isinstance(block[0], ast.stmt)]


def _stored(statement: ast.stmt) -> set[str]:
    """The names that a statement itself (not the blocks inside it) gives a value or changes."""
    if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
        return {statement.name}
    names: set[str] = set()
    inside = {id(s) for block in blocks_of(statement) for s in block}
    stack: list[ast.AST] = [statement]
    while stack:
        node = stack.pop()
        stack += [child for child in ast.iter_child_nodes(node) if id(child) not in inside]
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store | ast.Del):
            names.add(node.id)
        elif isinstance(node, ast.Subscript | ast.Attribute) and isinstance(node.ctx, ast.Store | ast.Del):
            names |= _root(node)
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr.endswith(MUTATING):
            names |= _root(node.func)
        elif isinstance(node, ast.Import | ast.ImportFrom):
            names |= {a.asname or a.name.partition(".")[0] for a in node.names}
        elif (isinstance(node, ast.ExceptHandler) and node.name) or (isinstance(node, ast.MatchAs | ast.MatchStar) and node.name):
            names.add(node.name)
    return names


def _root(node: ast.AST) -> set[str]:
    while isinstance(node, ast.Subscript | ast.Attribute):
        node = node.value
    return {node.id} if isinstance(node, ast.Name) else set()


def _place(statement: ast.stmt) -> tuple[int, int]:
    return statement.lineno, statement.col_offset


def _before(statement: ast.stmt, use: ast.stmt) -> bool:
    return _place(statement) < _place(use)


def _ancestors(source: Source, node: ast.AST) -> list[ast.AST]:
    found = [node]
    while found[-1] in source.parents:
        found.append(source.parents[found[-1]])
    return found


def _runs_before(source: Source, statement: ast.stmt, use: ast.stmt) -> bool:
    """Whether the statement has always run when the use runs: it stands in a block around the use."""
    owner = source.parents[statement]
    for block in blocks_of(owner):
        if any(s is statement for s in block):
            around = set(map(id, _ancestors(source, use)))
            return any(id(s) in around for s in block)
    return False


def _unchanged(source: Source, function: Function, name: str, since: ast.stmt, use: ast.stmt) -> bool:
    """Whether a name keeps its value from one statement to another, loops considered."""
    loops = [n for n in _ancestors(source, use) if isinstance(n, ast.For | ast.While | ast.AsyncFor) and not _inside(source, since, n)]
    for s in stores(function, name):
        if s is not since and _place(since) < _place(s) < _place(use):
            return False
        if any(_inside(source, s, loop) for loop in loops):
            return False
    return since not in stores(function, name) or name in _targets(since)


def _targets(statement: ast.stmt) -> set[str]:
    """The names that an assignment stores to; what it also reads has changed after it (`q = q / q.sum()`)."""
    if not isinstance(statement, ast.Assign):
        return set()
    return {n.id for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)} - set(loaded(statement.value))


def _inside(source: Source, node: ast.AST, outer: ast.AST) -> bool:
    return any(n is outer for n in _ancestors(source, node))
