"""From source to terms: the expression around a failing one, as `ir.term.Term`, at several sizes.

`contexts` gives the failing expression itself, each expression around it, and, through the name that a statement assigns, the
expression that uses it, up to what the function returns. Names assigned once are looked through; what is not understood is a leaf.
"""

import ast
import math
from collections.abc import Hashable, Iterator
from dataclasses import dataclass, field

from whynan.ir.term import Path, Term, leaf, number, put, term
from whynan.patches.idioms import MISSING, Idiom, Parameter, Spelling, idiom
from whynan.patches.idioms.expansions import CLASSES, expansions
from whynan.patches.source import Definition, Source, definition, stores

MOST_CONTEXTS = 12
MOST_NODES = 120  # of a term: what is larger is not looked into
DEPTH = 12  # of names looked through

_BINARY: dict[type[ast.AST], str] = {
    ast.Add: "add", ast.Sub: "sub", ast.Mult: "mul", ast.Div: "div", ast.Pow: "pow", ast.MatMult: "matmul",
    ast.BitAnd: "logical_and", ast.BitOr: "logical_or",
}  # fmt: skip
_COMPARE: dict[type[ast.AST], str] = {
    ast.Eq: "eq", ast.NotEq: "ne", ast.Lt: "lt", ast.LtE: "le", ast.Gt: "gt", ast.GtE: "ge",
}  # fmt: skip


@dataclass(frozen=True, slots=True)
class Written:
    """How the source spells a sub-term: the expression, and the definition that it was reached through (None: it stands in the context).

    `named` is the name that stands for it in the source where a definition was looked through.
    """

    node: ast.expr
    inside: Definition | None = None
    named: str = ""


@dataclass(frozen=True, eq=False)
class Context:
    """One expression of the source as a term.

    `root` is the expression and `at` the path of the failing sub-term; `written` says for each path where it stands in the source.
    `expanded` is the same with a library's call at `at` written out, where whynan knows what it computes.
    """

    source: Source
    framework: str
    root: ast.expr
    term: Term
    at: Path
    written: dict[Path, Written]
    expanded: Term | None = None

    @property
    def style(self) -> str:
        """ "method" if the failing expression is written as a method of its operand, else "function"."""
        node = self.written[self.at].node
        plainly = isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and not self.source.dotted(node.func)
        return "method" if plainly else "function"


def contexts(source: Source, framework: str, start: tuple[int, int], end: tuple[int, int]) -> list[Context]:
    """The expressions around the one with these ends (line, column in bytes), the smallest first."""
    failing = source.expression(start, end)
    if failing is None:
        return []
    found: list[Context] = []
    for root in _roots(source, failing):
        reader = _Reader(source, framework, failing)
        read = reader.read(root, (), None, 0)
        if reader.at is not None and all(read != c.term or c.at != reader.at for c in found):
            whole = reader.expanded(read)
            found.append(Context(source, framework, root, read, reader.at, reader.written, whole))
    return found[:MOST_CONTEXTS]


# ---------------------------------------------------------------- which expressions


def _roots(source: Source, failing: ast.expr) -> Iterator[ast.expr]:
    """The expression, those around it in its statement, then those around the uses of the name that the statement assigns."""
    node: ast.expr | None = failing
    for _ in range(DEPTH):
        if node is None:
            return
        yield from _upwards(source, node)
        node = _used(source, node)


def _upwards(source: Source, node: ast.AST) -> Iterator[ast.expr]:
    while isinstance(node, ast.expr | ast.keyword):
        if isinstance(node, ast.Lambda):
            return
        if isinstance(node, ast.expr) and not isinstance(node, ast.Tuple | ast.List | ast.Starred):
            yield node
        node = source.parents[node]


def _used(source: Source, node: ast.expr) -> ast.expr | None:
    """The smallest expression with all uses that one later statement makes of the name that the statement around `node` assigns."""
    statement, function = source.statement(node), source.function(node)
    if not isinstance(statement, ast.Assign) or isinstance(function, ast.Lambda | ast.Module):
        return None
    around = {id(n) for n in _chain(source, node)}
    targets = [n.id for t in statement.targets for n in ast.walk(t) if isinstance(n, ast.Name)]
    for name in targets:
        uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == name and isinstance(n.ctx, ast.Load)]
        reached = [(u, d) for u in uses if (d := definition(source, u, name)) and d.statement is statement and id(d.value) in around]
        if reached:
            first = source.statement(reached[0][0])
            return _joining(source, [u for u, _ in reached if source.statement(u) is first])
    return None


def _chain(source: Source, node: ast.AST) -> list[ast.AST]:
    found = [node]
    while isinstance(found[-1], ast.expr | ast.keyword):
        found.append(source.parents[found[-1]])
    return found


def _joining(source: Source, nodes: list[ast.expr]) -> ast.expr | None:
    """The smallest expression that holds all of these."""
    shared = [n for n in _chain(source, nodes[0]) if isinstance(n, ast.expr)]
    for node in nodes[1:]:
        chain = set(map(id, _chain(source, node)))
        shared = [n for n in shared if id(n) in chain]
    return shared[0] if shared else None


# ---------------------------------------------------------------- reading


@dataclass
class _Reader:
    """Reads one expression. `at` becomes the path of the failing one; `written` fills as it reads."""

    source: Source
    framework: str
    failing: ast.expr
    at: Path | None = None
    written: dict[Path, Written] = field(default_factory=dict)

    def read(self, node: ast.expr, path: Path, inside: Definition | None, depth: int) -> Term:
        """The term of an expression; `inside` is the definition that it is a part of."""
        self.written[path] = Written(node, inside)
        if node is self.failing and self.at is None:
            self.at = path
        return self._read(node, path, inside, depth)

    def _read(self, node: ast.expr, path: Path, inside: Definition | None, depth: int) -> Term:
        value = constant(self.source, node)
        if value is not None:
            return number(value)
        match node:
            case ast.Name(id=name):
                return self._name(node, name, path, inside, depth)
            case ast.BinOp(left=left, op=op, right=right) if type(op) in _BINARY:
                return self._apply(_BINARY[type(op)], (left, right), path, inside, depth)
            case ast.UnaryOp(op=ast.USub(), operand=operand):
                return self._apply("neg", (operand,), path, inside, depth)
            case ast.UnaryOp(op=ast.Invert(), operand=operand):
                return self._apply("logical_not", (operand,), path, inside, depth)
            case ast.Compare(left=left, ops=[op], comparators=[right]) if type(op) in _COMPARE:
                return self._apply(_COMPARE[type(op)], (left, right), path, inside, depth)
            case ast.Subscript(value=value_node, slice=part):
                return self._subscript(node, value_node, part, path, inside, depth)
            case ast.Attribute(value=value_node, attr=("T" | "mT") as attr) if not self.source.dotted(node):
                return self._template("move", f"{{0}}.{attr}", (value_node,), path, inside, depth)
            case ast.Attribute(value=value_node, attr="values"):
                return self._extreme(node, value_node, path, inside, depth)
            case ast.Call():
                return self._call(node, path, inside, depth)
        return self._leaf(node)

    def expanded(self, whole: Term) -> Term | None:
        """The term with the failing library call written out; None if it is no call whose value is known."""
        node = self.written[self.at].node if self.at is not None else None
        if self.at is None or not isinstance(node, ast.Call):
            return None
        name, given = self.source.dotted(node.func), node.keywords
        made = self.source.constructed(node.func)
        if made is not None:
            name, given = CLASSES.get(self.source.dotted(made.func), ""), [*node.keywords, *made.keywords]
            if made.args:
                return None
        known = expansions().get(name)
        bound = _bound(ast.Call(node.func, node.args, given), known.spelling) if known is not None else None
        if known is None or bound is None:
            return None
        attrs = {p.attribute: p.default if v is None else self._attribute(p.attribute, v) for p, v in bound if p.attribute}
        if any(v is not None and not _is_literal(v, p.default) for p, v in bound if p.argument < 0 and not p.attribute):
            return None
        reader = _Reader(self.source, self.framework, self.failing)
        args = {p.argument: reader.read(v, (), None, 0) for p, v in bound if p.argument >= 0 and v is not None}
        averaged = made is not None and name.startswith("keras.")
        return put(whole, self.at, known.term(args, attrs, averaged))

    def _leaf(self, node: ast.expr) -> Term:
        return leaf(self.source.text_of(node))

    def _apply(self, op: str, nodes: tuple[ast.expr, ...], path: Path, inside: Definition | None, depth: int, **attrs: Hashable) -> Term:
        args = [self.read(n, (*path, i), inside, depth) for i, n in enumerate(nodes)]
        return term(op, *args, **attrs)

    def _template(self, op: str, text: str, nodes: tuple[ast.expr, ...], path: Path, inside: Definition | None, depth: int) -> Term:
        return self._apply(op, nodes, path, inside, depth, text=text)

    def _name(self, node: ast.expr, name: str, path: Path, inside: Definition | None, depth: int) -> Term:
        found = definition(self.source, node, name) if depth < DEPTH and len(self.written) < MOST_NODES else None
        if found is None:
            return leaf(name)
        if inside is not None and not _still(self.source, found, self.written[()].node):
            return leaf(name)
        self.written[path] = Written(found.value, found, name)
        if found.value is self.failing and self.at is None:
            self.at = path
        return self._read(found.value, path, found, depth + 1)

    def _subscript(self, node: ast.expr, value: ast.expr, part: ast.expr, path: Path, inside: Definition | None, depth: int) -> Term:
        if isinstance(part, ast.Constant) and part.value == 0:
            taken = self._extreme(node, value, path, inside, depth)
            if taken.op != "leaf":
                return taken
        start = self.source.span(value)[1]
        opening = self.source.text.index("[", start)
        text = self.source.text[opening : self.source.span(node)[1]]
        return self._template("move", "{0}" + _escaped(text), (value,), path, inside, depth)

    def _extreme(self, node: ast.expr, value: ast.expr, path: Path, inside: Definition | None, depth: int) -> Term:
        """`x.max(dim=1).values` and `x.max(1)[0]`, PyTorch's only way to say amax along an axis until 1.7."""
        if self.framework != "torch" or not isinstance(value, ast.Call):
            return self._leaf(node)
        name = self.source.dotted(value.func) or ("." + value.func.attr if isinstance(value.func, ast.Attribute) else "")
        op = {"max": "amax", "min": "amin"}.get(name.rpartition(".")[2])
        if op is None or len(name) > len("torch.max"):
            return self._leaf(node)
        shape = Spelling(op, name, (Parameter("input", 0), Parameter("dim", -1, "axis"), Parameter("keepdim", -1, "keepdims", False)))
        return self._fitted(value, shape, path, inside, depth) or self._leaf(node)

    def _call(self, node: ast.Call, path: Path, inside: Definition | None, depth: int) -> Term:
        name = self.source.dotted(node.func)
        method = f".{node.func.attr}" if isinstance(node.func, ast.Attribute) and not name else ""
        if method and _is_self(node.func):
            method = ""
        for table in self._tables(name):
            for spelling in table.by_name.get(name or method, ()):
                found = self._fitted(node, spelling, path, inside, depth)
                if found is not None:
                    return found
            if (name or method) in table.moves and (node.args or method):
                return self._any_call("move", node, method, path, inside, depth)
        return self._any_call("opaque", node, method, path, inside, depth)

    def _tables(self, name: str) -> list[Idiom]:
        if name.startswith("keras."):
            return [idiom("keras")]
        return [idiom(self.framework)]

    def _fitted(self, node: ast.Call, spelling: Spelling, path: Path, inside: Definition | None, depth: int) -> Term | None:
        """The term of a call that fits a spelling; None if it does not."""
        bound = _bound(node, spelling)
        if bound is None:
            return None
        attrs = dict(spelling.fixed)
        args: dict[int, ast.expr] = {}
        for p, given in bound:
            if p.argument >= 0 and given is not None:
                if p.tensor and constant(self.source, given) is not None:
                    return None
                args[p.argument] = given
            elif p.attribute:
                attrs[p.attribute] = p.default if given is None else self._attribute(p.attribute, given)
            elif given is not None and not _is_literal(given, p.default):
                return None
        if spelling.op == "masked_fill":
            return self._masked_fill(args, path, inside, depth)
        return self._apply(spelling.op, tuple(args[i] for i in range(len(args))), path, inside, depth, **attrs)

    def _masked_fill(self, args: dict[int, ast.expr], path: Path, inside: Definition | None, depth: int) -> Term:
        return self._apply("where", (args[1], args[2], args[0]), path, inside, depth)

    def _attribute(self, name: str, node: ast.expr) -> Hashable:
        """An attribute's value if it is a literal or a dtype, else its text."""
        if name == "dtype":
            full = self.source.dotted(node)
            if full:
                return {"float": "float32", "double": "float64", "half": "float16"}.get(full.rpartition(".")[2], full.rpartition(".")[2])
        try:
            value = ast.literal_eval(node)
        except ValueError:
            return self.source.text_of(node)
        if isinstance(value, list):
            value = tuple(value)
        return float(value) if name in ("p", "eps") and isinstance(value, int) else value

    def _any_call(self, op: str, node: ast.Call, method: str, path: Path, inside: Definition | None, depth: int) -> Term:
        """A call of anything else, as a template with its tensors as arguments."""
        if any(isinstance(a, ast.Starred) for a in node.args) or any(k.arg is None for k in node.keywords):
            return self._leaf(node)
        start, end = self.source.span(node)
        tensors = [node.func.value] if method and isinstance(node.func, ast.Attribute) else []
        tensors += [a for a in [*node.args, *(k.value for k in node.keywords)] if self._may_be_tensor(a)]
        tensors = sorted(tensors, key=lambda n: self.source.span(n)) if op == "opaque" else tensors[:1]
        text, at = "", start
        for i, n in enumerate(tensors):
            first, last = self.source.span(n)
            text, at = text + _escaped(self.source.text[at:first]) + f"{{{i}}}", last
        text += _escaped(self.source.text[at:end])
        return self._template(op, text, tuple(tensors), path, inside, depth) if tensors else self._leaf(node)

    def _may_be_tensor(self, node: ast.expr) -> bool:
        if isinstance(node, ast.Constant | ast.JoinedStr | ast.Lambda | ast.Dict | ast.List | ast.Tuple | ast.Set):
            return False
        return not self.source.dotted(node) and constant(self.source, node) is None


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")


def _is_self(function: ast.expr) -> bool:
    return isinstance(function, ast.Attribute) and isinstance(function.value, ast.Name) and function.value.id in ("self", "cls")


def _still(source: Source, found: Definition, root: ast.expr) -> bool:
    """Whether a definition reached through another one has the same meaning at the context: no store of its names lies in between."""
    use, function = source.statement(root), source.function(root)
    if use is None:
        return False
    names = {n.id for n in ast.walk(found.value) if isinstance(n, ast.Name) and isinstance(n.ctx, ast.Load)}
    start, end = (found.statement.lineno, found.statement.col_offset), (use.lineno, use.col_offset)
    return not any(start < (s.lineno, s.col_offset) < end for name in names for s in stores(function, name))


def _bound(node: ast.Call, spelling: Spelling) -> list[tuple[Parameter, ast.expr | None]] | None:
    """Each parameter with what the call gives for it; None if the call does not fit."""
    given: list[ast.expr] = list(node.args)
    if spelling.is_method and isinstance(node.func, ast.Attribute):
        given.insert(0, node.func.value)
    if len(given) > len(spelling.parameters) or any(isinstance(a, ast.Starred) for a in given):
        return None
    by_name = {k.arg: k.value for k in node.keywords}
    positional, rest = spelling.parameters[: len(given)], spelling.parameters[len(given) :]
    if not set(by_name) <= {p.keyword for p in rest}:
        return None
    bound = [*zip(positional, given, strict=True), *((p, by_name.get(p.keyword)) for p in rest)]
    missing = [p for p, value in bound if value is None and p.default is MISSING]
    return None if missing else bound


def _is_literal(node: ast.expr, wanted: object) -> bool:
    try:
        return bool(ast.literal_eval(node) == wanted)
    except ValueError:
        return False


_CONSTANTS = {f"{m}.{n}": getattr(math, n) for m in ("math", "numpy", "torch", "jax.numpy") for n in ("pi", "e", "inf")}
_FUNCTIONS = {
    f"{m}.{n}": getattr(math, n) for m in ("math", "numpy") for n in ("sqrt", "log", "exp", "cos", "sin", "log2", "log10", "log1p")
}


def constant(source: Source, node: ast.expr) -> float | None:
    """The value of a literal, of `math.pi`, `float("inf")` and arithmetic with such; None for anything else."""
    try:
        return _constant(source, node)
    except (ArithmeticError, ValueError):
        return None


def _constant(source: Source, node: ast.expr) -> float | None:
    match node:
        case ast.Constant(value=bool()):
            return None
        case ast.Constant(value=int() | float() as literal):
            return float(literal)
        case ast.UnaryOp(op=ast.USub(), operand=operand):
            inner = _constant(source, operand)
            return None if inner is None else -inner
        case ast.BinOp(left=left, op=op, right=right):
            x, y = _constant(source, left), _constant(source, right)
            return None if x is None or y is None else _arithmetic(op, x, y)
        case ast.Attribute():
            return _CONSTANTS.get(source.dotted(node))
        case ast.Call(func=ast.Name(id="float"), args=[ast.Constant(value=str(text))], keywords=[]):
            return float(text)
        case ast.Call(func=function, args=[argument], keywords=[]) if source.dotted(function) in _FUNCTIONS:
            x = _constant(source, argument)
            return None if x is None else float(_FUNCTIONS[source.dotted(function)](x))
    return None


def _arithmetic(op: ast.operator, x: float, y: float) -> float | None:
    match op:
        case ast.Add():
            return x + y
        case ast.Sub():
            return x - y
        case ast.Mult():
            return x * y
        case ast.Div():
            return x / y
        case ast.Pow():
            power = x**y
            return power if isinstance(power, float) else None
    return None
