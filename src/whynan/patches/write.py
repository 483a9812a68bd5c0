"""From a changed term to a changed source file: the smallest edits, in place, with what surrounds them left as it is."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass

from whynan.ir.term import Path, Term, size, walk
from whynan.patches.read import Context
from whynan.patches.source import Function, Source, Span, blocks_of, loaded, stores
from whynan.patches.spell import Speller, Text, Unwritable, level_of

_NAMES = {
    "sum": "total", "mean": "mean", "sub": "difference", "add": "total", "norm": "length", "div": "ratio", "mul": "product",
    "gt": "valid", "lt": "valid", "ge": "valid", "le": "valid", "ne": "valid", "eq": "valid", "logical_and": "valid", "logical_or": "valid",
    "softmax": "probs", "log_softmax": "log_probs", "sigmoid": "prob", "exp": "power", "log": "log_value", "where": "safe",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Edit:
    """Text in place of a span."""

    span: Span
    text: str


def rewritten(context: Context, new: Term) -> str:
    """The file's text with the context's term replaced by another. Raises Unwritable if that cannot be spelled there."""
    speller = Speller(context)
    source = context.source
    places = list(_places(context, context.term, new, ()))
    before = _shared(context, speller, new, places) if _may_name(source, context.root) else []
    edits = [*before]
    for path in places:
        node = context.written[path].node
        edits.append(Edit(source.span(node), _fitting(source, node, speller.spell(at(new, path)))))
    text = _imported(_edited(source.text, edits), speller.missing)
    names = {w.named for w in context.written.values() if w.named}
    text = _pruned(text, names, source.function(context.root))
    try:
        ast.parse(text)
    except SyntaxError as error:
        raise Unwritable(f"the changed text does not parse: {error}.") from error
    return text


def at(t: Term, path: Path) -> Term:
    """The sub-term at a path."""
    for i in path:
        t = t.args[i]
    return t


def _places(context: Context, old: Term, new: Term, path: Path) -> Iterator[Path]:
    """The paths whose expressions must be written anew: as deep as the terms differ and the source allows."""
    if old == new:
        return
    alike = old.op == new.op and old.attrs == new.attrs and len(old.args) == len(new.args)
    differing = [i for i, (a, b) in enumerate(zip(old.args, new.args, strict=False)) if a != b]
    if alike and differing and all(_editable(context, (*path, i)) for i in differing):
        for i in differing:
            yield from _places(context, old.args[i], new.args[i], (*path, i))
    else:
        yield path


def _editable(context: Context, path: Path) -> bool:
    """Whether the expression at a path can be changed where it stands: it is the context's own, or of a name that is used once only."""
    w = context.written.get(path)
    if w is None:
        return False
    if not w.named:
        return w.inside is None or _editable_above(context, path)
    function = context.source.function(context.root)
    uses = sum(isinstance(n, ast.Name) and n.id == w.named and isinstance(n.ctx, ast.Load) for n in ast.walk(function))
    return uses == 1 and _editable_above(context, path)


def _editable_above(context: Context, path: Path) -> bool:
    return all(_editable(context, path[:k]) for k in range(1, len(path)) if context.written.get(path[:k]) and context.written[path[:k]].named)


def _fitting(source: Source, node: ast.expr, new: Text) -> str:
    """The new text, in parentheses where the expression's surroundings need them."""
    start, end = source.span(node)
    parent = source.parents.get(node)
    enclosed = source.text[:start].rstrip().endswith("(") and source.text[end:].lstrip().startswith(")")
    free = isinstance(parent, ast.stmt | ast.keyword) or (isinstance(parent, ast.Call) and node is not parent.func)
    if free or (enclosed and not isinstance(parent, ast.Call)):
        return new.text if "\n" not in new.text or _bracketed(source, node) else f"({new.text})"
    return new.at(level_of(node))


def _bracketed(source: Source, node: ast.AST) -> bool:
    """Whether a line may end inside the expression's surroundings."""
    parent = source.parents.get(node)
    return isinstance(parent, ast.Call | ast.Tuple | ast.List | ast.Subscript)


# ---------------------------------------------------------------- new names


def _may_name(source: Source, node: ast.expr) -> bool:
    """Whether a statement can be put in front: the expression stands in a function's block, not in a lambda or comprehension."""
    inner: ast.AST = node
    while not isinstance(inner, ast.stmt):
        inner = source.parents[inner]
        if isinstance(inner, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.IfExp | ast.BoolOp):
            return False
    start = source.span(inner)[0]
    line_start = source.text.rfind("\n", 0, start) + 1
    return not source.text[line_start:start].strip() and not isinstance(source.function(node), ast.Module | ast.Lambda)


def _shared(context: Context, speller: Speller, new: Term, places: list[Path]) -> list[Edit]:
    """Assignments in front of the statement for what the new text would say twice; the speller learns the names."""
    source, written = context.source, [at(new, path) for path in places]
    counts = Counter(t for whole in written for _, t in walk(whole))
    taken = {n.id for n in ast.walk(source.tree) if isinstance(n, ast.Name)} | {a.arg for a in ast.walk(source.tree) if isinstance(a, ast.arg)}
    repeated = sorted((t for t, n in counts.items() if n > 1 and _worth_a_name(t, speller)), key=size, reverse=True)
    chosen: list[Term] = []
    for t in repeated:
        outer = Counter(s for whole in written for s in _visible(whole, chosen))
        if outer[t] > 1:
            chosen.append(t)
    lines: list[str] = []
    for t in sorted(chosen, key=size):
        name = _fresh(_NAMES.get(t.op, "value"), taken)
        lines.append(f"{name} = {speller.spell(t).text}")
        speller.names[t] = name
        taken.add(name)
    if not lines:
        return []
    statement = _first_statement(context, places)
    start = source.span(statement)[0]
    indent = source.text[source.text.rfind("\n", 0, start) + 1 : start]
    newline = "\r\n" if "\r\n" in source.text else "\n"
    return [Edit((start, start), "".join(f"{line}{newline}{indent}" for line in lines))]


def _first_statement(context: Context, places: list[Path]) -> ast.stmt:
    found = [context.source.statement(context.written[path].node) for path in places]
    return min((s for s in found if s is not None), key=lambda s: (s.lineno, s.col_offset))


def _visible(t: Term, named: list[Term]) -> Iterator[Term]:
    """The sub-terms that are written out when those of `named` are names (each of which is written out once itself)."""
    seen: set[Term] = set()
    stack = [t]
    while stack:
        s = stack.pop()
        yield s
        if s in named:
            if s in seen:
                continue
            seen.add(s)
        stack += s.args


def _worth_a_name(t: Term, speller: Speller) -> bool:
    if t.op in ("leaf", "number") or not t.args:
        return False
    try:
        text = speller.spell(t).text
    except Unwritable:
        return False
    return not re.fullmatch(r"[\w.]+(\[[^\]]*\])?", text) and not text.endswith((".eps", ".tiny", ".max", ".min"))


def _fresh(name: str, taken: set[str]) -> str:
    return next(n for n in (name, *(f"{name}_{k}" for k in range(2, 100))) if n not in taken)


# ---------------------------------------------------------------- the text


def _edited(text: str, edits: list[Edit]) -> str:
    for edit in sorted(edits, key=lambda e: e.span, reverse=True):
        text = text[: edit.span[0]] + edit.text + text[edit.span[1] :]
    return text


def _imported(text: str, modules: set[str]) -> str:
    """The text with imports of the modules, after the imports that it has."""
    if not modules:
        return text
    source = Source(text)
    newline = "\r\n" if "\r\n" in text else "\n"
    body = source.tree.body
    last = next((s for s in reversed(body) if isinstance(s, ast.Import | ast.ImportFrom)), None)
    if last is None and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        last = body[0]
    where = text.find("\n", source.span(last)[1]) + 1 if last is not None else 0
    return text[:where] + "".join(f"import {m}{newline}" for m in sorted(modules)) + text[where:]


def _pruned(text: str, names: set[str], function: Function) -> str:
    """The text without the assignments to these names that nothing reads any more."""
    name = getattr(function, "name", "")
    for _ in range(len(names)):
        source = Source(text)
        try:
            functions = [n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef) and n.name == name]
        except SyntaxError:
            return text
        found = [s for f in functions for s in _unread(source, f, names)]
        if not found:
            return text
        start, end = source.span(found[0])
        start = text.rfind("\n", 0, start) + 1
        end = text.find("\n", end) + 1 or len(text)
        text = text[:start] + text[end:]
    return text


def _unread(source: Source, function: ast.FunctionDef | ast.AsyncFunctionDef, names: set[str]) -> Iterator[ast.stmt]:
    read = set(loaded(function))
    for name in names - read:
        for s in stores(function, name):
            alone = any(s in block and len(block) > 1 for block in blocks_of(source.parents[s]))
            single = isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ast.Name)
            start, end = source.span(s)
            line = source.text[source.text.rfind("\n", 0, start) + 1 : source.text.find("\n", end) if source.text.find("\n", end) > 0 else None]
            if alone and single and ";" not in line:
                yield s
