"""What relations between values prove of real PyTorch programs, attacked by real runs: ties, ends, neighbours, tiny and equal numbers."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.soundness.test_exact_torch import N, draws

from whynan.analysis.propagate import propagate
from whynan.domain.interval import between
from whynan.frontends import load
from whynan.ir.dtype import FORMATS

torch = pytest.importorskip("torch")


def largest_first(x, y):  # type: ignore[no-untyped-def]
    top = torch.topk(x, 3).values
    return (top[0] - top[2]).clamp(max=1)


def long_rows(x, y):  # type: ignore[no-untyped-def]
    d = x.norm() + 1e-2
    return (y * (x / d / d)).sum()


def any_of_the_largest(x, y):  # type: ignore[no-untyped-def]
    top = torch.topk(x, 3, sorted=False).values
    return (top[0] - top[2]).clamp(max=1)


def running_sum(x, y):  # type: ignore[no-untyped-def]
    total = x.abs().cumsum(0)
    return (total[1:] - total[:-1]).amin().clamp(max=1)


def running_sum_from_anywhere(x, y):  # type: ignore[no-untyped-def]
    total = torch.cat([y[:1], x.abs()]).cumsum(0)
    return (total[2:] - total[:-2]).amin().clamp(max=1)


def thresholds(x, y):  # type: ignore[no-untyped-def]
    below = torch.sigmoid(torch.cat([y[:1], x.abs()]).cumsum(0) - y[1])
    return (below[1:] - below[:-1]).amin()


def turned_round(x, y):  # type: ignore[no-untyped-def]
    above = -torch.tanh(y[1] - torch.sort(x).values)
    return (above[1:] - above[:-1]).amin()


def running_product(x, y):  # type: ignore[no-untyped-def]
    left = torch.cumprod(torch.sigmoid(x), 0)
    return (left[:-2] - left[2:]).amin()


def gate(x, y):  # type: ignore[no-untyped-def]
    return torch.topk(torch.softmax(x, 0), 2).values.sum() - 0.2


def shrunk(x, y):  # type: ignore[no-untyped-def]
    return (1 - (x * torch.rsqrt(1 + x * x)) ** 2).amin()


def shrunk_by_a_quotient(x, y):  # type: ignore[no-untyped-def]
    return (1 - (x * torch.reciprocal(x.abs() + 0.1)).abs()).amin()


def correlation(x, y):  # type: ignore[no-untyped-def]
    sizes = torch.sqrt((x * x).sum() + 1e-3) * torch.sqrt(1e-3 + (y * y).sum()) + 1e-3
    return 1 - (x * y).sum() / sizes


def clamped_similarity(x, y):  # type: ignore[no-untyped-def]
    return 1 - (x * y).sum() / (x.norm().clamp(min=1e-2) * torch.maximum(y.norm(), torch.tensor(1e-2, dtype=y.dtype)))


def mean_and_root(x, y):  # type: ignore[no-untyped-def]
    root = torch.sqrt((x * x).mean() + 1e-3)
    return (root - x.mean().abs()) / root


def standardised(x, y):  # type: ignore[no-untyped-def]
    d = x - x.mean()
    return 1 - (d / torch.sqrt((d * d).mean() + 1e-3)).abs().amax() / (1.001 * N**0.5)


def by_root_of_mean(x, y):  # type: ignore[no-untyped-def]
    return 1 - (x * torch.rsqrt((x * x).sum() * (1 / N) + 1e-3)).abs().amax() / (1.001 * N**0.5)


def regrouped(x, y):  # type: ignore[no-untyped-def]
    top = torch.topk(x, 2).values
    return torch.minimum(top[0] + (0.5 - top[1]), top[0] - (top[1] - 0.5)) - 0.5


def weighted_variance(x, y):  # type: ignore[no-untyped-def]
    w = torch.softmax(y, 0)
    return ((w * x * x).sum() - (w * x).sum() ** 2) / 1000


def weighted_variance_by_squares(x, y):  # type: ignore[no-untyped-def]
    y = y.abs() + 1e-3
    w = y / y.sum()
    m = (x * w).sum()
    return ((w * x**2).sum() - m * m) / 1000


def in_the_ball(x, y):  # type: ignore[no-untyped-def]
    n = torch.sqrt((x * x).sum() + 1e-3)
    return 1 - ((x * torch.tanh(n) / n) ** 2).sum()


LOSSES = (
    in_the_ball,
    *(weighted_variance, weighted_variance_by_squares),
    *(gate, largest_first, running_sum, running_sum_from_anywhere, thresholds, turned_round, running_product),
    *(shrunk, shrunk_by_a_quotient, correlation, clamped_similarity, mean_and_root, standardised, by_root_of_mean, regrouped),
)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("loss", [*LOSSES, any_of_the_largest, long_rows], ids=lambda f: f.__name__)
def test_real_values_lie_within_what_is_proven(loss: Callable[..., object], dtype: str) -> None:
    fmt = FORMATS[dtype]
    program = load(loss, "loss", "torch")
    start = {name: np.linspace(-1, 1, N).astype(fmt.numpy) for name in "xy"}
    graph = program.capture(start, ("x",), "eager").graph
    for reach in (1.0, 30.0):
        domains = {name: between(-reach, reach, fmt, 1) for name in graph.inputs}
        found = propagate(graph, domains, refine=False).bounds[graph.outputs[0].node]
        low, high = float(found.lo.min()), float(found.hi.max())
        values = [float(loss(*(torch.tensor(drawn[k].tolist()).to(getattr(torch, dtype)) for k in (0, 1)))) for drawn in draws(reach)]  # type: ignore[arg-type]
        assert low <= min(values) and max(values) <= high
        assert low >= -1e-2 if loss in LOSSES and fmt.eps < 1e-4 else low <= -1 or loss in LOSSES  # the order is seen


def own_bucket(x, y):  # type: ignore[no-untyped-def]
    return torch.zeros(4).index_add(0, y, x)[y]


def own_class(x, y):  # type: ignore[no-untyped-def]
    return torch.zeros(6).scatter_add(0, y, x).gather(0, y)


def after_a_clamp(x, y):  # type: ignore[no-untyped-def]
    return torch.zeros(1, 4).scatter_add(1, y[None], x[None])[0].index_select(0, y.clamp(0, 3))


def another_bucket(x, y):  # type: ignore[no-untyped-def]
    return torch.zeros(4).index_add(0, y, x)[(y + 1) % 4]


def last_one_kept(x, y):  # type: ignore[no-untyped-def]
    return torch.zeros(4).index_put((y,), x)[y] - 1


def rows_of_two(x, y):  # type: ignore[no-untyped-def]
    return torch.zeros(4, 2).index_add(0, y, torch.stack([x, torch.zeros(5)], 1)).reshape(8)[y]


@pytest.mark.parametrize(
    "loss", [own_bucket, own_class, after_a_clamp, another_bucket, last_one_kept, rows_of_two], ids=lambda f: f.__name__
)
def test_what_is_read_from_sums_by_label(loss: Callable[..., object]) -> None:
    rng = np.random.default_rng(0)
    drawn = [{"x": rng.uniform(1, 2, N).astype(np.float32), "y": rng.integers(0, 4, N)} for _ in range(100)]
    graph = load(lambda x, y: loss(x, y).sum() * 0 + loss(x, y).amin(), "loss", "torch").capture(drawn[0], ("x",), "eager").graph  # type: ignore[attr-defined]
    domains = {"x": between(1, 2, FORMATS["float32"], 1), "y": between(0, 3, FORMATS["int64"], 1)}
    low = float(propagate(graph, domains, refine=False).bounds[graph.outputs[0].node].lo.min())
    least = min(float(loss(*map(torch.tensor, d.values())).min()) for d in drawn)  # type: ignore[attr-defined]
    assert low <= least
    assert low == 1 if loss in (own_bucket, own_class, after_a_clamp) else low <= 0
