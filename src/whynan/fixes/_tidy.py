"""Terms as a person writes them: no double negations, differences instead of sums with negatives, operands in the order of the old term."""

import math
from collections.abc import Callable

from whynan.fixes._pattern import COMMUTATIVE
from whynan.ir.term import Term, is_number, leaves, number, term, value_of

_FOLDED: dict[str, Callable[[float], float]] = {"log": math.log, "sqrt": math.sqrt, "square": lambda x: x * x}


def tidy(t: Term, like: Term) -> Term:
    """The same term, tidied; operands of commutative operations in the order in which `like` names their leaves."""
    order = {name: i for i, name in enumerate(leaves(like))}
    return _tidied(t, order)


def _tidied(t: Term, order: dict[str, int]) -> Term:
    args = tuple(_tidied(a, order) for a in t.args)
    if t.op in _FOLDED and is_number(args[0]) and value_of(args[0]) > 0:
        return number(_FOLDED[t.op](value_of(args[0])))
    if t.op == "sqrt" and args[0].op.startswith("finfo_"):  # a limit is a number, not an array
        return term("pow", args[0], number(0.5))
    match t.op:
        case "neg":
            return _negated(args[0])
        case "sub":
            return _sum(args[0], _negated(args[1]))
        case "add":
            return _sum(*_ordered(t.op, args, order))
        case "mul":
            return _product(*_ordered(t.op, args, order))
    return Term(t.op, _ordered(t.op, args, order), t.attrs)


def _ordered(op: str, args: tuple[Term, ...], order: dict[str, int]) -> tuple[Term, ...]:
    """Literals first in products and last in sums; the rest as the leaves stand in the old term."""
    if op not in COMMUTATIVE:
        return args
    ranks = [(is_number(a) != (op == "mul"), min((order.get(n, 99) for n in leaves(a)), default=99)) for a in args]
    return args if ranks[0] <= ranks[1] else args[::-1]


def _negated(t: Term) -> Term:
    if t.op == "neg":
        return t.args[0]
    if t.op == "number":
        return number(-value_of(t))
    if t.op == "sub":
        return term("sub", t.args[1], t.args[0])
    if t.op == "mul" and t.args[0].op in ("neg", "number"):
        return _product(_negated(t.args[0]), t.args[1])
    return term("neg", t)


def _sum(a: Term, b: Term) -> Term:
    if is_number(a, 0.0) or is_number(b, 0.0):
        return b if is_number(a, 0.0) else a
    if b.op == "neg":
        return term("sub", a, b.args[0])
    if b.op == "number" and value_of(b) < 0:
        return term("sub", a, number(-value_of(b)))
    if b.op == "mul" and is_number(b.args[0]) and value_of(b.args[0]) < 0:
        return term("sub", a, _product(number(-value_of(b.args[0])), b.args[1]))
    if b.op == "sub":
        return _sum(_sum(a, b.args[0]), _negated(b.args[1]))
    if a.op == "neg":
        return term("sub", b, a.args[0])
    return term("add", a, b)


def _product(a: Term, b: Term) -> Term:
    if is_number(a, 1.0) or is_number(b, 1.0):
        return b if is_number(a, 1.0) else a
    if is_number(a, -1.0):
        return _negated(b)
    if a.op == "neg" and b.op == "neg":
        return term("mul", a.args[0], b.args[0])
    return term("mul", a, b)
