"""What values a term can have, from the ranges of its leaves: the bounds of the ops' own records, in the format at hand.

Shapes are not known here: every leaf counts as a row of eight numbers and each reduction as one over the row. Operations without a
record of their own are written as those that have one. Correlations between operands are not seen. The bounds order proposals; they prove nothing.
"""

from collections.abc import Callable, Mapping
from functools import lru_cache

import numpy as np

from whynan.domain.interval import Bounds, make
from whynan.ir.dtype import BOOL, Format, format_of, nearest, next_down, next_up
from whynan.ir.graph import Call
from whynan.ir.term import Term, name_of, term, value_of
from whynan.ops._opdef import OPS, bound

ROW = 8
Ranges = Mapping[str, tuple[float, float]]

_REDUCTIONS = frozenset("sum mean amax amin prod var logsumexp norm any all".split())
_ROWS = frozenset("softmax log_softmax cumsum logcumsumexp".split())
_PASSING = frozenset("move detach gather cast dtype_of".split())
_BOOLEANS = frozenset("eq ne lt le gt ge logical_and logical_or logical_not any all isnan isinf isfinite".split())


def interval(t: Term, ranges: Ranges, fmt: Format) -> Bounds:
    """Bounds of a term's elements as computed in the format."""
    return _interval(t, tuple(sorted(ranges.items())), fmt)


@lru_cache(maxsize=20000)
def _interval(t: Term, ranges: tuple[tuple[str, tuple[float, float]], ...], fmt: Format) -> Bounds:
    if t.op == "leaf":
        low, high = dict(ranges).get(name_of(t), (-1e4, 1e4))
        return make(np.array([low]), np.array([high]), fmt=fmt)
    if t.op == "number":
        value = float(nearest(fmt, value_of(t)))
        return make(np.array([value]), np.array([value]), nan=bool(np.isnan(value)))
    if t.op.startswith("finfo_"):
        value = {"finfo_eps": fmt.eps, "finfo_tiny": fmt.tiny, "finfo_max": fmt.max, "finfo_min": -fmt.max}.get(t.op, 0.0)
        return make(np.array([value]), np.array([value]))
    wider = format_of(str(t.attr("dtype"))) if t.op == "cast" and str(t.attr("dtype")) in ("float32", "float64") else fmt
    if t.op in EXPANSIONS:
        return _interval(EXPANSIONS[t.op](t), ranges, fmt)
    inner = [_interval(a, ranges, wider) for a in t.args]
    if t.op == "where":
        inner[1:] = [_chosen(t, inner[1], 1, fmt), _chosen(t, inner[2], 2, fmt)]
    if t.op in _PASSING:
        return inner[0]
    return _recorded(t, inner, fmt)


def _chosen(t: Term, b: Bounds, branch: int, fmt: Format) -> Bounds:
    """Bounds of a branch that is the compared value itself: `where(x > 0, x, 1)`."""
    condition, value = t.args[0], t.args[branch]
    if len(condition.args) != 2 or condition.args[0] != value or condition.args[1].op != "number":
        return b
    limit, op = value_of(condition.args[1]), condition.op if branch == 1 else _OPPOSITE.get(condition.op, "")
    if op in ("gt", "ge", "ne") and (op != "ne" or b.lo.min() >= limit):
        lo = np.maximum(b.lo, next_up(fmt, limit) if op != "ge" else limit)
        return make(lo, b.hi)
    if op in ("lt", "le"):
        return make(b.lo, np.minimum(b.hi, next_down(fmt, limit) if op == "lt" else limit))
    return b


_OPPOSITE = {"gt": "le", "ge": "lt", "lt": "ge", "le": "gt", "eq": "ne"}


def _recorded(t: Term, inner: list[Bounds], fmt: Format) -> Bounds:
    """Bounds by the op's record; anything if it has none or does not fit."""
    if t.op not in OPS:
        return make(np.array([-np.inf]), np.array([np.inf]), nan=True)
    formats = tuple(BOOL if a.op in _BOOLEANS else fmt for a in t.args)
    out = BOOL if t.op in _BOOLEANS else fmt
    shape = (1,) if t.op in _REDUCTIONS else (ROW,)
    call = Call(t.op, _attrs(t), tuple((ROW,) for _ in t.args), formats, shape, out)
    try:
        with np.errstate(all="ignore"):
            return bound(call, inner)
    except (KeyError, ValueError, IndexError, TypeError, AttributeError):
        return make(np.array([-np.inf]), np.array([np.inf]), nan=True)


def _attrs(t: Term) -> dict[str, object]:
    if t.op in _REDUCTIONS:
        correction = t.attr("correction")
        return {"dims": (-1,), "p": t.attr("p") or 2.0, "correction": correction if isinstance(correction, int) else 0}
    return {"dim": -1, "beta": 1.0, "threshold": np.inf} if t.op in _ROWS or t.op == "softplus" else {}


def _clamp_min(t: Term) -> Term:
    return term("maximum", t.args[0], t.args[1])


EXPANSIONS: dict[str, Callable[[Term], Term]] = {
    "clamp": lambda t: term("minimum", term("maximum", t.args[0], t.args[1]), t.args[2]),
    "clamp_min": _clamp_min,
    "clamp_max": lambda t: term("minimum", t.args[0], t.args[1]),
    "std": lambda t: term("sqrt", term("var", t.args[0], correction=t.attr("correction"))),
    "divide_no_nan": lambda t: term("where", term("ne", t.args[1], _NUMBER), term("div", *t.args), _NUMBER),
    "normalize": lambda t: term("div", t.args[0], term("norm", t.args[0])),
    "bce_with_logits": lambda t: term("sub", term("softplus", t.args[0]), term("mul", *t.args)),
    "matmul": lambda t: term("sum", term("mul", *t.args)),
    "kl_div": lambda t: term("sub", term("xlogy", t.args[1], t.args[1]), term("mul", t.args[1], t.args[0])),
    "zeros_like": lambda t: _NUMBER,
}
_NUMBER = Term("number", (), (("value", 0.0),))
