"""Comparisons and differences of one pair: what one tells of the other, and the least difference of two floats."""

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

from whynan.analysis.order import _gap
from whynan.domain.interval import make
from whynan.ir.dtype import BOOL, FLOAT16, FLOAT32, FLOATS, Format, flushed, from_ordinal, ordinal


@pytest.mark.parametrize("fmt", [*FLOATS, flushed(FLOAT32)], ids=lambda f: f.name + "-flushed" * f.flush)
def test_no_two_floats_differ_by_less_than_the_gap(fmt: Format) -> None:
    rng = np.random.default_rng(0)
    reach = int(ordinal(fmt, fmt.max))
    for _ in range(300):
        start = int(rng.integers(-reach, reach - 50)) if rng.random() < 0.7 else int(rng.integers(-40, 40))
        near = int(np.clip(start + rng.integers(-40, 40), -reach, reach - 50))
        xs, ys = (from_ordinal(fmt, np.arange(a, a + 12)) for a in (start, near))
        gap = float(_gap(make(xs.min(), xs.max()), make(ys.min(), ys.max()), fmt))
        with np.errstate(all="ignore"):
            d = (xs[:, None].astype(fmt.numpy) - ys[None, :].astype(fmt.numpy)).astype(np.float64)
        d = np.where(np.abs(d) < fmt.tiny, 0.0, d) if fmt.flush else d
        apart = np.abs(d[(xs[:, None] != ys[None, :])])
        assert not apart.size or apart.min() >= gap


def guarded(s: Small, test: str, *, turned: bool = False, other: bool = False, fmt: Format = FLOAT32) -> int:
    """where(t > a * b, log(t - a * b), 0) as double where, or something that looks alike."""
    t, a, b = (s.input(name, 4, fmt=fmt) for name in "tab")
    loc = s.op("mul", a, b)
    c = s.op(test, t, loc)
    d = s.op("sub", loc, t) if turned else s.op("sub", t, s.op("add", loc, a) if other else loc)
    z = s.op("log", s.op("where", c, d, s.const(1.0, fmt)))
    return s.op("where", c, z, s.const(0.0, fmt))


DOMAINS = {"t": interval(1, 9), "a": interval(0.3, 1.7), "b": interval(0.2, 2)}


def test_a_comparison_of_computed_values_guards_their_difference() -> None:
    s = Small()
    root = guarded(s, "gt")
    proof = proven(s, root, **DOMAINS)
    assert proof.finite and proof.boxes < 200 and ends(proof.bounds[root])[0] > -25


def test_it_does_so_where_subnormals_are_flushed_and_values_are_large_enough() -> None:
    s = Small()
    assert proven(s, guarded(s, "gt", fmt=flushed(FLOAT32)), **DOMAINS).finite
    s = Small()
    tiny = {name: interval(0, 1) for name in "tab"}
    assert not proven(s, guarded(s, "gt", fmt=flushed(FLOAT32)), **tiny).finite


@pytest.mark.parametrize("how", [("ge", {}), ("gt", {"turned": True}), ("gt", {"other": True}), ("ne", {}), ("lt", {})])
def test_look_alikes_stay_open(how: tuple[str, dict[str, bool]]) -> None:
    s = Small()
    assert not proven(s, guarded(s, how[0], **how[1]), **DOMAINS).finite


def test_a_condition_made_of_several() -> None:
    s = Small()
    x, y = s.input("x", 4), s.input("y", 4)
    e = s.op("tanh", y)
    bad = s.op("logical_or", s.op("le", x, e), s.op("logical_not", s.op("gt", y, s.const(0.1))), fmt=BOOL)
    z = s.op("where", bad, s.const(1.0), s.op("mul", s.op("sub", x, e), y))
    assert proven(s, s.op("log", z), x=interval(-5, 5), y=interval(-5, 5)).finite


def test_half_precision() -> None:
    s = Small()
    assert proven(s, guarded(s, "gt", fmt=FLOAT16), **{n: interval(0.25, 4, fmt=FLOAT16) for n in "tab"}).finite
