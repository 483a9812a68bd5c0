"""Functions that are given piece by piece: each piece is read only where its condition holds."""

from collections.abc import Callable

import numpy as np
import pytest

from whynan.analysis.propagate import propagate
from whynan.domain.interval import between
from whynan.frontends import load
from whynan.ir.dtype import FORMATS

torch = pytest.importorskip("torch")


def spline(x):  # type: ignore[no-untyped-def]
    u = x.abs()
    inner = 1 - u * u * (1.8 * u + 0.1)
    outer = 1.9 + u * (u * 1.8 - 3.7)
    return torch.where(u < 0.5, inner, torch.where(u <= 1, outer, 0.0))


def edge(x):  # type: ignore[no-untyped-def]
    return torch.where(x > 3, x * x * x, -x)


def two(x):  # type: ignore[no-untyped-def]
    return torch.where((x > -2) & (x < 1), x * (x - 1) * (x + 2), 7.0)


@pytest.mark.parametrize(("pieces", "low", "high"), [(spline, -1, 2), (two, -3, 9)], ids=["spline", "two"])
def test_pieces_are_read_only_where_their_conditions_hold(pieces: Callable[..., object], low: float, high: float) -> None:
    found = bounds_of(pieces, 63.0)
    assert low < found[0] and found[1] < high


@pytest.mark.parametrize("pieces", [spline, edge, two], ids=lambda f: f.__name__)
def test_real_values_lie_within_the_bounds(pieces: Callable[..., object]) -> None:
    low, high = bounds_of(pieces, 63.0)
    x = np.random.default_rng(0).uniform(-63, 63, 40_000)
    near = np.concatenate([x, x / 40, np.linspace(-3.001, 3.001, 4001), np.nextafter(np.float32([0.5, 1, 3, -2]), np.float32(0))])
    values = pieces(torch.tensor(near.astype(np.float32)))
    assert low <= float(values.min()) and float(values.max()) <= high  # type: ignore[attr-defined]


def bounds_of(pieces: Callable[..., object], reach: float) -> tuple[float, float]:
    """What is proven for numbers up to `reach`."""
    program = load(lambda x: pieces(x).sum(), "loss", "torch")  # type: ignore[attr-defined]
    graph = program.capture({"x": np.linspace(-1, 1, 4).astype(np.float32)}, (), "eager").graph
    bounds = propagate(graph, {"x": between(-reach, reach, FORMATS["float32"], 1)}).bounds
    last = [n.id for n in graph.nodes if n.op == "where"][-1]
    return float(bounds[last].lo.min()), float(bounds[last].hi.max())
