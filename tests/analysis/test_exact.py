"""Inequalities that hold in exact arithmetic and, up to rounding, for computed values; and look-alikes that do not hold."""

from collections.abc import Callable
from math import inf, log

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven, view_of

from whynan.analysis.exact.atoms import Atoms
from whynan.analysis.exact.limits import Exact
from whynan.analysis.exact.poly import atom, constant, minus, plus, scaled, times
from whynan.analysis.exact.program import least
from whynan.analysis.propagate import propagate
from whynan.domain.interval import Bounds
from whynan.ir.dtype import FLOAT16, FLOAT32, FLOAT64, Format


def known(s: Small, node: int, **domains: Bounds) -> tuple[float, float]:
    """Between which numbers exact arithmetic puts a node (anything if it says nothing)."""
    view = view_of(s, node)
    plain = propagate(view.graph, domains, refine=False)
    exact = Exact(view, list(plain.bounds))
    found = [b for b in (exact.bounds(node), exact.shallow(node)) if b is not None]
    return max((float(b.lo.min()) for b in found), default=-inf), min((float(b.hi.max()) for b in found), default=inf)


def inputs(names: str, lo: float, hi: float, n: int = 4, fmt: Format = FLOAT32) -> tuple[Small, list[int], dict[str, Bounds]]:
    """A small graph with inputs of n elements each in one range."""
    s = Small()
    return s, [s.input(name, n, fmt=fmt) for name in names], {name: interval(lo, hi, fmt=fmt) for name in names}


def gibbs(s: Small, p: int, q: int) -> int:
    """sum(exp(p) (p - q))"""
    return s.reduce("sum", s.op("mul", s.op("exp", p), s.op("sub", p, q)), -1)


@pytest.mark.parametrize(("fmt", "room"), [(FLOAT64, 1e-8), (FLOAT32, 1e-5), (FLOAT16, 0.05)])
def test_a_variance_of_two_moments_is_not_negative_up_to_rounding(fmt: Format, room: float) -> None:
    s, (x,), domains = inputs("x", -1, 1, 8, fmt)
    mean = s.reduce("mean", x, -1)
    variance = s.op("sub", s.reduce("mean", s.op("square", x), -1), s.op("square", mean))
    low, _ = known(s, variance, **domains)
    assert -room < low < 0


def test_moments_of_two_values_are_no_variance() -> None:
    s, (x, y), domains = inputs("xy", -1, 1, 8)
    difference = s.op("sub", s.reduce("mean", s.op("square", x), -1), s.op("square", s.reduce("mean", y, -1)))
    assert known(s, difference, **domains)[0] <= -1


def test_the_divergence_of_two_softmax_rows_is_not_negative_up_to_rounding() -> None:
    s, (a, b), domains = inputs("ab", -20, 20)
    low, _ = known(s, gibbs(s, s.op("log_softmax", a, dim=-1), s.op("log_softmax", b, dim=-1)), **domains)
    assert -1e-4 < low <= 0


def test_the_divergence_of_rows_that_do_not_sum_to_one_may_be_negative() -> None:
    s, (a, b), domains = inputs("ab", -2, 0)
    low, _ = known(s, gibbs(s, a, b), **domains)
    assert low <= 4 * np.exp(-1) * -1 + 1e-3  # exp(x) x at x = -1, b = 0


def test_the_entropy_of_a_row_is_at_most_log_n() -> None:
    s, (a,), domains = inputs("a", -10, 10)
    p = s.op("log_softmax", a, dim=-1)
    low, _ = known(s, s.reduce("sum", s.op("mul", s.op("exp", p), p), -1), **domains)
    assert -log(4) - 1e-4 < low <= -log(4) + 1e-6


def log_sum_exp(s: Small, x: int) -> int:
    """max + log(sum(exp(x - max)))"""
    top = s.reduce("amax", x, -1)
    return s.op("add", top, s.op("log", s.reduce("sum", s.op("exp", s.op("sub", x, top)), -1)))


@pytest.mark.parametrize("make", [log_sum_exp, lambda s, x: s.reduce("logsumexp", x, -1)], ids=["by hand", "built in"])
def test_a_log_sum_exp_lies_between_the_maximum_and_log_n_above_the_mean(make: Callable[[Small, int], int]) -> None:
    s, (x,), domains = inputs("x", -100, 100)
    low, _ = known(s, s.op("sub", make(s, x), s.reduce("amax", x, -1)), **domains)
    assert -1e-3 < low <= 1e-6
    low, _ = known(s, s.op("sub", make(s, x), s.reduce("mean", x, -1)), **domains)
    assert log(4) - 1e-3 < low <= log(4) + 1e-6


def test_sines_and_cosines_of_one_angle_lie_on_a_circle() -> None:
    s, (x, y), domains = inputs("xy", -3, 3)
    squares = [s.op("square", s.reduce("mean", s.op(f, x), -1)) for f in ("cos", "sin")]
    assert 1 <= known(s, s.op("add", *squares), **domains)[1] < 1 + 1e-4
    other = s.op("add", squares[0], s.op("square", s.reduce("mean", s.op("sin", y), -1)))
    assert known(s, other, **domains)[1] >= 2 - 1e-4


def boxes(s: Small, x: int, w: int, y: int, v: int) -> tuple[int, int, int]:
    """Intersection, union and hull of segments with centre and length."""
    half = s.const(0.5)
    (a, b), (c, d) = (
        (s.op("sub", p, s.op("mul", length, half)), s.op("add", p, s.op("mul", length, half))) for p, length in ((x, w), (y, v))
    )
    inside = s.op("relu", s.op("sub", s.op("minimum", b, d), s.op("maximum", a, c)))
    return inside, s.op("sub", s.op("add", w, v), inside), s.op("sub", s.op("maximum", b, d), s.op("minimum", a, c))


def test_segments_cover_at_least_what_they_share() -> None:
    s = Small()
    x, w, y, v = (s.input(name, 3) for name in "xwyv")
    _, union, hull = boxes(s, x, w, y, v)
    domains = {name: interval(*ends) for name, ends in zip("xwyv", ((0, 10), (0.1, 5), (0, 10), (0.1, 5)), strict=True)}
    assert 0.099 < known(s, union, **domains)[0] <= 0.1001
    assert 0.099 < known(s, hull, **domains)[0] <= 0.1001
    domains["v"] = interval(-5, 5)  # a length may be negative: no fact
    assert known(s, hull, **domains)[0] <= 0.1001 and known(s, union, **domains)[0] < 0


def test_errors_of_long_chains_do_not_grow_where_they_cancel() -> None:
    s, (x,), domains = inputs("x", -1000, 1000)
    for _ in range(4):
        x = s.op("sub", x, log_sum_exp(s, x))
    assert known(s, x, **domains)[1] < 0.1


@pytest.mark.parametrize("seed", range(20))
def test_a_linear_program_never_claims_too_much(seed: int) -> None:
    """Random facts that hold at a random point: the limit is at most the value there, and it is the minimum of the box without facts."""
    rng = np.random.default_rng(seed)
    atoms = Atoms()
    parts = [atoms.leaf(k, -1.0, 1.0) for k in range(5)]
    at = rng.uniform(-1, 1, 5)

    def form(values: np.ndarray) -> tuple[dict, float]:
        p = constant(0.0)
        for part, value in zip(parts, values, strict=True):
            p = plus(p, scaled(part, float(value)))
        return p, float(values @ at)

    goal, value = form(rng.normal(size=5))
    given = []
    for _ in range(8):
        p, here = form(rng.normal(size=5))
        given.append(plus(p, constant(-here + rng.exponential())))  # not negative at the point
    assert least(atoms, goal, given) <= value + 1e-12
    assert least(atoms, goal, []) == pytest.approx(-sum(abs(float(c)) for c in goal.values()))


def test_polynomials_cancel_exactly() -> None:
    a, b = atom(0), atom(1)
    square = times(plus(a, b), plus(a, b))
    assert minus(square, plus(plus(times(a, a), times(b, b)), scaled(times(a, b), 2))) == {}
    assert minus(scaled(constant(1.0), 0.1), constant(0.1)) == {}
    with pytest.raises(OverflowError):
        constant(inf)


def test_what_cancels_leaves_its_rounding_behind():
    """tp + (sum(p) - tp) / 2 + (sum(t) - tp) / 2: the products p t cancel, but for rounding, which is at most that of p."""
    s = Small()
    p, t = s.input("p", 2, 4), s.input("t", 2, 4)
    both = s.reduce("sum", s.op("mul", p, t), -1)
    parts = [s.op("mul", s.op("sub", s.reduce("sum", x, -1), both), s.const(0.5)) for x in (p, t)]
    total = s.op("add", s.op("add", both, parts[0]), parts[1])
    node = s.op("div", s.const(1.0), s.op("add", total, s.const(1e-7)))
    domains = {"p": interval(0, 1, 2), "t": interval(0, 1, 2, fraction=False)}
    proof = proven(s, node, **domains)
    assert proof.outputs == (True,)
    lo, _ = ends(proof.bounds[total])
    rng = np.random.default_rng(4)
    for _ in range(2000):
        x = (rng.random((50, 4)) ** rng.integers(1, 60)).astype(np.float32)
        y = rng.integers(0, 2, (50, 4)).astype(np.float32)
        tp = (x * y).sum(-1)[:, None]
        order = rng.permutation(4)
        sums = [np.cumsum(v[:, order], -1, dtype=np.float32)[:, -1:] for v in (x, y)]
        value = tp + (sums[0] - tp) * np.float32(0.5) + (sums[1] - tp) * np.float32(0.5)
        assert value.min() >= lo
