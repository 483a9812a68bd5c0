"""Rules as data: a pattern, what replaces it, and the matcher.

A pattern is a term's text. One capital letter is a variable: it matches any term, and the same one wherever it occurs again; `C`, `D`,
`E` and `F` match literals only. As the value of an attribute (`axis=A`) it matches any value.
"""

import itertools
from collections.abc import Callable, Hashable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from whynan.ir.term import Term, parse

Bindings = dict[str, Term | Hashable]
Condition = Callable[[Mapping[str, Term | Hashable]], bool]

LITERALS = frozenset("CDEF")
COMMUTATIVE = frozenset("add mul maximum minimum eq ne logical_and logical_or logaddexp".split())


@dataclass(frozen=True, slots=True)
class Rule:
    """An equality of real values, read from left to right.

    `positive`, `nonnegative` and `binary` (0 or 1) name the variables of which that must be known.
    `cures` is a cause that the right side does not have where the left one has it; empty for plain algebra, which only
    helps other rules to match. `both` says that the rule is used in both directions.
    """

    name: str
    left: Term
    right: Term
    cures: str = ""
    positive: str = ""
    nonnegative: str = ""
    binary: str = ""
    both: bool = False


def rewrite(name: str, left: str, right: str, **facts: Any) -> Rule:
    """A rule from the texts of its sides."""
    return Rule(name, parse(left), parse(right), **facts)


@dataclass(frozen=True, slots=True)
class Guard:
    """A change at a failing operation that keeps the value wherever `changes` does not say otherwise.

    `causes` are those it is made for (empty: any). `exact` says that the value changes nowhere where the old one is
    finite, or by less than can be seen. The lower `rank`, the earlier it is proposed. `nonnegative` as in a `Rule`.
    """

    name: str
    left: Term
    right: Term
    title: str
    changes: str = ""
    causes: tuple[str, ...] = ()
    exact: bool = False
    rank: int = 5
    nonnegative: str = ""


def guard(name: str, left: str, right: str, title: str, changes: str = "", causes: str = "", **facts: Any) -> Guard:
    """A guard from the texts of its sides; causes are separated by blanks."""
    return Guard(name, parse(left), parse(right), title, changes, tuple(causes.split()), **facts)


def is_variable(name: Hashable) -> bool:
    """Whether a leaf's name or an attribute's value stands for anything in a pattern."""
    return isinstance(name, str) and len(name) == 1 and name.isupper()


def match(pattern: Term, t: Term, bound: Bindings | None = None) -> Iterator[Bindings]:
    """The ways in which a term is an instance of a pattern; operands of commutative operations in either order."""
    bound = {} if bound is None else bound
    name = pattern.attr("name")
    if pattern.op == "leaf" and is_variable(name):
        if (name not in LITERALS or t.op == "number") and bound.get(str(name), t) == t:
            yield {**bound, str(name): t}
        return
    if pattern.op != t.op or len(pattern.args) != len(t.args):
        return
    attributes = _attributes(pattern, t, bound)
    if attributes is None:
        return
    orders = [t.args, t.args[::-1]] if t.op in COMMUTATIVE and t.args[0] != t.args[-1] else [t.args]
    for args in orders:
        yield from _all(pattern.args, args, attributes)


def _all(patterns: tuple[Term, ...], args: tuple[Term, ...], bound: Bindings) -> Iterator[Bindings]:
    if not patterns:
        yield bound
        return
    for first in match(patterns[0], args[0], bound):
        yield from _all(patterns[1:], args[1:], first)


def _attributes(pattern: Term, t: Term, bound: Bindings) -> Bindings | None:
    """The bindings with those of the attributes; None if an attribute differs. A variable also matches an absent attribute, as None."""
    out = dict(bound)
    if any(pattern.attr(key) is None for key, _ in t.attrs):
        return None
    for key, value in pattern.attrs:
        own = t.attr(key)
        if is_variable(value):
            if out.setdefault(str(value), own) != own:
                return None
        elif own != value:
            return None
    return out


def build(pattern: Term, bound: Mapping[str, Term | Hashable]) -> Term:
    """The pattern with its variables replaced."""
    name = pattern.attr("name")
    if pattern.op == "leaf" and is_variable(name):
        value = bound[str(name)]
        assert isinstance(value, Term)
        return value
    attrs = tuple((k, _value(bound, v)) for k, v in pattern.attrs)
    return Term(pattern.op, tuple(build(a, bound) for a in pattern.args), tuple((k, v) for k, v in attrs if v is not None))


def _value(bound: Mapping[str, Term | Hashable], value: Hashable) -> Hashable:
    if not is_variable(value):
        return value
    found = bound[str(value)]
    assert not isinstance(found, Term)
    return found


def variables(*patterns: Term) -> tuple[str, ...]:
    """The variables that stand for terms in patterns, in order."""
    names = itertools.chain.from_iterable(_names(p) for p in patterns)
    return tuple(dict.fromkeys(names))


def _names(pattern: Term) -> Iterator[str]:
    name = pattern.attr("name")
    if pattern.op == "leaf" and is_variable(name):
        yield str(name)
    for a in pattern.args:
        yield from _names(a)


_CARRIERS = frozenset("leaf opaque cast dtype_of".split())
_DATA = {"where": (1, 2), "gather": (0,), "move": (0,)}


def settled(t: Term) -> Term:
    """The term with each `finfo_…` about the nearest thing that has its dtype: a name rather than a whole expression."""
    args = tuple(settled(a) for a in t.args)
    if t.op.startswith("finfo_"):
        return Term(t.op, (carrier(t.args[0]) or t.args[0],), t.attrs)
    return Term(t.op, args, t.attrs)


def carrier(t: Term) -> Term | None:
    """A part of a term that has the term's dtype: a leaf, mostly. None if only literals are found."""
    if t.op in _CARRIERS:
        return t
    places = _DATA.get(t.op, range(len(t.args)))
    found = (carrier(t.args[i]) for i in places)
    return next((f for f in found if f is not None), None)
