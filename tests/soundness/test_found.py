"""Graphs for which bounds were once wrong, each by hand and in its smallest form."""

from collections.abc import Callable
from fractions import Fraction
from typing import Any

import mpmath
import numpy as np
import pytest
from tests.soundness.graphs import Case
from tests.soundness.violations import violations

from whynan.analysis.exact.atoms import TINY, Atoms, logarithm
from whynan.analysis.exact.limits import Exact
from whynan.analysis.exact.poly import constant, scaled, times
from whynan.analysis.propagate import propagate
from whynan.analysis.view import View
from whynan.domain.interval import Bounds, between, make, top
from whynan.ir.dtype import BFLOAT16, BOOL, FLOAT16, FLOAT32, FLOAT64, INT32, INT64, Array, Format, flushed
from whynan.ir.graph import Builder, Graph, Output, Shape

Build = Callable[..., int]
BUILDS: list[tuple[Build, Format, tuple[tuple[Bounds, Array], ...]]] = []
ROW: Shape = (3,)
COUNT = 17


def within(low: float, high: float, fmt: Format, shape: Shape = ROW) -> tuple[Bounds, Array]:
    """Bounds of one interval, and samples over its whole width, in equal steps and in decades."""
    rng = np.random.default_rng(0)
    even = rng.uniform(low, high, (200, *shape))
    decades = np.clip(high * 10.0 ** rng.uniform(-12, 0, (200, *shape)), low, high)
    ends = rng.choice([low, high], (50, *shape))
    return between(low, high, fmt, len(shape)), np.concatenate([even, decades, ends]).astype(fmt.numpy)


def graph(fmt: Format, *inputs: tuple[Bounds, Array]) -> Callable[[Build], Build]:
    """Register a graph; the function gets a builder and the input nodes and returns the output node."""

    def register(build: Build) -> Build:
        BUILDS.append((build, fmt, inputs))
        return build

    return register


@pytest.mark.parametrize("index", range(COUNT))
def test_values_lie_within_their_bounds(index: int) -> None:
    build, fmt, inputs = BUILDS[index]
    b = Builder()
    names = {f"x{k}": b.add("input", (), value.shape[1:], fmt) for k, (_, value) in enumerate(inputs)}
    out = build(b, *names.values())
    domains, samples = ({n: pair[k] for n, pair in zip(names, inputs, strict=True)} for k in (0, 1))
    found = list(violations(Case(Graph(tuple(b.nodes), names, (Output("loss", "loss", out),)), domains, samples), others=8))
    assert not found, str(found[0])


def test_all_graphs_are_tested() -> None:
    assert len(BUILDS) == COUNT


@graph(FLOAT32, within(-1, 1, FLOAT32))
def softmax_truncated_to_integers(b: Builder, x: int) -> int:
    p = b.add("softmax", (x,), ROW, FLOAT32, dim=-1)
    whole = b.add("cast", (p,), ROW, INT32)
    return b.add("sum", (whole,), (1,), INT32, dims=(-1,))


@graph(FLOAT32, within(-1, 1, FLOAT32))
def sum_of_what_attains_zero_but_is_not_positive(b: Builder, x: int) -> int:
    top = b.add("amax", (x,), (1,), FLOAT32, dims=(-1,))
    d = b.add("sub", (x, top), ROW, FLOAT32)
    e = b.add("expm1", (d,), ROW, FLOAT32)
    s = b.add("sum", (e,), (1,), FLOAT32, dims=(-1,))
    return b.add("amax", (s,), (1,), FLOAT32, dims=(-1,))


@graph(FLOAT64, within(1, 2, FLOAT64, (2, 3)))
def quotient_of_two_equal_transposes(b: Builder, x: int) -> int:
    one, two = (b.add("permute", (x,), (3, 2), FLOAT64, axes=(-1, -2)) for _ in "ab")
    same = b.add("reshape", (two,), (3, 2), FLOAT64)
    return b.add("div", (one, same), (3, 2), FLOAT64)


@graph(FLOAT32, within(0, 10, FLOAT32))
def norm_of_high_order_underflows(b: Builder, x: int) -> int:
    n = b.add("norm", (x,), (1,), FLOAT32, dims=(-1,), ord=10.0)
    s = b.const(np.array(FLOAT32.smallest, np.float32), FLOAT32)
    return b.add("div", (x, b.add("add", (n, s), (1,), FLOAT32)), ROW, FLOAT32)


@graph(FLOAT32, (make([np.inf], [-np.inf], nan=True), np.full((450, 1), np.nan, np.float32)), within(0, 1, FLOAT32, (1,)))
def maximum_with_nan(b: Builder, x: int, y: int) -> int:
    m = b.add("maximum", (x, y), (1,), FLOAT32)
    top = b.add("amax", (m,), (1,), FLOAT32, dims=(-1,))
    return b.add("sub", (m, top), (1,), FLOAT32)


@graph(FLOAT32, within(0, 1, FLOAT32), within(0, 1, FLOAT32))
def sums_in_two_formats(b: Builder, x: int, y: int) -> int:
    small = b.add("minimum", (x, y), ROW, FLOAT32)
    wide = b.add("sum", (b.add("cast", (small,), ROW, FLOAT64),), (1,), FLOAT64, dims=(-1,))
    narrow = b.add("sum", (x,), (1,), FLOAT32, dims=(-1,))
    return b.add("sub", (wide, b.add("cast", (narrow,), (1,), FLOAT64)), (1,), FLOAT64)


@graph(FLOAT32, within(0, 1, FLOAT32), within(0, 1, FLOAT32))
def additions_in_two_formats(b: Builder, x: int, y: int) -> int:
    wide = b.add("add", tuple(b.add("cast", (v,), ROW, FLOAT64) for v in (x, y)), ROW, FLOAT64)
    narrow = b.add("cast", (b.add("add", (x, y), ROW, FLOAT32),), ROW, FLOAT64)
    return b.add("sub", (wide, narrow), ROW, FLOAT64)


@graph(BFLOAT16, within(0.1, 1, BFLOAT16))
def root_of_a_square_in_a_narrow_format(b: Builder, x: int) -> int:
    square = b.add("cast", (b.add("square", (x,), ROW, BFLOAT16),), ROW, FLOAT32)
    root = b.add("sqrt", (square,), ROW, FLOAT32)
    return b.add("div", (b.add("cast", (x,), ROW, FLOAT32), root), ROW, FLOAT32)


@graph(FLOAT16, within(-1, 1, FLOAT16, (2, 3)))
def widened_transpose_under_branch_and_prune(b: Builder, x: int) -> int:
    r = b.add("reciprocal", (x,), (2, 3), FLOAT16)
    t = b.add("permute", (r,), (3, 2), FLOAT16, axes=(-1, -2))
    return b.add("cast", (b.add("reshape", (t,), (3, 2, 1), FLOAT16),), (3, 2, 1), FLOAT32)


@graph(FLOAT32, within(-10, -1, FLOAT32, (1, 3)))
def logarithm_of_what_is_attained_but_for_rounding(b: Builder, x: int) -> int:
    p = b.add("softmax", (x,), (1, 3), FLOAT32, dim=-2)
    twice = b.add("log", (b.add("log", (p,), (1, 3), FLOAT32),), (1, 3), FLOAT32)
    return b.add("amax", (twice,), (1, 1), FLOAT32, dims=(-2, -1))


def _total(b: Builder, x: int, fmt: Format, **attrs: Any) -> int:
    return b.add("sum", (x,), (1,), fmt, dims=(-1,), **attrs)


@graph(FLOAT32, within(0.1, 10, FLOAT32))
def root_of_a_norm_and_a_sum_of_squares(b: Builder, x: int) -> int:
    """A norm under the root is no sum of squares: sum(x x) / sqrt(|x| sum(x x)) was held to be at most 1."""
    total = _total(b, b.add("square", (x,), ROW, FLOAT32), FLOAT32)
    norm = b.add("norm", (x,), (1,), FLOAT32, dims=(-1,), ord=2.0)
    root = b.add("sqrt", (b.add("mul", (total, norm), (1,), FLOAT32),), (1,), FLOAT32)
    return b.add("div", (_total(b, b.add("mul", (x, x), ROW, FLOAT32), FLOAT32), root), (1,), FLOAT32)


@graph(FLOAT32, within(0.1, 10, FLOAT32))
def product_with_the_root_of_a_norm(b: Builder, x: int) -> int:
    total = _total(b, b.add("square", (x,), ROW, FLOAT32), FLOAT32)
    norm = b.add("norm", (x,), (1,), FLOAT32, dims=(-1,), ord=2.0)
    roots = tuple(b.add("sqrt", (v,), (1,), FLOAT32) for v in (total, norm))
    return b.add("sub", (total, b.add("mul", roots, (1,), FLOAT32)), (1,), FLOAT32)


@graph(BFLOAT16, within(0.1, 1, BFLOAT16, (2,)))
def cosine_of_sizes_in_a_narrow_format(b: Builder, x: int) -> int:
    """The squares are rounded in bfloat16, the products in float64: the slack was that of float64."""
    wide = b.add("cast", (x,), (2,), FLOAT64)
    total = _total(b, b.add("mul", (wide, wide), (2,), FLOAT64), FLOAT64)
    size = b.add("cast", (_total(b, b.add("square", (x,), (2,), BFLOAT16), BFLOAT16),), (1,), FLOAT64)
    root = b.add("sqrt", (b.add("mul", (size, size), (1,), FLOAT64),), (1,), FLOAT64)
    return b.add("div", (total, root), (1,), FLOAT64)


FLUSHED = flushed(FLOAT32)


@graph(FLUSHED, within(0, 1, FLUSHED))
def limit_that_is_a_subnormal(b: Builder, x: int) -> int:
    """max(x, 1e-45) is read as zero where subnormals are flushed."""
    c = b.add("clamp", (x,), ROW, FLUSHED, low=1e-45, high=None)
    return b.add("reciprocal", (c,), ROW, FLUSHED)


@graph(FLUSHED, within(FLOAT32.tiny, FLOAT32.tiny, FLUSHED, (1,)), within(0, 1, FLUSHED, (2,)))
def mean_that_underflows(b: Builder, x: int, y: int) -> int:
    """A sum of at least the smallest normal number is less than that when it is divided."""
    both = b.add("concat", (x, b.add("mul", (y, y), (2,), FLUSHED)), ROW, FLUSHED, dim=-1)
    mean = b.add("mean", (both,), (1,), FLUSHED, dims=(-1,))
    return b.add("reciprocal", (mean,), (1,), FLUSHED)


@graph(FLOAT16, within(-0.01267242431640625, 0.006046295166015625, FLOAT16))
def sum_of_products_that_were_not_rounded(b: Builder, x: int) -> int:
    """The rounded products had an exact sum, the unrounded ones another."""
    c = b.const(np.array(-0.0078125, np.float16), FLOAT16)
    return _total(b, b.add("mul", (x, c), ROW, FLOAT16), FLOAT16, contracted=True)


@graph(FLOAT32, within(0.5, 1, FLOAT32, (2,)))
def sum_that_overflows_and_a_norm_that_does_not(b: Builder, x: int) -> int:
    """Squares whose float32 sum is rounded up to infinity, while the norms in float64 stay finite."""
    big = b.add("mul", (x, b.const(np.array(1.8446743e19, np.float32), FLOAT32)), (2,), FLOAT32)
    total = b.add("cast", (_total(b, b.add("mul", (big, big), (2,), FLOAT32), FLOAT32),), (1,), FLOAT64)
    wide = b.add("cast", (big,), (2,), FLOAT64)
    size = _total(b, b.add("square", (wide,), (2,), FLOAT64), FLOAT64)
    root = b.add("sqrt", (b.add("mul", (size, size), (1,), FLOAT64),), (1,), FLOAT64)
    return b.add("div", (total, root), (1,), FLOAT64)


def test_a_mask_is_not_cut_at_a_constant_between_its_values() -> None:
    """The constant that `where` selects is no whole number: True lay above the last cut and was lost."""
    b = Builder()
    mask = b.add("input", (), (2, 1), BOOL)
    x = b.add("input", (), (2, 3), FLOAT32)
    out = b.add("where", (mask, b.const(np.float32(1e-7).reshape(()), FLOAT32), x), (2, 3), FLOAT32)
    domains = {"mask": make([[0.0], [1.0]], 1.0, neg_zero=False, fraction=False), "x": make(np.ones((2, 3)), 1.0, fraction=False)}
    samples = {"mask": np.ones((1, 2, 1), bool), "x": np.ones((1, 2, 3), np.float32)}
    graph = Graph(tuple(b.nodes), {"mask": mask, "x": x}, (Output("loss", "loss", out),))
    assert not list(violations(Case(graph, domains, samples)))


def test_a_half_is_not_cut_at_a_float32_constant() -> None:
    """float32's 0.1 is no float16: the cut left out the float16 nearest to it, seen through a widening cast."""
    b = Builder()
    near = np.float16(0.1)
    x = b.add("input", (), (2,), FLOAT16)
    out = b.add("sub", (b.add("cast", (x,), (2,), FLOAT32), b.const(np.float32(0.1).reshape(()), FLOAT32)), (2,), FLOAT32)
    domains = {"x": make([0.0, float(near)], [1.0, float(near)], neg_zero=False)}
    graph = Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", out),))
    assert not list(violations(Case(graph, domains, {"x": np.array([[1.0, near]], np.float16)})))


def test_an_unbounded_integer_is_not_split() -> None:
    """2**63 is no int64: the position of its upper bound wrapped to the lowest, and all values but one were lost."""
    b = Builder()
    n = b.add("input", (), (2,), INT64)
    x = b.add("cast", (n,), (2,), FLOAT32)
    out = b.add("reciprocal", (x,), (2,), FLOAT32)
    graph = Graph(tuple(b.nodes), {"n": n}, (Output("loss", "loss", out),))
    samples = {"n": np.array([[5, -3], [1, 2**40], [0, 7]], np.int64)}
    assert not list(violations(Case(graph, {"n": top(INT64, 1)}, samples)))


def _exactly(fmt: Format, build: Build, *inputs: tuple[Bounds, Array]) -> str:
    """What is wrong with what exact arithmetic says of a graph; empty if nothing is."""
    b = Builder()
    names = {f"x{k}": b.add("input", (), value.shape[1:], fmt) for k, (_, value) in enumerate(inputs)}
    out = build(b, *names.values())
    domains, samples = ({n: pair[k] for n, pair in zip(names, inputs, strict=True)} for k in (0, 1))
    case = Case(Graph(tuple(b.nodes), names, (Output("loss", "loss", out),)), domains, samples)
    return "\n".join(map(str, violations(case, ("exact",), others=4)))


def test_two_terms_with_one_logarithm_are_two_terms() -> None:
    """exp(x) exp(y) + exp(x + y) + exp(z) had the logarithm of exp(x + y) + exp(z)."""

    def build(b: Builder, x: int, y: int, z: int) -> int:
        powers = [b.add("exp", (v,), ROW, FLOAT64) for v in (x, y, b.add("add", (x, y), ROW, FLOAT64), z)]
        whole = b.add("add", (powers[2], powers[3]), ROW, FLOAT64)
        more = b.add("add", (b.add("mul", (powers[0], powers[1]), ROW, FLOAT64), whole), ROW, FLOAT64)
        return b.add("sub", tuple(b.add("log", (v,), ROW, FLOAT64) for v in (more, whole)), ROW, FLOAT64)

    assert not _exactly(FLOAT64, build, *(within(-1, 1, FLOAT64) for _ in "xyz"))


def test_a_limit_that_is_flushed_is_zero_in_exact_arithmetic() -> None:
    """max(x, 1e-38) times 1e38 was held to be at least 1."""

    def build(b: Builder, x: int) -> int:
        c = b.add("clamp", (x,), ROW, FLUSHED, low=1e-38, high=None)
        return b.add("mul", (c, b.const(np.float32(1e38).reshape(()), FLUSHED)), ROW, FLUSHED)

    assert not _exactly(FLUSHED, build, within(0, 1, FLUSHED))


def test_an_exponent_that_is_computed_is_no_constant() -> None:
    """(x + 1e3) - x is 1000 in exact arithmetic only, and with 998 less no square's exponent."""

    def build(b: Builder, x: int) -> int:
        large, less = (b.const(np.float32(c).reshape(()), FLOAT32) for c in (1e3, 998))
        moved = b.add("sub", (b.add("add", (x, large), ROW, FLOAT32), x), ROW, FLOAT32)
        exponent = b.add("sub", (moved, less), ROW, FLOAT32)
        power = b.add("pow", (b.add("add", (x, large), ROW, FLOAT32), exponent), ROW, FLOAT32)
        square = b.add("square", (b.add("add", (x, large), ROW, FLOAT32),), ROW, FLOAT32)
        return b.add("sub", (power, square), ROW, FLOAT32)

    assert not _exactly(FLOAT32, build, within(0, 1, FLOAT32))


def test_products_in_another_order_lose_more() -> None:
    """(1e30 1e-20) 1e-20 is 1e-10, and 1e30 (1e-20 1e-20) is 0 where subnormals are flushed."""
    found = []
    for order in ((0, 1, 2), (1, 2, 0)):
        b = Builder()
        ends = {"x": (0.5e30, 1e30), "y": (1e-21, 1e-20), "z": (1e-21, 1e-20)}
        inputs = {name: b.add("input", (), (1,), FLUSHED) for name in ends}
        whole = b.add("concat", tuple(list(inputs.values())[k] for k in order), ROW, FLUSHED, dim=-1)
        out = b.add("prod", (whole,), (1,), FLUSHED, dims=(-1,))
        graph = Graph(tuple(b.nodes), inputs, (Output("loss", "loss", out),))
        domains = {name: between(*pair, FLUSHED, 1) for name, pair in ends.items()}
        exact = Exact(View(graph), list(propagate(graph, domains, refine=False).bounds)).bounds(out)
        found.append(-np.inf if exact is None else float(exact.lo.min()))
    assert max(found) <= 0


def test_a_rounded_constant_is_not_taken_for_exact() -> None:
    """exp of a constant sum that is no float64 was taken for right to 48 bits."""
    atoms = Atoms()
    for c in (Fraction(1, 3) + 500, Fraction(0.1) + 555, Fraction(-2, 3) - 590):
        found = atoms.exp(constant(c))
        assert found is not None
        with mpmath.workdps(60):
            true, value = mpmath.exp(mpmath.mpf(c.numerator) / c.denominator), found.poly[()]
            assert abs(mpmath.mpf(value.numerator) / value.denominator / true - 1) <= found.relative


def test_logarithms_of_fractions_that_are_no_numbers() -> None:
    for c in (Fraction(10) ** -400, Fraction(10) ** 400, 1 - Fraction(1, 10**20), Fraction(3, 7), Fraction(1)):
        with mpmath.workdps(60):
            true = mpmath.log(mpmath.mpf(c.numerator) / c.denominator)
            assert abs(logarithm(c) - true) <= TINY * (1 + abs(true))


def test_what_underflows_is_not_zero() -> None:
    """1e-200 * 1e-200 * 1e300 is 1e-100: the product of the first two is no float64."""
    atoms = Atoms()
    x, y, z = (atoms.leaf(name, lo, hi) for name, lo, hi in (("x", 0.0, 1e-200), ("y", 0.0, 1e-200), ("z", 0.0, 1e300)))
    low, high = atoms.range(times(times(x, y), z))
    assert low <= 0 and high >= 1e-100
    assert atoms.range(scaled(z, Fraction(10) ** -400))[1] >= 1e-100


def test_a_branch_that_is_never_taken_is_not_cut() -> None:
    """What `where` would select is empty: there was nothing to put the boxes together from."""
    b = Builder()
    x = b.add("input", (), (3, 3), FLOAT64)
    never = b.add("logical_not", (b.add("gt", (x, x), (3, 3), BOOL),), (3, 3), BOOL)
    zero = b.add("cast", (b.add("sub", (x, x), (3, 3), FLOAT64),), (3, 3), FLOAT64)
    chosen = b.add("where", (never, b.const(np.float64(0.5).reshape(()), FLOAT64), zero), (3, 3), FLOAT64)
    out = b.add("rsqrt", (chosen,), (3, 3), FLOAT64)
    domains = {"x": make(np.zeros((3, 3)), np.ones((3, 3)), neg_zero=True)}
    assert not list(violations(Case(Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", out),)), domains, {"x": np.zeros((1, 3, 3))})))


def test_products_that_underflow_alone_are_not_lost_together() -> None:
    """Each rounded product is 0; added before they are rounded, three halves of the smallest number are more."""
    b = Builder()
    x = b.add("input", (), ROW, FLOAT16)
    m = b.add("mul", (x, b.const(np.float16(0.25).reshape(()), FLOAT16)), ROW, FLOAT16)
    out = _total(b, m, FLOAT16, contracted=True)
    graph = Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", out),))
    domains = {"x": between(0, FLOAT16.smallest, FLOAT16, 1)}
    samples = {"x": np.full((1, 3), FLOAT16.smallest, np.float16)}
    assert not list(violations(Case(graph, domains, samples), others=12))


def test_shares_of_a_sum_of_unrounded_products() -> None:
    """Each product rounds up to the smallest number; their sum, added before that, is smaller: the shares are more than 1 in all."""
    b = Builder()
    x = b.add("input", (), ROW, FLOAT16)
    m = b.add("mul", (x, b.const(np.float16(0.6).reshape(()), FLOAT16)), ROW, FLOAT16)
    total = _total(b, m, FLOAT16, contracted=True)
    shares = b.add("div", (m, b.add("expand", (total,), ROW, FLOAT16)), ROW, FLOAT16)
    loss = _total(b, shares, FLOAT16)
    graph = Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", loss),))
    domains = {"x": between(FLOAT16.smallest, FLOAT16.smallest * 8, FLOAT16, 1)}
    samples = {"x": np.full((1, 3), FLOAT16.smallest, np.float16)}
    assert not list(violations(Case(graph, domains, samples), others=12))


@pytest.mark.parametrize("factor", [0.6, 0.7, 0.9])
def test_a_product_that_rounds_up_to_the_smallest_number(factor: float) -> None:
    """Taken apart, (x c) (1 / x) c is c^2; times a number next to nothing it rounds up to the smallest number there is."""
    b = Builder()
    x = b.add("input", (), ROW, FLOAT16)
    y = b.add("reciprocal", (x,), ROW, FLOAT16)
    small = b.const(np.float16(FLOAT16.smallest).reshape(()), FLOAT16)
    once = b.add("mul", (x, b.const(np.float16(factor).reshape(()), FLOAT16)), ROW, FLOAT16)
    out = b.add("mul", (b.add("mul", (once, y), ROW, FLOAT16), small), ROW, FLOAT16)
    graph = Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", out),))
    domains = {"x": between(0.5, 2.0, FLOAT16, 1)}
    samples = {"x": np.asarray([[0.5, 1.0, 2.0]], np.float16)}
    assert not list(violations(Case(graph, domains, samples), others=12))


def _repeated(b: Builder, x: int, times: int) -> int:
    return b.add("expand", (x,), (1, times), FLOAT32)


def _norm(b: Builder, x: int) -> int:
    return b.add("norm", (x,), (1, 1), FLOAT32, dims=(-1,), ord=2.0)


def _sum(b: Builder, x: int) -> int:
    return b.add("sum", (x,), (1, 1), FLOAT32, dims=(-1,))


def _norm_of_repeated(b: Builder, x: int) -> int:
    return _norm(b, _repeated(b, x, 3))


def _divided_by_the_norm_of_fewer(b: Builder, x: int) -> int:
    unit = b.add("div", (_repeated(b, x, 5), _norm(b, _repeated(b, x, 2))), (1, 5), FLOAT32)
    return _sum(b, b.add("mul", (unit, unit), (1, 5), FLOAT32))


def _more_over_fewer(b: Builder, x: int) -> int:
    return b.add("div", (_sum(b, _repeated(b, x, 5)), _sum(b, _repeated(b, x, 2))), (1, 1), FLOAT32)


def _products_over_fewer_squares(b: Builder, x: int) -> int:
    squares = [b.add("mul", (_repeated(b, x, n),) * 2, (1, n), FLOAT32) for n in (5, 2)]
    many, few = (_sum(b, s) for s in squares)
    return b.add("div", (many, b.add("sqrt", (b.add("mul", (few, few), (1, 1), FLOAT32),), (1, 1), FLOAT32)), (1, 1), FLOAT32)


@pytest.mark.parametrize("build", [_norm_of_repeated, _divided_by_the_norm_of_fewer, _more_over_fewer, _products_over_fewer_squares])
def test_a_number_that_is_repeated_looks_the_same_however_often(build: Build) -> None:
    """Seen element by element, a repeated number has no axis of its own: rows of two and of five were taken for one another."""
    b = Builder()
    x = b.add("input", (), (1, 1), FLOAT32)
    out = build(b, x)
    bounds, samples = within(0.5, 4.0, FLOAT32, (1, 1))
    found = list(violations(Case(Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", out),)), {"x": bounds}, {"x": samples})))
    assert not found, str(found[0])


def test_a_reduction_of_nothing_is_at_least_nothing() -> None:
    """Each of no elements is at least 0, and their log-sum-exp is -inf: it was held to be at least 0, its uses impossible."""
    b = Builder()
    x = b.add("input", (), (1, 3), FLOAT32)
    none = b.add("slice", (x,), (0, 3), FLOAT32, dim=-2, start=0, step=1)
    total = b.add("logsumexp", (none,), (1, 3), FLOAT32, dims=(-2,))
    out = b.add("mul", (total, b.const(np.float32(0).reshape(()), FLOAT32)), (1, 3), FLOAT32)
    graph = Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", out),))
    bounds, samples = within(0, 1, FLOAT32, (1, 3))
    found = list(violations(Case(graph, {"x": bounds}, {"x": samples})))
    assert not found, str(found[0])


def _sum_twice(b: Builder, x: int) -> tuple[int, int]:
    """Of products that round up to the smallest number: as they are rounded, and added before that."""
    m = b.add("mul", (x, b.const(np.float16(0.6).reshape(()), FLOAT16)), ROW, FLOAT16)
    return _total(b, m, FLOAT16), _total(b, m, FLOAT16, contracted=True)


@pytest.mark.parametrize("op", ["sub", "div"])
def test_products_that_are_summed_rounded_and_unrounded(op: str) -> None:
    b = Builder()
    x = b.add("input", (), ROW, FLOAT16)
    first, second = _sum_twice(b, x)
    out = b.add(op, (second, first) if op == "sub" else (first, second), (1,), FLOAT16)
    graph = Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", out),))
    samples = {"x": np.full((1, 3), FLOAT16.smallest, np.float16)}
    domains = {"x": between(FLOAT16.smallest, 2 * FLOAT16.smallest, FLOAT16, 1)}
    assert not list(violations(Case(graph, domains, samples), others=12))


def test_several_products_that_are_attained_and_added_unrounded() -> None:
    """Each row attains a product that rounds up to the smallest number; three of them, unrounded, are less than three."""
    b = Builder()
    x = b.add("input", (), (3, 3), FLOAT16)
    e = b.add("exp", (b.add("sub", (x, b.add("amax", (x,), (3, 1), FLOAT16, dims=(-1,))), (3, 3), FLOAT16),), (3, 3), FLOAT16)
    for factor in (0.6, FLOAT16.smallest):
        e = b.add("mul", (e, b.const(np.float16(factor).reshape(()), FLOAT16)), (3, 3), FLOAT16)
    out = b.add("sum", (e,), (1, 1), FLOAT16, dims=(-2, -1), contracted=True)
    graph = Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", out),))
    samples = {"x": np.where(np.eye(3), 0, -20).astype(np.float16)[None]}
    assert not list(violations(Case(graph, {"x": between(-20, 0, FLOAT16, 2)}, samples), others=12))


def test_factors_whose_product_is_no_float64_before_the_last() -> None:
    """x (y 1e300) taken apart is x y 1e300: x y is 1e-400."""
    b = Builder()
    x, y = (b.add("input", (), (1,), FLOAT64) for _ in "xy")
    out = b.add("mul", (x, b.add("mul", (y, b.const(np.float64(1e300).reshape(()), FLOAT64)), (1,), FLOAT64)), (1,), FLOAT64)
    graph = Graph(tuple(b.nodes), {"x": x, "y": y}, (Output("loss", "loss", out),))
    domains = {name: between(0.5e-200, 1e-200, FLOAT64, 1) for name in "xy"}
    assert not list(violations(Case(graph, domains, {name: np.array([[1e-200]]) for name in "xy"})))


def test_a_quotient_that_underflows_is_not_rounded_relatively() -> None:
    """-1.5 times the smallest number is rounded to -2 times it, beyond one relative rounding: such a quotient was held to be impossible."""
    b = Builder()
    x = b.add("input", (), ROW, FLOAT16)
    y = b.add("input", (), ROW, FLOAT16)
    quotient = b.add("div", (x, y), ROW, FLOAT16)
    growth = b.add("exp", (quotient,), ROW, FLOAT16)
    out = b.add("div", (growth, growth), ROW, FLOAT16)
    graph = Graph(tuple(b.nodes), {"x": x, "y": y}, (Output("loss", "loss", out),))
    given = {"x": np.asarray([-3 * FLOAT16.smallest, -2, 3]), "y": np.asarray([2, 2.0**-10, 2.0**-10])}
    domains = {name: make(v, v) for name, v in given.items()}
    samples = {name: np.asarray([v], np.float16) for name, v in given.items()}
    assert not list(violations(Case(graph, domains, samples), others=0))
