"""Functions that are given piece by piece: each piece is read only where its condition holds. Products of functions of one number."""

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


def bounds_of(pieces: Callable[..., object], reach: float, op: str = "where") -> tuple[float, float]:
    """What is proven for numbers up to `reach`."""
    program = load(lambda x: pieces(x).sum(), "loss", "torch")  # type: ignore[attr-defined]
    graph = program.capture({"x": np.linspace(-1, 1, 4).astype(np.float32)}, (), "eager").graph
    bounds = propagate(graph, {"x": between(-reach, reach, FORMATS["float32"], 1)}).bounds
    last = [n.id for n in graph.nodes if n.op == op][-1]
    return float(bounds[last].lo.min()), float(bounds[last].hi.max())


def circle(x):  # type: ignore[no-untyped-def]
    return -80 * torch.relu(1.4 - x) * (x - 0.6)


def saddle(x):  # type: ignore[no-untyped-def]
    return (x - 9) * (x * x - 9 * x)


@pytest.mark.parametrize(("product", "reach", "low", "high"), [(circle, 1.0, -16, 320), (saddle, 9.0, -2950, 130)])
def test_a_product_of_two_functions_of_one_number(product: Callable[..., object], reach: float, low: float, high: float) -> None:
    found = bounds_of(product, reach, "mul")
    assert low < found[0] and found[1] < high
    x = np.random.default_rng(0).uniform(-reach, reach, 40_000)
    near = np.concatenate([x, [reach, -reach], np.linspace(-reach, reach, 4001)]).astype(np.float32)
    values = product(torch.tensor(near))
    assert found[0] <= float(values.min()) and float(values.max()) <= found[1]  # type: ignore[attr-defined]


def test_a_product_of_two_numbers_is_left_as_it_is() -> None:
    program = load(lambda x, y: ((x - 0.5) * (y + 0.5)).sum(), "loss", "torch")
    graph = program.capture({n: np.linspace(-1, 1, 4).astype(np.float32) for n in "xy"}, (), "eager").graph
    bounds = propagate(graph, {n: between(-20, 20, FORMATS["float32"], 1) for n in "xy"}).bounds
    product = next(n.id for n in graph.nodes if n.op == "mul")
    assert float(bounds[product].hi.max()) == 19.5 * 20.5
