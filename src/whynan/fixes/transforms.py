"""Guards that look at more than the failing operation: the choice around it, literals far away, the format of everything.

Each transform takes the whole term, the failing path and what is known, and yields changed terms.
"""

import math
import re
from collections.abc import Callable, Iterator
from dataclasses import dataclass

from whynan.fixes._pattern import carrier
from whynan.fixes._ranges import Ranges
from whynan.ir.dtype import Format
from whynan.ir.term import Path, Term, at, is_number, leaf, name_of, number, put, term, value_of, walk

_HALF = ("float16", "bfloat16")
_SAFE = {"acos": 0.0, "asin": 0.0, "atanh": 0.0, "exp": 0.0, "acosh": 2.0, "tan": 0.0, "sinh": 0.0, "cosh": 0.0}
_POINTWISE = frozenset(
    "neg abs exp expm1 log log1p log2 log10 sqrt rsqrt square reciprocal acos asin atan atanh acosh add sub mul div pow clamp clamp_min"
    " clamp_max maximum minimum cast sigmoid softplus relu tanh sin cos tan sinh cosh xlogy where".split()
)
_BOUNDED_CAUSES = frozenset("inverse-trig-domain inverse-trig-grad-at-edge rounding-out-of-domain log-of-zero zero-times-inf".split())


@dataclass(frozen=True, slots=True)
class Change:
    """One changed term, in words. `rank` and `exact` as in a `Guard`."""

    name: str
    term: Term
    title: str
    changes: str
    rank: int
    exact: bool = False


@dataclass(frozen=True, slots=True)
class Case:
    """What is known of a failure."""

    whole: Term
    path: Path
    cause: str
    ranges: Ranges
    fmt: Format


Transform = Callable[[Case], Iterator[Change]]


def double_where(case: Case) -> Iterator[Change]:
    """Choose the operand as well as the result: `where(c, f(x), b)` becomes `where(c, f(where(c, x, 1)), b)`."""
    for depth in range(len(case.path)):
        chooser, branch = at(case.whole, case.path[:depth]), case.path[depth]
        if chooser.op != "where" or branch not in (1, 2):
            continue
        steps = _pointwise_steps(case, depth)
        for inner in reversed(steps):
            new = _with_safe_operand(case, inner, chooser.args[0], branch)
            if new is not None:
                yield Change("double-where", new, "choose the operand too, so that the branch not taken stays harmless", "", 0, exact=True)


def chosen_before(case: Case) -> Iterator[Change]:
    """What is replaced where it is not finite, chosen before it is computed: `where(isfinite(v), v, b)` by a condition on v's operand."""
    for depth in range(len(case.path)):
        found = _replacement(at(case.whole, case.path[:depth]), case.path[depth:])
        if found is None:
            continue
        branch, rest, other = found
        inner = Case(case.whole, (*case.path[:depth], branch, *rest), case.cause, case.ranges, case.fmt)
        if len(_pointwise_steps(inner, depth)) + depth < len(inner.path):
            continue
        failing = at(inner.whole, inner.path)
        for rank, condition in enumerate(_defined(failing, len(failing.args) - 1 if failing.op == "div" else 0)):
            new = _with_safe_operand(inner, inner.path, condition, 1)
            if new is not None:
                chosen = term("where", condition, at(new, inner.path[: depth + 1]), other)
                title = "choose before computing instead of replacing what is not finite"
                says = "Nothing changes but where it was replaced: there the gradient becomes that of the replacement."
                yield Change("chosen-before", put(case.whole, case.path[:depth], chosen), title, says, rank - 3, exact=True)


def _replacement(t: Term, path: Path) -> tuple[int, Path, Term] | None:
    """If `t` replaces a value that is not finite: which argument the value is, the path inside it, and what stands in its place."""
    if t.op == "replace_nan" and path[0] == 0:
        return 0, path[1:], t.args[1]
    if t.op != "where":
        return None
    negated = t.args[0].op == "logical_not"
    test = t.args[0].args[0] if negated else t.args[0]
    if test.op not in ("isfinite", "isnan", "isinf"):
        return None
    branch = 1 if (test.op == "isfinite") != negated else 2
    if test.args[0] != t.args[branch] or path[0] not in (0, branch):
        return None
    return branch, path[1:] if path[0] else path[2 + negated :], t.args[3 - branch]


def _defined(failing: Term, which: int) -> Iterator[Term]:
    """Where an operation is defined, and has a slope: conditions on its operand, the mildest first."""
    if failing.op not in ("log", "log2", "log10", "sqrt", "rsqrt", "pow", "div"):
        return
    x = failing.args[which]
    if failing.op != "div":
        yield term("gt", x, number(0))
        return
    yield term("ne", x, number(0))
    like = carrier(x)
    if like is not None:
        yield term("gt", term("abs", x), term("pow", term("finfo_tiny", like), number(0.5)))


def _pointwise_steps(case: Case, depth: int) -> list[Path]:
    """The paths below a branch, from its root down to the failing operation, as long as all is elementwise."""
    out: list[Path] = []
    for end in range(depth + 1, len(case.path) + 1):
        if at(case.whole, case.path[:end]).op not in _POINTWISE:
            if not out:
                out.append(case.path[:end])
            break
        out.append(case.path[:end])
    return out


def _with_safe_operand(case: Case, path: Path, condition: Term, branch: int) -> Term | None:
    failing = at(case.whole, path)
    if not failing.args or failing.op == "where":
        return None
    which = len(failing.args) - 1 if failing.op in ("div", "xlogy") else 0
    operand = failing.args[which]
    if operand.op == "number":
        return None
    safe = number(_SAFE.get(failing.op, 1.0))
    chosen = term("where", condition, operand, safe) if branch == 1 else term("where", condition, safe, operand)
    return put(case.whole, (*path, which), chosen)


def exponent_limit(case: Case) -> Iterator[Change]:
    """Keep the exponent of an exponential below the logarithm of the format's largest number."""
    largest = math.log(case.fmt.max)
    for path, t in _around(case):
        if t.op not in ("exp", "sinh", "cosh", "expm1"):
            continue
        for rank, share in ((3, 0.9), (4, 0.45), (5, 0.22)):
            limit = float(math.floor(largest * share))
            new = put(case.whole, (*path, 0), term("clamp_max", t.args[0], number(limit)))
            says = f"Above {limit:g} the exponent is {limit:g}, and no gradient passes there."
            yield Change("exponent-limit", new, f"keep the exponent at most {limit:g}", says, rank, exact=share == 0.9)


def upcast(case: Case) -> Iterator[Change]:
    """Compute in a wider format: the loss from there on, its leaves converted first."""
    wider = "float32" if case.fmt.name in _HALF else "float64"
    first, failing = case.fmt.name in _HALF, at(case.whole, case.path)
    for whole, where in ((True, "the whole computation"), (False, "the failing operation")):
        root: Path = () if whole else _widest(case)
        new = put(case.whole, root, _cast_leaves(at(case.whole, root), wider, failing if failing.op == "opaque" and failing.args else None))
        if new != case.whole:
            changes = f"Values are rounded to {wider} instead of {case.fmt.name}."
            yield Change("upcast", new, f"run {where} in {wider}", changes, 0 if first else 7, exact=True)


def _widest(case: Case) -> Path:
    """The failing operation with what is directly around it."""
    return case.path[: max(0, len(case.path) - 1)]


def _cast_leaves(t: Term, dtype: str, inside: Term | None) -> Term:
    if t == inside:  # a call that is not looked into fails itself: its arguments are widened
        return Term(t.op, tuple(_cast_leaves(a, dtype, inside) for a in t.args), t.attrs)
    if t.op in ("leaf", "opaque"):
        return term("cast", t, dtype=dtype)
    if t.op == "move":  # what is moved is data, the rest are indices
        return Term(t.op, (_cast_leaves(t.args[0], dtype, inside), *t.args[1:]), t.attrs)
    if t.op in ("gather", "nll", "cross_entropy"):
        return Term(t.op, (_cast_leaves(t.args[0], dtype, inside), *t.args[1:]), t.attrs)
    if t.op in ("number", "zeros_like", "ones_like") or t.op.startswith("finfo_"):
        return t
    if t.op == "cast":
        return Term(t.op, t.args, (("dtype", dtype),))
    return Term(t.op, tuple(_cast_leaves(a, dtype, inside) for a in t.args), t.attrs)


def finite_literals(case: Case) -> Iterator[Change]:
    """Masks with a large finite number of the format instead of an infinity, or of a literal that overflows to one."""
    for rank, words in enumerate(("the format's largest number", "the root of the format's largest number"), 1):
        new = case.whole
        for path, t in walk(case.whole):
            value = _literal(t)
            like = _like(case.whole, path) if path and value is not None and abs(value) >= case.fmt.max else None
            if value is not None and like is not None:
                new = put(new, path, _mask(like, value < 0, root=rank == 2))
        if new != case.whole:
            yield Change(
                "finite-mask", new, f"mask with {words} instead of an infinity",
                "Nothing changes but where everything is masked: there the weights become equal instead of NaN.", rank, exact=True,
            )  # fmt: skip


_CONSTANT = re.compile(r"[\w.]+\((-?[\d.]+(?:e[+-]?\d+)?)(?:, [\w.=]+)?\)")


def _literal(t: Term) -> float | None:
    """A literal's value, also where a call gives it a format: `jnp.asarray(-1e10, jnp.float16)`."""
    if t.op == "number":
        return value_of(t)
    found = _CONSTANT.fullmatch(name_of(t)) if t.op == "leaf" else None
    return float(found[1]) if found else None


def _mask(like: Term, negative: bool, *, root: bool) -> Term:
    """A number far outside: the largest, or its root, with which products and differences stay finite."""
    if not root:
        return term("finfo_min" if negative else "finfo_max", like)
    size = term("pow", term("finfo_max", like), number(0.5))
    return term("neg", size) if negative else size


def _like(whole: Term, path: Path) -> Term | None:
    """A value whose format a literal at that path takes: the nearest float operand beside it."""
    for end in range(len(path) - 1, -1, -1):
        parent, child = at(whole, path[:end]), path[end]
        beside = [a for i, a in enumerate(parent.args) if i != child and not (parent.op == "where" and i == 0)]
        for candidate in beside:
            found = next((s for _, s in walk(candidate) if s.op in ("leaf", "move", "opaque") and _literal(s) is None), None)
            if found is not None:
                return _moved(found)
    return next((s for _, s in walk(whole) if s.op == "leaf"), None)


def _moved(t: Term) -> Term:
    """What is moved, at last: all of it has one format."""
    return _moved(t.args[0]) if t.op == "move" and t.args else t


def own_epsilons(case: Case) -> Iterator[Change]:
    """Epsilons from the format itself: small literals become `finfo_eps`, those just below 1 become `1 - finfo_eps`."""
    new = case.whole
    for path, t in walk(case.whole):
        if not is_number(t) or not path or at(case.whole, path[:-1]).op == "pow":
            continue
        like, value = _like(case.whole, path), value_of(t)
        if like is None:
            continue
        if 0 < value <= 1e-3:
            new = put(new, path, term("finfo_eps", like))
        elif 0 < 1 - value <= 1e-3:
            new = put(new, path, term("sub", number(1), term("finfo_eps", like)))
        elif 0 < 1 + value <= 1e-3:
            new = put(new, path, term("sub", term("finfo_eps", like), number(1)))
    if new != case.whole:
        yield Change("own-epsilon", new, "take the epsilon from the format", "The margin becomes the format's own eps.", 2)


_SELECTED = re.compile(r"\{0\}\[([^\[\]:]*[A-Za-z_][^\[\]:]*)\]")


def masked_mean(case: Case) -> Iterator[Change]:
    """The mean of a selection as a quotient of sums: `x[m].mean()` becomes `where(m, x, 0).sum() / m.sum().clamp(min=1)`."""
    for path, t in _around(case):
        inner = t.args[0] if t.op in ("mean", "sum") and t.args else t
        selected = _SELECTED.fullmatch(str(inner.attr("text"))) if inner.op == "move" and len(inner.args) == 1 else None
        if selected is None or t.op != "mean" or t.attrs:
            continue
        x, chosen = inner.args[0], leaf(selected[1])
        total = term("sum", term("where", chosen, x, term("zeros_like", x)))
        count = term("clamp_min", term("sum", term("dtype_of", chosen, carrier(x) or x)), number(1))
        says = "Nothing changes but for an empty selection, whose mean becomes 0."
        yield Change("masked-mean-by-sums", put(case.whole, path, term("div", total, count)), "take the mean by sums", says, 0, exact=True)


def input_limits(case: Case) -> Iterator[Change]:
    """Keep what goes into a call that is not looked into off the ends of [0, 1] and [-1, 1]."""
    t = at(case.whole, case.path)
    if t.op not in ("opaque", "leaf") and case.cause not in _BOUNDED_CAUSES:
        return
    for path, arg in walk(t):
        if arg.op != "leaf" or not path:
            continue
        low, high = case.ranges.get(name_of(arg), (-math.inf, math.inf))
        if (low, high) not in ((0.0, 1.0), (-1.0, 1.0)):
            continue
        eps = term("finfo_eps", arg)
        ends = (eps if low == 0 else term("sub", eps, number(1)), term("sub", number(1), eps))
        new = put(case.whole, (*case.path, *path), term("clamp", arg, *ends))
        yield Change(
            "input-limits",
            new,
            f"keep {name_of(arg)} off the ends of its range",
            "Closer than eps to the ends the value is that of the margin.",
            6,
        )


def _around(case: Case) -> Iterator[tuple[Path, Term]]:
    """The failing sub-term's parts, then what is around it."""
    yield from walk(at(case.whole, case.path), case.path)
    for end in range(len(case.path) - 1, -1, -1):
        yield case.path[:end], at(case.whole, case.path[:end])


TRANSFORMS: tuple[Transform, ...] = (
    chosen_before, double_where, upcast, finite_literals, own_epsilons, exponent_limit, masked_mean, input_limits,
)  # fmt: skip
