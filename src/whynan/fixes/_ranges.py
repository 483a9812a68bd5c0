"""What values a term can have, from the ranges of its leaves: the bounds of the ops' own records, in the format at hand.

Shapes are not known here: every leaf counts as a row of eight numbers and each reduction as one over the row. Operations without a
record of their own are written as those that have one. Correlations between operands are not seen. The bounds order proposals; they
prove nothing.
"""

from collections.abc import Callable, Mapping, Sequence
from functools import lru_cache

import numpy as np

from whynan.domain.interval import Bounds, make
from whynan.ir.dtype import BOOL, Format, format_of, nearest, next_down, next_up
from whynan.ir.graph import Call
from whynan.ir.term import Term, leaf, name_of, number, term, value_of
from whynan.ops._opdef import OPS, bound

ROW = 8
Ranges = Mapping[str, tuple[float, float]]
RangeKey = tuple[tuple[str, tuple[float, float]], ...]

_REDUCTIONS = frozenset("sum mean amax amin prod var logsumexp norm any all".split())
_ROWS = frozenset("softmax log_softmax cumsum logcumsumexp".split())
_PASSING = frozenset("move detach gather cast dtype_of".split())
_BOOLEANS = frozenset("eq ne lt le gt ge logical_and logical_or logical_not any all isnan isinf isfinite".split())
_OPPOSITE = {"gt": "le", "ge": "lt", "lt": "ge", "le": "gt", "eq": "ne"}
_ZERO = number(0)


def interval(t: Term, ranges: Ranges, fmt: Format) -> Bounds:
    """Bounds of a term's elements as computed in the format."""
    return _interval(t, tuple(sorted(ranges.items())), fmt)


@lru_cache(maxsize=5000)
def _interval(t: Term, ranges: RangeKey, fmt: Format) -> Bounds:
    if t.op == "mul" and t.args[0] == t.args[1]:
        t = term("square", t.args[0])
    inner = [_interval(a, ranges, _wider(t, fmt)) for a in t.args]
    return own_interval(t, inner, dict(ranges), fmt)


def _wider(t: Term, fmt: Format) -> Format:
    """The format of a cast's operand, as if the cast had come first: conversions stand at the leaves."""
    dtype = str(t.attr("dtype"))
    return format_of(dtype) if t.op == "cast" and dtype in ("float32", "float64") else fmt


def own_interval(t: Term, inner: Sequence[Bounds], ranges: Ranges, fmt: Format) -> Bounds:
    """Bounds of a term from those of its operands."""
    if t.op == "leaf":
        low, high = ranges.get(name_of(t), (-1e4, 1e4))
        return make(np.array([low]), np.array([high]), fmt=fmt)
    if t.op == "number" or t.op.startswith("finfo_"):
        return _constant(t, fmt)
    if t.op in EXPANSIONS:
        held = tuple(leaf(f"{i}") for i in range(len(inner)))
        return _expanded(EXPANSIONS[t.op](Term(t.op, held, t.attrs)), dict(zip(held, inner, strict=True)), fmt)
    if t.op in _PASSING and inner:
        return inner[0]
    if t.op == "where":
        inner = [inner[0], _chosen(t, inner[1], 1, fmt), _chosen(t, inner[2], 2, fmt)]
    return _recorded(t, inner, fmt)


def _constant(t: Term, fmt: Format) -> Bounds:
    limits = {"finfo_eps": fmt.eps, "finfo_tiny": fmt.tiny, "finfo_max": fmt.max, "finfo_min": -fmt.max}
    value = limits.get(t.op) if t.op != "number" else float(nearest(fmt, value_of(t)))
    assert value is not None
    return make(np.array([value]), np.array([value]), nan=bool(np.isnan(value)))


def _expanded(t: Term, held: Mapping[Term, Bounds], fmt: Format) -> Bounds:
    if t in held:
        return held[t]
    return own_interval(t, [_expanded(a, held, fmt) for a in t.args], {}, fmt)


def _chosen(t: Term, b: Bounds, branch: int, fmt: Format) -> Bounds:
    """Bounds of a branch that is the compared value itself: `where(x > 0, x, 1)`."""
    condition, value = t.args[0], t.args[branch]
    if len(condition.args) != 2 or condition.args[0] != value or condition.args[1].op != "number":
        return b
    limit, op = value_of(condition.args[1]), condition.op if branch == 1 else _OPPOSITE.get(condition.op, "")
    if op in ("gt", "ge", "ne") and (op != "ne" or b.lo.min() >= limit):
        return make(np.maximum(b.lo, next_up(fmt, limit) if op != "ge" else limit), b.hi)
    if op in ("lt", "le"):
        return make(b.lo, np.minimum(b.hi, next_down(fmt, limit) if op == "lt" else limit))
    return b


def _recorded(t: Term, inner: Sequence[Bounds], fmt: Format) -> Bounds:
    """Bounds by the op's record; anything if it has none or does not fit."""
    anything = make(np.array([-np.inf]), np.array([np.inf]), nan=True)
    if t.op not in OPS:
        return anything
    formats = tuple(BOOL if a.op in _BOOLEANS else fmt for a in t.args)
    shape = (1,) if t.op in _REDUCTIONS else (ROW,)
    call = Call(t.op, _attrs(t), tuple((ROW,) for _ in t.args), formats, shape, BOOL if t.op in _BOOLEANS else fmt)
    try:
        with np.errstate(all="ignore"):
            return bound(call, inner)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError):
        return anything


def _attrs(t: Term) -> dict[str, object]:
    if t.op in _REDUCTIONS:
        correction = t.attr("correction")
        return {"dims": (-1,), "p": t.attr("p") or 2.0, "correction": correction if isinstance(correction, int) else 0}
    return {"dim": -1, "beta": 1.0, "threshold": 20.0} if t.op in _ROWS or t.op == "softplus" else {}


def _unit(x: Term, t: Term, default: float) -> Term:
    """A row divided by its norm, which is no smaller than the attribute `eps`."""
    eps = t.attr("eps")
    return term("div", x, term("clamp_min", term("norm", x), number(eps if isinstance(eps, float) else default)))


EXPANSIONS: dict[str, Callable[[Term], Term]] = {
    "clamp": lambda t: term("minimum", term("maximum", t.args[0], t.args[1]), t.args[2]),
    "clamp_min": lambda t: term("maximum", t.args[0], t.args[1]),
    "clamp_max": lambda t: term("minimum", t.args[0], t.args[1]),
    "std": lambda t: term("sqrt", term("var", t.args[0], correction=t.attr("correction"))),
    "divide_no_nan": lambda t: term("where", term("ne", t.args[1], _ZERO), term("div", *t.args), _ZERO),
    "normalize": lambda t: _unit(t.args[0], t, 1e-12),
    "cosine_similarity": lambda t: term("sum", term("mul", _unit(t.args[0], t, 1e-8), _unit(t.args[1], t, 1e-8))),
    "bce_with_logits": lambda t: term("sub", term("softplus", t.args[0]), term("mul", *t.args)),
    "matmul": lambda t: term("sum", term("mul", *t.args)),
    "kl_div": lambda t: term("sub", term("xlogy", t.args[1], t.args[1]), term("mul", t.args[1], t.args[0])),
    "replace_nan": lambda t: term("where", term("isnan", t.args[0]), t.args[1], t.args[0]),
    "zeros_like": lambda t: _ZERO,
}
