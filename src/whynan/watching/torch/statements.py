"""Statements of the user's source: where a call stands, what was differentiated there, which names a statement reads and writes."""

import ast
from collections.abc import Iterator
from dataclasses import dataclass

from whynan.watching.torch.calls import Refused

SCOPES = (ast.FunctionDef, ast.AsyncFunctionDef, ast.Lambda, ast.ClassDef)


@dataclass(frozen=True, slots=True, eq=False)
class Level:
    """A block of statements, which of them leads on inwards, and what the block belongs to."""

    owner: ast.AST
    block: list[ast.stmt]
    index: int


def path_to(tree: ast.Module, where: tuple[int | None, ...]) -> list[Level]:
    """The blocks from the module to the statement that holds a position."""
    line, end, column, end_column = (n if n is not None else -1 for n in where)
    found: list[Level] = []
    owner: ast.AST = tree
    while True:
        step = next(
            (
                (b, i)
                for b in _blocks(owner)
                for i, s in enumerate(b)
                if (s.lineno, s.col_offset) <= (line, column) and (end, end_column) <= (s.end_lineno or 0, s.end_col_offset or 0)
            ),
            None,
        )
        if step is None:
            break
        found.append(Level(owner, *step))
        owner = step[0][step[1]]
    if not found:
        raise Refused("the call is in no statement")
    return found


def _blocks(owner: ast.AST) -> Iterator[list[ast.stmt]]:
    for name in ("body", "orelse", "finalbody"):
        block = getattr(owner, name, None)
        if isinstance(block, list):
            yield block
    for handler in (*getattr(owner, "handlers", ()), *getattr(owner, "cases", ())):
        yield handler.body


def differentiated_in(found: list[Level], where: tuple[int | None, ...], outer: bool) -> ast.expr:
    """The expression whose value was differentiated: what `.backward()` is called on, or the first argument of what calls it."""
    last = found[-1]
    statement = last.block[last.index]
    for node in ast.walk(statement):
        if isinstance(node, ast.Call) and (node.lineno, node.end_lineno, node.col_offset, node.end_col_offset) == where:
            method = isinstance(node.func, ast.Attribute) and node.func.attr == "backward"
            if method and not outer and not _is_module_call(node.func):
                assert isinstance(node.func, ast.Attribute)
                return node.func.value
            named = next((k.value for k in node.keywords if k.arg in ("loss", "tensors")), None)
            if node.args and not isinstance(node.args[0], ast.Starred):
                return node.args[0]
            if named is not None:
                return named
    raise Refused("it is not written what was differentiated")


def _is_module_call(func: ast.expr) -> bool:
    """Whether this is `torch.autograd.backward` or `autograd.backward`."""
    return isinstance(func, ast.Attribute) and ast.unparse(func).endswith("autograd.backward")


# ---------------------------------------------------------------- names


def stores(node: ast.AST) -> set[str]:
    """The names that a statement may assign to; `self.loss` counts as one."""
    found = {n.id for n in _here(node) if isinstance(n, ast.Name) and isinstance(n.ctx, (ast.Store, ast.Del))}
    found |= {n.name for n in _here(node) if isinstance(n, (ast.FunctionDef, ast.ClassDef))}
    return found | {_dotted(n) for n in _here(node) if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Store)} - {""}


def reads(node: ast.AST) -> set[str]:
    """The names that a statement reads, inside functions that it defines too; `self.loss` counts as one."""
    nodes = list(ast.walk(node))
    found = {n.id for n in nodes if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    found |= {_dotted(n) for n in nodes if isinstance(n, ast.Attribute) and isinstance(n.ctx, ast.Load)} - {""}
    found |= {n.target.id for n in nodes if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}
    return found - {t.id for n in nodes if isinstance(n, ast.comprehension) for t in ast.walk(n.target) if isinstance(t, ast.Name)}


def made_in(loop: ast.For) -> set[str]:
    """The names that each round of a loop assigns to before it reads them."""
    made, seen = stores(loop.target), set[str]()
    for statement in loop.body:
        seen |= reads(statement)
        if isinstance(statement, (ast.Assign, ast.AnnAssign)):
            made |= stores(statement) - seen
    return made


def changes(node: ast.AST) -> set[str]:
    """The names of containers that a statement changes in place: `losses.append(x)`, `losses["a"] = x`."""
    found: set[str] = set()
    for n in _here(node):
        if isinstance(n, ast.Subscript) and isinstance(n.ctx, ast.Store):
            found.add(name_of(n.value))
        elif isinstance(n, ast.Expr) and isinstance(n.value, ast.Call) and isinstance(n.value.func, ast.Attribute):
            found.add(name_of(n.value.func.value))
    return found - {""}


def _dotted(node: ast.Attribute) -> str:
    return f"{node.value.id}.{node.attr}" if isinstance(node.value, ast.Name) else ""


def name_of(node: ast.expr) -> str:
    """The name that an expression is: `loss`, `self.loss`; empty if it is something else."""
    return node.id if isinstance(node, ast.Name) else _dotted(node) if isinstance(node, ast.Attribute) else ""


def _here(node: ast.AST) -> Iterator[ast.AST]:
    """The node and what stands in it, without the insides of functions and comprehensions."""
    yield node
    if isinstance(node, (*SCOPES, ast.ListComp, ast.SetComp, ast.DictComp, ast.GeneratorExp)):
        return
    for child in ast.iter_child_nodes(node):
        yield from _here(child)
