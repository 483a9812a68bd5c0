"""E[x^2] - E[x]^2 over windows: what is proven of real PyTorch programs, attacked by real runs, and what is close to it but not proven."""

from collections.abc import Callable
from unittest.mock import patch

import numpy as np
import pytest

from whynan.analysis import relations
from whynan.analysis.propagate import propagate
from whynan.analysis.windows import Below, square_of_mean
from whynan.domain.interval import between
from whynan.frontends import load
from whynan.ir.dtype import FORMATS

torch = pytest.importorskip("torch")
F = torch.nn.functional

RUNS = 60
SHAPE = (1, 2, 7, 7)
GAUSS = np.exp(-0.5 * (np.arange(-2, 3) / 1.5) ** 2)
GAUSS /= GAUSS.sum()


def kernel(weights, like):  # type: ignore[no-untyped-def]
    return torch.tensor(np.asarray(weights), dtype=like.dtype)


def full(x):  # type: ignore[no-untyped-def]
    return kernel(np.tile(np.outer(GAUSS, GAUSS), (2, 1, 1, 1)), x)


def same(x):  # type: ignore[no-untyped-def]
    m = F.conv2d(x, full(x), padding=2, groups=2)
    return F.conv2d(x * x, full(x), padding=2, groups=2) - m * m


def separable(x):  # type: ignore[no-untyped-def]
    k = kernel(np.tile(GAUSS, (2, 1, 1, 1)), x)

    def mean(y):  # type: ignore[no-untyped-def]
        y = F.conv2d(F.pad(y, (2, 2, 0, 0), mode="reflect"), k, groups=2)
        return F.conv2d(F.pad(y, (0, 0, 2, 2), mode="reflect"), k.mT, groups=2)

    return mean(x**2) - mean(x) ** 2


def channels(x):  # type: ignore[no-untyped-def]
    k = kernel(np.full((1, 2, 3, 3), 1 / 18), x)
    return F.conv2d(x.square(), k) - F.conv2d(x, k).square()


def pooled(x):  # type: ignore[no-untyped-def]
    return F.avg_pool2d(x * x, 3, 2, 1) - F.avg_pool2d(x, 3, 2, 1) ** 2


def averaged(x):  # type: ignore[no-untyped-def]
    return (x * x).mean((2, 3)) - x.mean((2, 3)) ** 2


def of_two(x):  # type: ignore[no-untyped-def]
    a, b = x[:, :1], x[:, 1:]
    return F.avg_pool2d(a * a + b * b, 3, 1) - (F.avg_pool2d(a, 3, 1) ** 2 + F.avg_pool2d(b, 3, 1) ** 2)


def of_two_but_one(x):  # type: ignore[no-untyped-def]
    a, b = x[:, :1], x[:, 1:]
    return F.avg_pool2d(a * a + b * b, 3, 1) - (F.avg_pool2d(a, 3, 1) ** 2 + F.avg_pool2d(a, 3, 1) ** 2)


def other_kernels(x):  # type: ignore[no-untyped-def]
    return F.conv2d(x * x, full(x) ** 2, groups=2) - F.conv2d(x, full(x), groups=2) ** 2


def of_both_signs(x):  # type: ignore[no-untyped-def]
    k = kernel(np.tile([[1.0, -2.0, 1.0]], (2, 1, 1, 1)), x)
    return F.conv2d(x * x, k, groups=2) - F.conv2d(x, k, groups=2) ** 2


def heavy(x):  # type: ignore[no-untyped-def]
    return F.conv2d(x * x, 3 * full(x), groups=2) - F.conv2d(x, 3 * full(x), groups=2) ** 2


def ones_around(x):  # type: ignore[no-untyped-def]
    return F.avg_pool2d(F.pad(x * x, (1, 1), value=2.0), 3) - F.avg_pool2d(F.pad(x, (1, 1), value=2.0), 3) ** 2


def shifted(x):  # type: ignore[no-untyped-def]
    return F.avg_pool2d(x * x, 3, 1, 1) - F.avg_pool2d(x.roll(1, 2), 3, 1, 1) ** 2


PROVEN = (same, separable, channels, pooled, averaged, of_two)
UNPROVEN = (of_two_but_one, other_kernels, of_both_signs, heavy, ones_around, shifted)


@pytest.mark.parametrize("dtype", ["float32", "float64", "bfloat16"])
@pytest.mark.parametrize("variance", [*PROVEN, *UNPROVEN], ids=lambda f: f.__name__)
def test_real_variances_are_at_least_what_is_proven(variance: Callable[..., object], dtype: str) -> None:
    for reach in (1.0, 1e4, 1e-18):
        assert low_of(variance, reach, dtype) <= least(variance, reach, dtype)


@pytest.mark.parametrize("variance", PROVEN, ids=lambda f: f.__name__)
def test_a_variance_is_proven_to_be_almost_not_negative(variance: Callable[..., object]) -> None:
    assert -1e-4 < low_of(variance, 1.0, "float32") <= 0


@pytest.mark.parametrize("variance", UNPROVEN, ids=lambda f: f.__name__)
def test_what_is_no_variance_is_not_proven_to_be_positive(variance: Callable[..., object]) -> None:
    assert low_of(variance, 1.0, "float32") < -0.5


@pytest.mark.parametrize("variance", [same, pooled, of_two], ids=lambda f: f.__name__)
def test_the_attack_finds_a_rule_that_forgets_rounding(variance: Callable[..., object]) -> None:
    def wrong(*args: object) -> Below | None:
        found = square_of_mean(*args)  # type: ignore[arg-type]
        return found and Below(1.0, 0.0)

    with patch.object(relations, "square_of_mean", wrong):
        assert low_of(variance, 1.0, "float32") > least(variance, 1.0, "float32")


def low_of(variance: Callable[..., object], reach: float, dtype: str) -> float:
    """What is proven for numbers up to `reach`."""
    fmt = FORMATS[dtype]
    program = load(lambda x: variance(x).sum(), "loss", "torch")  # type: ignore[attr-defined]
    graph = program.capture({"x": np.linspace(-1, 1, 98).reshape(SHAPE).astype(fmt.numpy)}, (), "eager").graph
    bounds = propagate(graph, {"x": between(-reach, reach, fmt, 4)}, refine=False).bounds
    return float(min(bounds[n.id].lo.min() for n in graph.nodes if n.op == "sub"))


def least(variance: Callable[..., object], reach: float, dtype: str) -> float:
    """The least element that comes out in real runs."""
    rng, lowest = np.random.default_rng(0), np.inf
    for k in range(RUNS):
        kinds = (
            lambda: rng.uniform(-reach, reach, SHAPE),
            lambda: np.full(SHAPE, rng.uniform(-reach, reach)),
            lambda: rng.choice([-reach, reach], SHAPE),
            lambda: np.full(SHAPE, rng.uniform(0, reach)) * (1 + 1e-7 * rng.integers(-3, 4, SHAPE)),
            lambda: rng.choice([0.0, 1e-38, 1e-20, 1e-7 * reach, reach], SHAPE),
        )
        x = np.clip(kinds[k % len(kinds)](), -reach, reach)
        lowest = min(lowest, float(variance(torch.tensor(x).to(getattr(torch, dtype))).min()))  # type: ignore[attr-defined]
    return lowest
