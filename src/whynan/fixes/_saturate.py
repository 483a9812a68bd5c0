"""Equality saturation: all forms of a term that the rewrites lead to, in one e-graph, and the cheapest of them.

The e-graph is the `egglog` package's. Terms and rules are handed to it as text in its own language, one constructor per operation;
what comes back is the graph as JSON, from which terms are taken by `_cost`. Limits are counts: rounds and nodes.
"""

import json
from collections.abc import Hashable, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from whynan.domain.interval import Bounds
from whynan.errors import WhynanError
from whynan.fixes._cost import Cost, own_cost, price
from whynan.fixes._pattern import LITERALS, Rule, is_variable
from whynan.fixes._ranges import Ranges, own_interval
from whynan.fixes._tidy import tidy
from whynan.fixes.rewrites import SIGNS, TABLES
from whynan.ir.dtype import Format
from whynan.ir.term import Term, is_number, leaf, name_of, number, parse, term, value_of, walk

ROUNDS = 7
NODES = 600
PASSES = 12

_ATTRS: dict[str, tuple[str, ...]] = {
    **dict.fromkeys("sum mean amax amin prod logsumexp".split(), ("axis", "keepdims")),
    **dict.fromkeys("softmax log_softmax cumsum logcumsumexp gather".split(), ("axis",)),
    "var": ("axis", "correction", "keepdims"),
    "std": ("axis", "correction", "keepdims"),
    "norm": ("axis", "keepdims", "p"),
    "move": ("text",),
}
_UNARY = (
    "neg abs exp expm1 log log1p log2 log10 sqrt rsqrt square reciprocal sin cos acos asin atan acosh tanh cosh sinh sigmoid logsigmoid"
    " softplus relu det logdet slogdet_log finfo_eps finfo_tiny finfo_min finfo_max detach sum mean amax amin prod logsumexp softmax"
    " log_softmax cumsum logcumsumexp var std norm"
).split()
_BINARY = "add sub mul div pow maximum minimum logaddexp xlogy gt ge lt le eq ne bce_with_logits binary_cross_entropy gather".split()
_ARITY = {**dict.fromkeys(_UNARY, 1), **dict.fromkeys(_BINARY, 2), "where": 3}
_STEPS = ("(saturate (run signs)) (run cures)", "(run cures)", "(saturate (run signs)) (run cures)", "(run algebra)")
_MOST = 6  # arguments of an operation without a constructor of its own
_THROUGH = "log exp neg sqrt square abs sigmoid logsigmoid softplus log1p expm1".split()


class FixMissing(WhynanError):
    """The packages for fixes are not installed."""


@dataclass(slots=True)
class _Names:
    """What stands for texts and operations that the language's strings cannot hold."""

    known: list[Hashable] = field(default_factory=list)

    def of(self, value: Hashable) -> str:
        """A quoted string for the value; numbers and None as they are, so that rules can name them."""
        if value is None or isinstance(value, bool | int | float):
            return f'"{value!r}"'
        if value not in self.known:
            self.known.append(value)
        return f'"#{self.known.index(value)}"'

    def back(self, text: str) -> Hashable:
        """The value that a string stands for."""
        if text.startswith("#"):
            return self.known[int(text[1:])]
        return {"None": None, "True": True, "False": False}.get(text) if text[0] in "NTF" else _numeral(text)


def _numeral(text: str) -> Hashable:
    return int(text) if text.lstrip("-").isdigit() else float(text)


def equals(t: Term, ranges: Ranges, fmt: Format, most: int = 6) -> list[tuple[Cost, Term]]:
    """Terms of the same real value, cheapest first, the given one not among them."""
    names = _Names()
    graph = _saturated(t, ranges, names)
    return _Extraction(graph, names, ranges, fmt).best(t, most)


# ---------------------------------------------------------------- into the e-graph


def _engine() -> Any:
    try:
        from egglog.bindings import EGraph
    except ImportError as e:
        raise FixMissing("The search for fixes needs the package egglog.", "Install it with: pip install whynan[fix]") from e
    return EGraph()


def _saturated(t: Term, ranges: Ranges, names: _Names) -> dict[str, Any]:
    """The e-graph after a bounded number of rounds, as parsed JSON."""
    engine = _engine()
    program = "\n".join([*_declarations(), *_rules(names), f"(let $root {_written(t, names)})", *_facts(t, ranges, names)])
    engine.run_program(*engine.parse_program(program))
    for step in _STEPS * ROUNDS:
        sizes = engine.run_program(*engine.parse_program(f"(run-schedule {step}) (print-size)"))
        if sum(n for _, n in _counts(str(sizes[-1]))) > NODES:
            break
    graph: dict[str, Any] = json.loads(engine.serialize([]).to_json())
    return graph


def _counts(text: str) -> Iterator[tuple[str, int]]:
    for line in text.strip().strip("()").split("\n"):
        name, _, count = line.strip(" ()").rpartition(" ")
        yield name, int(count)


def _declarations() -> Iterator[str]:
    yield "(datatype Real (leaf String) (number f64))"
    for op, n in _ARITY.items():
        strings = " String" * len(_ATTRS.get(op, ()))
        yield f"(constructor t_{op} ({' '.join(['Real'] * n)}{strings}) Real)"
    yield "(constructor t_move (Real String) Real)"
    yield "(constructor t_move2 (Real Real String) Real)"
    for n in range(_MOST + 1):
        yield f"(constructor any_{n} (String{' Real' * n}) Real)"
    yield from ("(ruleset cures)", "(ruleset algebra)", "(ruleset signs)")
    yield from ("(relation positive (Real))", "(relation nonnegative (Real))", "(relation binary (Real))")


def _rules(names: _Names) -> Iterator[str]:
    for family, rows in TABLES.items():
        for row in rows:
            yield _rule(row, row.left, row.right, "algebra" if family == "algebra" else "cures", names)
            if row.both:
                yield _rule(row, row.right, row.left, "algebra", names)
    for left, sign, positive, nonnegative in SIGNS:
        facts = [
            f"(= e {_written(parse(left), names)})",
            *(f"(positive {v})" for v in positive),
            *(f"(nonnegative {v})" for v in nonnegative),
        ]
        yield f"(rule ({' '.join(facts)}) (({sign} e)) :ruleset signs)"
    yield "(rule ((positive e)) ((nonnegative e)) :ruleset signs)"
    yield "(rule ((= e (number C)) (> C 0.0)) ((positive e)) :ruleset signs)"
    yield "(rule ((= e (number C)) (>= C 0.0)) ((nonnegative e)) :ruleset signs)"
    for op, sign in (("add", "+"), ("sub", "-"), ("mul", "*")):
        yield f"(rewrite (t_{op} (number C) (number D)) (number ({sign} C D)) :ruleset cures)"
    yield "(rewrite (t_neg (number C)) (number (neg C)) :ruleset cures)"
    for sign in ("positive", "nonnegative"):
        yield f"(rule ((= e (t_move X A)) ({sign} X)) (({sign} e)) :ruleset signs)"
        yield f"(rule ((= e (t_move2 X I A)) ({sign} X)) (({sign} e)) :ruleset signs)"
    for f in _THROUGH:  # what is not picked must be defined too
        when = " :when ((positive X))" if f in ("log", "sqrt") else ""
        yield f"(rewrite (t_{f} (t_move X A)) (t_move (t_{f} X) A){when} :ruleset cures)"
        yield f"(rewrite (t_{f} (t_move2 X I A)) (t_move2 (t_{f} X) I A){when} :ruleset cures)"
    yield "(rewrite (t_div X (number C)) (t_mul X (number (/ 1.0 C))) :ruleset algebra :when ((!= C 0.0)))"


def _rule(row: Rule, left: Term, right: Term, ruleset: str, names: _Names) -> str:
    needs = [
        *(f"(positive {v})" for v in row.positive),
        *(f"(nonnegative {v})" for v in row.nonnegative),
        *(f"(binary {v})" for v in row.binary),
    ]
    when = f" :when ({' '.join(needs)})" if needs else ""
    return f"(rewrite {_written(left, names)} {_written(right, names)}{when} :ruleset {ruleset})"


def _facts(t: Term, ranges: Ranges, names: _Names) -> Iterator[str]:
    for part in {s for _, s in walk(t)}:
        text = _written(part, names)
        if part.op == "leaf":
            low, _ = ranges.get(name_of(part), (-1.0, 1.0))
            if low >= 0:
                yield f"({'positive' if low > 0 else 'nonnegative'} {text})"
        if part.op in ("cast", "dtype_of", "move") and _condition(part):
            yield f"(binary {text})"
            yield f"(nonnegative {text})"


def _condition(t: Term) -> bool:
    """Whether a term is a truth value as a number."""
    inner = t.args[0] if t.args else t
    return inner.op in ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_or", "logical_not") or (
        inner.op == "move" and _condition(inner)
    )


def _written(t: Term, names: _Names) -> str:
    """A term, or a pattern, in the e-graph's language."""
    name = t.attr("name")
    if t.op == "leaf" and is_variable(name):
        return f"(number {name})" if name in LITERALS else str(name)
    if t.op == "leaf":
        return f"(leaf {names.of(str(name))})"
    if is_number(t) and abs(value_of(t)) < float("inf"):
        return f"(number {value_of(t)!r})"
    args = " ".join(_written(a, names) for a in t.args)
    keys = _ATTRS.get(t.op, ())
    if t.op == "move" and len(t.args) in (1, 2):
        return f"(t_move{'2' * (len(t.args) == 2)} {args} {names.of(t.attr('text'))})"
    if _ARITY.get(t.op) == len(t.args) and {k for k, _ in t.attrs} <= set(keys):
        values = " ".join(str(v) if is_variable(v) else names.of(v) for v in (t.attr(k) for k in keys))
        return f"(t_{t.op} {args} {values})"
    return f"(any_{len(t.args)} {names.of((t.op, t.attrs))} {args})" if len(t.args) <= _MOST else f"(leaf {names.of(t)})"


# ---------------------------------------------------------------- out of it


@dataclass(frozen=True, slots=True)
class _ENode:
    op: str
    strings: tuple[str, ...]
    children: tuple[str, ...]


@dataclass(frozen=True, slots=True, eq=False)
class _Form:
    """A term of a class, with its cost and its bounds."""

    cost: Cost
    term: Term
    bounds: Bounds


class _Extraction:
    """The cheapest term of each class of equal terms, found by passes over all nodes until nothing improves."""

    def __init__(self, graph: dict[str, Any], names: _Names, ranges: Ranges, fmt: Format) -> None:
        self.names, self.ranges, self.fmt = names, ranges, fmt
        nodes = graph["nodes"]
        self.root = next(c for c, d in graph["class_data"].items() if d.get("let") == "$root")
        self.classes: dict[str, list[_ENode]] = {}
        for node in nodes.values():
            if graph["class_data"][node["eclass"]]["type"] == "Real":
                self.classes.setdefault(node["eclass"], []).append(_enode(node, nodes))
        self.found: dict[str, _Form] = {}
        self._settle()

    def _settle(self) -> None:
        for _ in range(PASSES):
            changed = False
            for name, enodes in self.classes.items():
                for e in enodes:
                    form = self._form(e, self.found.get(name))
                    if form is not None:
                        self.found[name], changed = form, True
            if not changed:
                return

    def _form(self, e: _ENode, better: _Form | None, swap: tuple[str, _Form] | None = None) -> _Form | None:
        """The node's cheapest term, if it is cheaper than `better`."""
        parts = []
        for c in e.children:
            part = swap[1] if swap is not None and c == swap[0] else self.found.get(c)
            if part is None:
                return None
            parts.append(part)
        least = _sum(
            [(0.0, 0.0, 0.0, price(e.op.removeprefix("t_").removesuffix("2" if e.op == "t_move2" else ""))), *(p.cost for p in parts)]
        )
        if better is not None and least >= better.cost:
            return None
        t, inner = self._term(e, tuple(p.term for p in parts)), [p.bounds for p in parts]
        out = own_interval(t, inner, self.ranges, self.fmt)
        whole = _sum([own_cost(t, inner, out, self.fmt), *(p.cost for p in parts)])
        return _Form(whole, t, out) if better is None or whole < better.cost else None

    def _term(self, e: _ENode, args: tuple[Term, ...]) -> Term:
        if e.op == "leaf":
            value = self.names.back(e.strings[0])
            return value if isinstance(value, Term) else leaf(str(value))
        if e.op == "number":
            return number(float(e.strings[0]))
        if e.op.startswith("any_"):
            held: Any = self.names.back(e.strings[0])
            return Term(str(held[0]), args, held[1])
        op = "move" if e.op in ("t_move", "t_move2") else e.op.removeprefix("t_")
        return term(op, *args, **{k: self.names.back(s) for k, s in zip(_ATTRS.get(op, ()), e.strings, strict=True)})

    def best(self, original: Term, most: int) -> list[tuple[Cost, Term]]:
        """The root's forms: one for each of its nodes, and for each other choice one step below."""
        found = [(e, f) for e in self.classes[self.root] if (f := self._form(e, None)) is not None]
        found.sort(key=lambda pair: pair[1].cost)
        forms = [f for _, f in found]
        for e, _ in found[:most]:
            for child in dict.fromkeys(e.children):
                others = [f for other in self.classes[child] if (f := self._form(other, None)) is not None]
                for other in sorted(others, key=lambda f: f.cost)[1:4]:
                    swapped = self._form(e, None, (child, other))
                    forms += [swapped] if swapped is not None else []
        unique: dict[Term, Cost] = {tidy(original, original): (0.0, 0.0, 0.0, 0.0)}
        for f in sorted(forms, key=lambda f: f.cost):
            unique.setdefault(tidy(f.term, original), f.cost)
        return [(c, t) for t, c in unique.items()][1 : most + 1]


def _enode(node: dict[str, Any], nodes: dict[str, Any]) -> _ENode:
    strings, children = [], []
    for c in node["children"]:
        inner = nodes[c]
        if inner["eclass"].startswith(("String", "f64")):
            strings.append(inner["op"].strip('"'))
        else:
            children.append(inner["eclass"])
    return _ENode(node["op"], tuple(strings), tuple(children))


def _sum(costs: Sequence[Cost]) -> Cost:
    a, b, c, d = (sum(column) for column in zip(*costs, strict=True))
    return a, b, c, d
