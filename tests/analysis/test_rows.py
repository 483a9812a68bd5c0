"""How long rows are: rows divided by their norm, and products of such rows, against float32 arithmetic that tries to exceed the bounds."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

from whynan.domain.interval import Bounds
from whynan.ir.dtype import FORMATS

WIDE = interval(-1e4, 1e4, 2)


def unit(s: Small, x: int, way: str) -> int:
    """The rows of x divided by no less than their norm, in one of several spellings."""
    square = s.reduce("sum", s.op("square", x), -1)
    if way == "clamp":
        return s.op("div", x, s.op("clamp", s.reduce("norm", x, -1, ord=2.0), low=1e-12, high=None))
    if way == "add":
        return s.op("div", x, s.op("add", s.reduce("norm", x, -1, ord=2.0), s.const(1e-8)))
    if way == "root":
        return s.op("div", x, s.op("sqrt", s.op("add", square, s.const(1e-12))))
    if way == "rsqrt":
        return s.op("mul", x, s.op("rsqrt", s.op("maximum", square, s.const(1e-12))))
    return s.op("mul", x, s.op("reciprocal", s.op("sqrt", s.op("maximum", s.const(1e-12), square))))


def product(s: Small, a: int, b: int) -> int:
    """a times b transposed."""
    n, k = s.builder.shape(b)
    turned = s.op("permute", b, shape=(k, n), axes=(-1, -2))
    return s.op("matmul", a, turned, shape=(s.builder.shape(a)[0], n))


@pytest.mark.parametrize("way", ["clamp", "add", "root", "rsqrt", "reciprocal"])
def test_products_of_unit_rows_are_at_most_one(way: str) -> None:
    s = Small()
    x, y = s.input("x", 3, 8), s.input("y", 4, 8)
    p = product(s, unit(s, x, way), unit(s, y, way))
    lo, hi = ends(proven(s, p, x=WIDE, y=WIDE).bounds[p])
    assert 1 <= hi <= 1 + 1e-4 and lo == -hi


def test_a_sum_of_products_of_unit_rows_too_and_rows_that_were_moved() -> None:
    s = Small()
    u = unit(s, s.input("x", 4, 8), "clamp")
    rolled = s.op("roll", u, shape=(4, 8), shifts=(2,), dims=(-2,))
    both = s.op("concat", u, rolled, shape=(8, 8), dim=-2)
    total = s.reduce("sum", s.op("mul", u, rolled), -1)
    p = s.op("add", product(s, both, u), s.op("reshape", total, shape=(4,)))
    b = proven(s, p, x=WIDE).bounds
    assert ends(b[total])[1] <= 1 + 1e-4 and ends(b[p])[1] <= 2 + 2e-4


def wrong_axis(s: Small, x: int) -> int:
    return s.op("div", x, s.op("clamp", s.reduce("norm", x, -2, ord=2.0), low=1e-12, high=None))


def another_row(s: Small, x: int) -> int:
    n = s.op("clamp", s.reduce("norm", s.op("roll", x, shape=(8, 8), shifts=(1,), dims=(-2,)), -1, ord=2.0), low=1e-3, high=None)
    return s.op("div", x, n)


def capped(s: Small, x: int) -> int:
    return s.op("div", x, s.op("clamp", s.reduce("norm", x, -1, ord=2.0), low=1e-3, high=2.0))


def one_norm_less(s: Small, x: int) -> int:
    return s.op("div", x, s.op("sub", s.op("clamp", s.reduce("norm", x, -1, ord=2.0), low=1.0, high=None), s.const(0.5)))


def largest_norm(s: Small, x: int) -> int:
    return s.op("div", x, s.op("clamp", s.reduce("norm", x, -1, ord=np.inf), low=1e-3, high=None))


@pytest.mark.parametrize("rows", [wrong_axis, another_row, capped, one_norm_less, largest_norm])
def test_what_is_less_than_the_norm_gives_no_unit_rows(rows: Callable[[Small, int], int]) -> None:
    s = Small()
    u = rows(s, s.input("x", 8, 8))
    p = product(s, u, u)
    assert ends(proven(s, p, x=WIDE).bounds[p])[1] > 1.5


def test_an_overflow_on_the_way_is_not_hidden() -> None:
    s = Small()
    x = s.input("x", 3, 8)
    shrunk = s.op("mul", s.op("mul", x, s.const(1e30)), s.const(1e-30))
    p = product(s, shrunk, shrunk)
    assert not proven(s, p, x=interval(-1e10, 1e10, 2)).finite
    s = Small()
    n = s.reduce("norm", s.input("x", 3, 8), -1, ord=2.0)
    assert not proven(s, n, x=interval(-1e25, 1e25, 2)).finite


@pytest.mark.parametrize("way", ["clamp", "add", "root", "rsqrt"])
def test_real_rows_stay_inside(way: str) -> None:
    """Equal rows, opposite rows, single entries, rows near the guard and rows whose squares underflow, at many scales."""
    rng = np.random.default_rng(0)
    s = Small()
    x = s.input("x", 6, 64)
    u = unit(s, x, way)
    p = product(s, u, u)
    bound: Bounds = proven(s, p, x=interval(-1e15, 1e15, 2)).bounds[p]
    lo, hi = ends(bound)
    assert hi < 1.001
    for scale in 10.0 ** np.arange(-44, 15):
        a = np.concatenate([np.tile(rng.normal(size=(1, 64)), (2, 1)), -rng.random((2, 64)), np.eye(64)[:1], np.ones((1, 64))])
        a = np.float32(a * scale)
        norm = np.sqrt((a * a).sum(1, keepdims=True), dtype=np.float32)
        below = {"clamp": np.maximum(norm, np.float32(1e-12)), "add": norm + np.float32(1e-8)}
        t = below.get(way, np.sqrt(np.maximum((a * a).sum(1, keepdims=True), np.float32(1e-12))))
        r = a / t
        found = r @ r.T
        assert found.min() >= lo and found.max() <= hi, (way, scale)


def test_the_bounds_of_unit_rows_are_within_a_few_roundings() -> None:
    """What 1 - cos^2 + 1e-5 needs: short rows, whose cosine no more than some twenty spacings beyond 1 can come from rounding."""
    s = Small()
    x, y = s.input("x", 3, 5), s.input("y", 3, 5)
    cosine = s.reduce("sum", s.op("mul", unit(s, x, "clamp"), unit(s, y, "clamp")), -1)
    assert ends(proven(s, cosine, x=WIDE, y=WIDE).bounds[cosine])[1] <= 1 + 4e-6


@pytest.mark.parametrize("n", [2, 3, 5, 64])
@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
def test_cosines_of_real_libraries_stay_inside(n: int, dtype: str) -> None:
    """Many parallel rows, so that the largest rounding is met; as a sum of products and as a matrix product."""
    torch = pytest.importorskip("torch")
    fmt = FORMATS[dtype]
    s = Small()
    u = unit(s, s.input("x", 4, n, fmt=fmt), "clamp")
    both = s.reduce("sum", s.op("mul", u, u), -1)
    p = s.op("matmul", u, s.op("permute", u, shape=(n, 4), axes=(-1, -2)), shape=(4, 4))
    found = proven(s, s.op("add", p, both, shape=(4, 4)), x=interval(-100, 100, 2, fmt)).bounds
    rng = np.random.default_rng(0)
    for scale in (max(1e-9, 100 * fmt.smallest), 1e-3, 1.0, 50.0):
        drawn = rng.normal(size=(4000, n)) * scale
        rows = torch.tensor(np.where(rng.random((4000, 1)) < 0.5, np.round(drawn, 2), drawn)).to(getattr(torch, dtype)).clamp(-100, 100)
        r = torch.nn.functional.normalize(rows[rows.abs().amax(1) > 0], dim=1)  # in half precision the guard is 0
        assert float((r * r).sum(1).max()) <= ends(found[both])[1]
        assert float((r @ r[:50].T).double().abs().max()) <= ends(found[p])[1]


def projected(s: Small, x: int, y: int, least: float) -> tuple[int, int]:
    """(x . y) / (y . y + least), and that times y, along the last axis."""
    dot, energy = (s.reduce("sum", s.op("mul", a, y), -1) for a in (x, y))
    q = s.op("div", dot, s.op("add", energy, s.const(least)))
    return q, s.op("mul", q, y)


def test_a_projection_is_no_longer_than_what_is_projected() -> None:
    s = Small()
    q, p = projected(s, s.input("x", 3, 8), s.input("y", 3, 8), 1e-8)
    bounds = proven(s, p, x=interval(-1, 1, 2), y=interval(-10, 10, 2)).bounds
    assert ends(bounds[q])[1] <= 1.001e4 * 8**0.5 and ends(bounds[p])[1] <= 1.001 * 8**0.5
    rng = np.random.default_rng(0)
    for scale in 10.0 ** np.arange(-12, 1.5, 0.25):
        y = np.float32(np.clip(rng.normal(size=(500, 8)) * scale, -10, 10))
        x = np.float32(np.clip(np.where(rng.random((500, 1)) < 0.5, np.sign(y), rng.uniform(-1, 1, (500, 8))), -1, 1))
        f = np.float32((x * y).sum(1, keepdims=True)) / ((y * y).sum(1, keepdims=True) + np.float32(1e-8))
        assert np.abs(f).max() <= ends(bounds[q])[1] and np.abs(f * y).max() <= ends(bounds[p])[1]


def test_no_projection_where_another_row_is_meant_or_a_product_overflows() -> None:
    s = Small()
    x, y = s.input("x", 8, 8), s.input("y", 8, 8)
    q, _ = projected(s, x, y, 1e-8)
    other = s.op("mul", q, s.op("permute", y, shape=(8, 8), axes=(-1, -2)))
    assert ends(proven(s, other, x=interval(-1, 1, 2), y=interval(-10, 10, 2)).bounds[other])[1] > 1e5
    s = Small()
    q, _ = projected(s, s.input("x", 3, 8), s.input("y", 3, 8), 1e-8)
    assert not proven(s, q, x=interval(-1e25, 1e25, 2), y=interval(-1e18, 1e18, 2)).finite
