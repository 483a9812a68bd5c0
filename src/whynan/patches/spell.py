"""From terms to source text in the user's own idiom: unchanged parts as they are written, new ones by the framework's table."""

import ast
import math
import re
from collections.abc import Hashable
from dataclasses import dataclass, field

from whynan.ir.term import INFIX, Path, Term, is_number, name_of, value_of, walk
from whynan.patches.idioms import MISSING, Idiom, Spelling, idiom
from whynan.patches.read import Context
from whynan.patches.source import Source, plain

ATOM, POWER, UNARY, PRODUCT, SUM, AND, XOR, OR, COMPARE, NOT, LOOSE = 18, 14, 13, 12, 11, 9, 8, 7, 6, 5, 0

_PRECEDENCE = {"pow": POWER, "mul": PRODUCT, "div": PRODUCT, "matmul": PRODUCT, "add": SUM, "sub": SUM}
_LOSSES = ("bce_with_logits", "binary_cross_entropy")
_UNREDUCED = ", reduction='none')"  # as torch's functional losses are spelled for each element
_OPERATORS = {**{op: sign for op, (sign, _) in INFIX.items()}, "logical_and": "&", "logical_or": "|"}
_LEVELS = {**{op: _PRECEDENCE.get(op, COMPARE) for op in INFIX}, "logical_and": AND, "logical_or": OR}


class Unwritable(Exception):
    """A term has no spelling in this framework."""


@dataclass(frozen=True, slots=True)
class Text:
    """A piece of source and how tightly its outermost operator binds."""

    text: str
    level: int = ATOM

    def at(self, level: int) -> str:
        """The text as it must stand where something of that level is needed."""
        return self.text if self.level >= level else f"({self.text})"


@dataclass
class Speller:
    """Spells terms for one statement of a context: what the source says before that statement, it may say again.

    `missing` collects modules that an import must be added for; `names` are new local names by term.
    """

    context: Context
    statement: ast.stmt
    missing: set[str] = field(default_factory=set)
    names: dict[Term, str] = field(default_factory=dict)
    known: dict[Term, Text] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.known = known_texts(self.context, self.statement)

    @property
    def source(self) -> Source:
        """The file."""
        return self.context.source

    def spell(self, t: Term) -> Text:
        """The text of a term. Raises Unwritable if the framework has no spelling for a part of it."""
        if t in self.names:
            return Text(self.names[t])
        if t in self.known and not any(s in self.names for _, s in walk(t)):
            return self.known[t]
        if t.op == "leaf":
            return Text(name_of(t), _level_of(name_of(t)))
        if t.op == "number":
            return self._number(value_of(t))
        if t.op in ("move", "opaque"):
            return self._template(str(t.attr("text")), t)
        if t.op == "neg":
            return Text("-" + self.spell(t.args[0]).at(UNARY), UNARY)
        if t.op == "logical_not" and self._tables()[0] is not idiom("keras"):
            return Text("~" + self.spell(t.args[0]).at(UNARY), UNARY)
        if t.op in _OPERATORS and len(t.args) == 2 and not t.attrs:
            return self._infix(t)
        return self._call(t)

    def _infix(self, t: Term) -> Text:
        level = _LEVELS[t.op]
        left, right = (level + 1, UNARY) if t.op == "pow" else (level, level + 1)
        if level == COMPARE:
            left = level + 1
        texts = self.spell(t.args[0]).at(left), self.spell(t.args[1]).at(right)
        return Text(f"{texts[0]} {_OPERATORS[t.op]} {texts[1]}", level)

    def _number(self, value: float) -> Text:
        if math.isinf(value) or math.isnan(value):
            name = self._import_name("math")
            if name and not math.isnan(value):
                return Text(f"{name}.inf") if value > 0 else Text(f"-{name}.inf", UNARY)
            return Text(f'float("{value}")')
        text = repr(int(value)) if value == int(value) and abs(value) < 10 and not self._float_only() else repr(value)
        return Text(text, UNARY if value < 0 else ATOM)

    def _float_only(self) -> bool:
        return True  # `2.0`, not `2`: right for every floating tensor in every framework

    def _import_name(self, module: str) -> str:
        return next((name for name, full in self.source.imports.items() if full == module), "")

    # ------------------------------------------------------------ calls

    def _tables(self) -> list[Idiom]:
        own = idiom(self.context.framework)
        imported = {plain(full).partition(".")[0] for full in self.source.imports.values()}
        only_keras = "keras" in imported and not imported & {"tensorflow", "jax", "torch"}
        inside = plain(self._failing_name()).startswith("keras.")
        return [idiom("keras")] if only_keras else [idiom("keras"), own] if inside else [own]

    def _failing_name(self) -> str:
        node = self.context.written[self.context.at].node
        return self.source.dotted(getattr(node, "func", node))

    def _reduced(self, t: Term) -> Text | None:
        """The mean or sum of a built-in loss as that loss's own argument: F.bce(…) for F.bce(…, reduction='none').mean()."""
        if t.op not in ("mean", "sum") or t.attrs or t.args[0].op not in _LOSSES or t.args[0] in self.names or t.args[0] in self.known:
            return None
        inner = self.spell(t.args[0]).text
        if not inner.endswith(_UNREDUCED):
            return None
        return Text(inner.removesuffix(_UNREDUCED) + (")" if t.op == "mean" else ", reduction='sum')"))

    def _call(self, t: Term) -> Text:
        reduced = self._reduced(t)
        if reduced is not None:
            return reduced
        for table in self._tables():
            found = [s for s in table.by_op.get(t.op, ()) if self._fits(s, t)]
            if found:
                return self._with(self._preferred(found, t), t)
        t2 = _in_other_words(t)
        if t2 is None:
            raise Unwritable(f"{t.op} has no spelling in {self.context.framework}.")
        return self.spell(t2)

    def _fits(self, s: Spelling, t: Term) -> bool:
        attrs = dict(t.attrs)
        if s.template:
            return all(attrs.get(k, v) == v for k, v in s.fixed)
        if any(attrs.get(k) != v for k, v in s.fixed):
            return False
        known = {p.attribute: p for p in s.parameters if p.attribute}
        extra = set(attrs) - set(known) - {k for k, _ in s.fixed}
        lacking = [p for name, p in known.items() if name not in attrs and p.default is MISSING]
        taken = [p.argument for p in s.parameters if p.argument >= 0]
        numbers = [p for p in s.parameters if p.tensor and is_number(t.args[p.argument])] if len(taken) == len(t.args) else [1]
        return not extra and not lacking and not numbers and sorted(taken) == list(range(len(t.args)))

    def _preferred(self, found: list[Spelling], t: Term) -> Spelling:
        def rank(s: Spelling) -> tuple[bool, bool]:
            wrong_style = s.is_method != (self.context.style == "method")
            on_number = s.is_method and bool(t.args) and is_number(t.args[0])
            return on_number, wrong_style

        return min(found, key=rank)

    def _with(self, s: Spelling, t: Term) -> Text:
        if s.template:
            return self._template(self._accessed(s.template), t)
        order = [p.argument for p in s.parameters if p.argument >= 0]
        attrs, parts, positional = dict(t.attrs), [], order == sorted(order)
        for p in s.parameters[1:] if s.is_method else s.parameters:
            value = self._argument(p.argument, p.attribute, p.default, t, attrs)
            if value is None:
                positional = False
            elif p.argument >= 0 and positional:
                parts.append(value)
            else:
                positional = False
                parts.append(f"{p.keyword}={value}")
        if s.name in (".to", ".type", ".astype") and parts:
            parts[0] = parts[0].partition("=")[2]
        inside = ", ".join(parts)
        if s.is_method:
            return Text(f"{self.spell(t.args[0]).at(ATOM)}{s.name}({inside})")
        return Text(f"{self._access(s.name)}({inside})")

    def _argument(self, index: int, attribute: str, default: object, t: Term, attrs: dict[str, Hashable]) -> str | None:
        if index >= 0:
            text = self.spell(t.args[index]).text
            return text
        if not attribute:
            return repr(default) if isinstance(default, str) else None
        if attribute not in attrs or attrs[attribute] == default:
            return None
        value = attrs[attribute]
        if attribute == "dtype":
            return self._dtype(str(value))
        return value if isinstance(value, str) else repr(value)

    def _dtype(self, name: str) -> str:
        if name not in ("float16", "bfloat16", "float32", "float64", "int32", "int64", "bool", "int8", "uint8"):
            return name
        if self._tables()[0] is idiom("keras"):
            return repr(name)
        module = {"torch": "torch", "tensorflow": "tensorflow", "jax": "jax.numpy"}[self.context.framework]
        return self._access(f"{module}.{'bool_' if name == 'bool' and module == 'jax.numpy' else name}")

    def _template(self, template: str, t: Term) -> Text:
        def put(found: re.Match[str]) -> str:
            if found[0] in ("{{", "}}"):
                return found[0][0]
            bare = found.start() == 0 and not template[found.end() :].strip()
            tight = template[found.end() : found.end() + 1] in (".", "[", "(") or _operator_beside(template, found)
            return self.spell(t.args[int(found[1])]).at(ATOM if tight and not bare else LOOSE)

        return Text(re.sub(r"\{\{|\}\}|\{(\d+)\}", put, template))

    def _accessed(self, template: str) -> str:
        return re.sub(r"\b(?:torch|tensorflow|jax|keras|ml_dtypes)(?:\.\w+)+", lambda found: self._access(found[0]), template)

    def _access(self, full: str) -> str:
        """A full dotted name through the file's imports; the module to import is noted where no name gives access."""
        stems = {name: plain(target) for name, target in self.source.imports.items() if not _is_value(target)}
        fits = [name for name, stem in stems.items() if full == stem or full.startswith(stem + ".")]
        if fits:
            best = max(fits, key=lambda name: len(stems[name]))
            return best + full[len(stems[best]) :]
        if full.startswith("keras.") and (name := self._import_name("tensorflow")):
            return f"{name}.{full}"
        module = full.partition(".")[0]
        self.missing.add(module)
        return full


def _is_value(target: str) -> bool:
    """Whether an imported thing is a class rather than a module: nothing of a framework's functions is reached through it."""
    return target.rpartition(".")[2][:1].isupper()


def _operator_beside(template: str, found: re.Match[str]) -> bool:
    before, after = template[: found.start()].rstrip(), template[found.end() :].lstrip()
    return before[-1:] not in ("", "(", ",", "[", "=", "{") or after[:1] not in ("", ")", ",", "]", "}")


def _in_other_words(t: Term) -> Term | None:
    """The same value by operations that every framework has; None if there is no other way to say it."""
    args = t.args
    match t.op:
        case "clamp_min":
            return Term("maximum", args)
        case "clamp_max":
            return Term("minimum", args)
        case "clamp":
            return Term("minimum", (Term("maximum", args[:2]), args[2]))
        case "square":
            return Term("pow", (args[0], Term("number", (), (("value", 2.0),))))
        case "reciprocal":
            return Term("div", (Term("number", (), (("value", 1.0),)), args[0]))
        case "rsqrt":
            return Term("div", (Term("number", (), (("value", 1.0),)), Term("sqrt", args)))
        case "logsigmoid":
            return Term("neg", (Term("softplus", (Term("neg", args),)),))
        case "softplus":
            return Term("logaddexp", (args[0], Term("number", (), (("value", 0.0),))))
    return None


def known_texts(context: Context, statement: ast.stmt) -> dict[Term, Text]:
    """The sub-terms that the source spells already, as it spells them: names first, then what stands in the context itself."""
    found: dict[Term, Text] = {}
    terms = dict(walk(context.term))
    ordered = sorted(context.written.items(), key=lambda item: (not item[1].named, item[1].inside is not None, len(item[0])))
    for path, w in ordered:
        t = terms.get(path)
        if t is None:
            continue
        if w.named and w.inside is not None and t not in found and _before(w.inside.statement, statement):
            found[t] = Text(w.named)
    for path, w in ordered:
        t, stands = terms.get(path), context.source.statement(w.node)
        if t is not None and t not in found and stands is not None and (stands is statement or _before(stands, statement)):
            text = context.source.text_of(w.node)
            found[t] = Text(text, level_of(w.node) if "\n" not in text else LOOSE if level_of(w.node) < ATOM else ATOM)
    return found


def _before(one: ast.stmt, other: ast.stmt) -> bool:
    return (one.lineno, one.col_offset) < (other.lineno, other.col_offset)


def _level_of(text: str) -> int:
    try:
        return level_of(ast.parse(text, mode="eval").body)
    except SyntaxError:
        return LOOSE


def level_of(node: object) -> int:
    """How tightly an expression's outermost operator binds."""
    match node:
        case ast.BinOp(op=op):
            table: dict[type[ast.AST], int] = {
                ast.Pow: POWER, ast.Mult: PRODUCT, ast.Div: PRODUCT, ast.MatMult: PRODUCT, ast.FloorDiv: PRODUCT, ast.Mod: PRODUCT,
                ast.Add: SUM, ast.Sub: SUM, ast.BitAnd: AND, ast.BitXor: XOR, ast.BitOr: OR,
            }  # fmt: skip
            return table.get(type(op), 10)
        case ast.UnaryOp(op=ast.Not()):
            return NOT
        case ast.UnaryOp():
            return UNARY
        case ast.Compare():
            return COMPARE
        case ast.Constant(value=int()):
            return ATOM - 1
        case ast.Constant() | ast.Name() | ast.Call() | ast.Attribute() | ast.Subscript() | ast.List() | ast.Dict() | ast.Set():
            return ATOM
    return LOOSE


__all__ = ["Path", "Speller", "Text", "Unwritable", "known_texts", "level_of"]
