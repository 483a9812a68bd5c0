"""From a changed term to a changed source file: the smallest edits, in place, with what surrounds them left as it is."""

import ast
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace

from whynan.ir.term import Path, Term, size, walk
from whynan.patches.read import Context
from whynan.patches.source import Function, Source, Span, blocks_of, loaded, stores
from whynan.patches.spell import ATOM, Speller, Text, Unwritable, level_of

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
    source = context.source
    places = list(_places(context, context.term, new, ()))
    if not places:
        return source.text
    statements = {path: _statement(context, path) for path in places}
    first = min(statements.values(), key=lambda s: (s.lineno, s.col_offset))
    speller = Speller(context, first)
    edits = _shared(context, speller, [at(new, path) for path in places], first) if _may_name(source, first, places, context) else []
    for path in places:
        node = context.written[path].node
        own = replace(speller, statement=statements[path])  # shares the new names
        edits.append(_edit(source, node, own.spell(at(new, path))))
    text = _imported(_edited(source.text, edits), speller.missing)
    names = {w.named for w in context.written.values() if w.named}
    text = _pruned(text, names, source, source.function(context.root))
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
    return all(
        _editable(context, path[:k]) for k in range(1, len(path)) if context.written.get(path[:k]) and context.written[path[:k]].named
    )


def _edit(source: Source, node: ast.expr, new: Text) -> Edit:
    """The new text in the expression's place, in parentheses where its surroundings need them and without those no longer needed."""
    start, end = source.span(node)
    parent = source.parents.get(node)
    text = source.text
    before, after = text[:start].rstrip(), text[end:].lstrip()
    enclosed = before.endswith("(") and after.startswith(")") and not re.search(r"[\w)\]]$", before[:-1].rstrip())
    if enclosed and new.level == ATOM and "\n" not in new.text:
        return Edit((len(before) - 1, len(text) - len(after) + 1), new.text)
    free = isinstance(parent, ast.stmt | ast.keyword) or (isinstance(parent, ast.Call) and node is not parent.func) or enclosed
    if free:
        inside = enclosed or not isinstance(parent, ast.stmt)
        return Edit((start, end), new.text if "\n" not in new.text or inside else f"({new.text})")
    return Edit((start, end), new.at(level_of(node)))


def _statement(context: Context, path: Path) -> ast.stmt:
    found = context.source.statement(context.written[path].node)
    if found is None:
        raise Unwritable("the expression stands in no statement.")
    return found


# ---------------------------------------------------------------- new names


def _may_name(source: Source, first: ast.stmt, places: list[Path], context: Context) -> bool:
    """Whether a statement can be put in front: all that changes stands in a function's block, nothing in a lambda or comprehension."""
    for path in places:
        node: ast.AST = context.written[path].node
        while not isinstance(node, ast.stmt):
            node = source.parents[node]
            if isinstance(node, ast.Lambda | ast.ListComp | ast.SetComp | ast.DictComp | ast.GeneratorExp | ast.IfExp | ast.BoolOp):
                return False
    start = source.span(first)[0]
    line_start = source.text.rfind("\n", 0, start) + 1
    return not source.text[line_start:start].strip() and not isinstance(source.function(first), ast.Module | ast.Lambda)


def _shared(context: Context, speller: Speller, written: list[Term], first: ast.stmt) -> list[Edit]:
    """Assignments in front of the first changed statement for what the new text would say twice; the speller learns the names."""
    source = context.source
    nodes = list(ast.walk(source.tree))
    taken = {n.id for n in nodes if isinstance(n, ast.Name)} | {a.arg for a in nodes if isinstance(a, ast.arg)}
    old = Counter(t for _, t in walk(context.term))
    chosen: list[Term] = []
    while True:
        counts = Counter(_visible(written, chosen, speller))
        repeated = [t for t, n in counts.items() if n > max(1, old[t]) and t not in chosen and _worth_a_name(t, speller)]
        if not repeated:
            break
        chosen.append(max(repeated, key=size))
    lines: list[str] = []
    for t in sorted(chosen, key=size):
        name = _fresh(_NAMES.get(t.op, "value"), taken)
        lines.append(f"{name} = {speller.spell(t).text}")
        speller.names[t] = name
        taken.add(name)
    if not lines:
        return []
    start = source.span(first)[0]
    indent = source.text[source.text.rfind("\n", 0, start) + 1 : start]
    newline = "\r\n" if "\r\n" in source.text else "\n"
    return [Edit((start, start), "".join(f"{line}{newline}{indent}" for line in lines))]


def _visible(written: list[Term], named: list[Term], speller: Speller) -> Iterator[Term]:
    """The sub-terms that are written out when those of `named` are names, each of which is written out once itself."""
    seen: set[Term] = set()
    stack = list(written)
    while stack:
        t = stack.pop()
        yield t
        if t in named:
            if t in seen:
                continue
            seen.add(t)
        if not _is_name(speller.known.get(t)):
            stack += t.args


def _is_name(text: Text | None) -> bool:
    return text is not None and text.text.isidentifier()


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
    last: ast.stmt | None = next((s for s in reversed(body) if isinstance(s, ast.Import | ast.ImportFrom)), None)
    if last is None and body and isinstance(body[0], ast.Expr) and isinstance(body[0].value, ast.Constant):
        last = body[0]
    where = text.find("\n", source.span(last)[1]) + 1 if last is not None else 0
    return text[:where] + "".join(f"import {m}{newline}" for m in sorted(modules)) + text[where:]


def _pruned(text: str, names: set[str], before: Source, function: Function) -> str:
    """The text without the assignments to these names, in this function of the old source, that nothing reads any more."""
    position = next((k for k, f in enumerate(_functions(before)) if f is function), -1)
    for _ in range(len(names) if position >= 0 else 0):
        source = Source(text)
        try:
            functions = _functions(source)[position : position + 1]
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


def _functions(source: Source) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
    """All functions, in the order in which they stand: a change inside one does not alter it."""
    found = [n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef | ast.AsyncFunctionDef)]
    return sorted(found, key=lambda f: (f.lineno, f.col_offset))


def _unread(source: Source, function: ast.FunctionDef | ast.AsyncFunctionDef, names: set[str]) -> Iterator[ast.stmt]:
    read = set(loaded(function))
    for name in names - read:
        for s in stores(function, name):
            alone = any(s in block and len(block) > 1 for block in blocks_of(source.parents[s]))
            single = isinstance(s, ast.Assign) and len(s.targets) == 1 and isinstance(s.targets[0], ast.Name)
            start, end = source.span(s)
            line = source.text[
                source.text.rfind("\n", 0, start) + 1 : source.text.find("\n", end) if source.text.find("\n", end) > 0 else None
            ]
            if alone and single and ";" not in line:
                yield s
