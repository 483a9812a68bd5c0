"""One rising operation of two values: what is at most something stays at most what that becomes."""

from collections.abc import Callable

from numpy import isfinite

from whynan.analysis.slack import EXACT, Slack
from whynan.analysis.view import Vertex, View
from whynan.ir.dtype import Format
from whynan.ops._curves import ULPS, stated

SLOPES = {"sigmoid": 0.25, "tanh": 1.0, "atan": 1.0, "logsigmoid": 1.0}  # how steep they are
_ROOM = 1 + 1e-6

Size = Callable[[Vertex], float]
Prove = Callable[[Vertex, Vertex], Slack | None]


def pairwise(view: View, size: Size, prove: Prove, a: Vertex, b: Vertex) -> Slack | None:
    """The slack of a <= b where both are one operation, input by input in order; `prove` finds that of two inputs, `size` a magnitude."""
    left, right = view.node(a), view.node(b)
    if left.op != right.op or not view.elementwise(a) or not view.elementwise(b):
        return None
    if left.op in ("sqrt", "relu"):
        found = prove(view.inputs(a)[0], view.inputs(b)[0])
        # MKL's square root may be off by an ulp either way
        return None if found != EXACT else EXACT if left.op == "relu" else Slack(4 * max(left.format.eps, right.format.eps))
    if left.format is not right.format:
        return None
    able = "ulps" not in left.attrs and "ulps" not in right.attrs
    if left.op in SLOPES and able:
        x, y = view.inputs(a)[0], view.inputs(b)[0]
        return of_function(right.op, right.format, prove(x, y), size(y), size(b))
    for smaller, larger in _terms(view, a, b):
        both = _both(prove, smaller, larger)
        if both == (EXACT, EXACT):
            return EXACT
        if both is not None and able:
            return of_sum(right.format, both, [size(x) for x in larger], size(a) + size(b))
    return None


def _terms(view: View, a: Vertex, b: Vertex) -> list[tuple[tuple[Vertex, Vertex], tuple[Vertex, Vertex]]]:
    """What has to be in order for two sums, or two differences, to be: the smaller ones and the larger ones."""
    if view.op(a) not in ("add", "sub"):
        return []
    (p, q), (r, s) = view.inputs(a), view.inputs(b)
    return [((p, q), (r, s)), ((p, q), (s, r))] if view.op(a) == "add" else [((p, s), (r, q))]


def _both(prove: Prove, smaller: tuple[Vertex, Vertex], larger: tuple[Vertex, Vertex]) -> tuple[Slack, Slack] | None:
    one = prove(smaller[0], larger[0])
    two = None if one is None else prove(smaller[1], larger[1])
    return None if one is None or two is None else (one, two)


def of_function(op: str, fmt: Format, given: Slack | None, operand: float, result: float) -> Slack | None:
    """f(x) <= f(y) where x <= y up to `given`: a slope makes that larger, and the library errs on both sides."""
    if given is None:
        return None
    room = _absolute(given, operand) * SLOPES[op]
    return _slack(room + 2 * (stated(fmt, ULPS) + 1) * fmt.eps * (result + room) + 4 * fmt.tiny)


def of_sum(fmt: Format, given: tuple[Slack, Slack], operands: list[float], results: float) -> Slack | None:
    """A sum of smaller terms, where these have slacks: each result is rounded by itself."""
    room = sum(_absolute(slack, size) for slack, size in zip(given, operands, strict=True))
    return _slack(room + 0.55 * fmt.eps * results + 4 * fmt.tiny)


def _absolute(slack: Slack, size: float) -> float:
    """All of a slack of a <= b as an absolute one, for a b of that magnitude."""
    return slack.relative * size + slack.absolute if slack.relative else slack.absolute


def _slack(absolute: float) -> Slack | None:
    return Slack(0.0, absolute * _ROOM) if isfinite(absolute) else None
