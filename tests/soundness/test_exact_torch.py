"""What exact arithmetic proves of real PyTorch programs, attacked by real runs: ties, ends, neighbours, tiny and equal numbers."""

from collections.abc import Callable

import numpy as np
import pytest

from whynan.analysis.exact.limits import Exact
from whynan.analysis.propagate import propagate
from whynan.analysis.view import View
from whynan.domain.interval import between
from whynan.frontends import load
from whynan.ir.dtype import FORMATS

torch = pytest.importorskip("torch")

RUNS = 400
N = 5


def variance(x, y):  # type: ignore[no-untyped-def]
    return (x * x).mean() - x.mean() ** 2


def divergence(x, y):  # type: ignore[no-untyped-def]
    p, q = torch.log_softmax(x, 0), torch.log_softmax(y, 0)
    return (p.exp() * (p - q)).sum()


def jensen_shannon(x, y):  # type: ignore[no-untyped-def]
    p, q = torch.log_softmax(x, 0), torch.log_softmax(y, 0)
    m = torch.logaddexp(p, q) - 0.6931471805599453
    return (p.exp() * (p - m)).sum() + (q.exp() * (q - m)).sum()


def log_sum_exp(x, y):  # type: ignore[no-untyped-def]
    return torch.logsumexp(x, 0) - x.amax()


def by_hand(x, y):  # type: ignore[no-untyped-def]
    return x.amax() + (x - x.amax()).exp().sum().log() - y.logsumexp(0)


def union(x, y):  # type: ignore[no-untyped-def]
    w, v = x[1].abs() + 0.1, y[1].abs() + 0.1
    shared = (torch.minimum(x[0] + w, y[0] + v) - torch.maximum(x[0], y[0])).clamp(min=0)
    return shared / (w + v - shared)


def circle(x, y):  # type: ignore[no-untyped-def]
    return x.cos().mean() ** 2 + x.sin().mean() ** 2


def rows(x, y):  # type: ignore[no-untyped-def]
    return torch.softmax(x, 0).sum() - torch.sigmoid(y[0]) - torch.sigmoid(-y[0])


def plus_part(x, y):  # type: ignore[no-untyped-def]
    return torch.nn.functional.softplus(x[0]) - torch.nn.functional.softplus(-x[0]) - x[0]


def composed(x, y):  # type: ignore[no-untyped-def]
    alpha = 1 - torch.exp(-x.abs())
    through = torch.cumprod(torch.cat([torch.ones_like(x[:1]), 1 - alpha]), 0)
    return 1 - (alpha * through[:-1]).sum()


def overlap(x, y):  # type: ignore[no-untyped-def]
    return torch.sqrt(torch.softmax(x, 0) * torch.softmax(y, 0)).sum()


def overlap_of_roots(x, y):  # type: ignore[no-untyped-def]
    return (torch.softmax(x, 0).sqrt() * torch.softmax(y, 0).sqrt()).sum()


def shares_by_hand(x, y):  # type: ignore[no-untyped-def]
    e, f = torch.exp(x - x.amax()), torch.exp(y - y.amax())
    return torch.sqrt(e * (1 / e.sum()) * (f / f.sum()) + 1e-3).sum() - (e * (1 / e.sum())).sum()


def means(x, y):  # type: ignore[no-untyped-def]
    a, b = x.abs() + 0.01, y.abs() + 0.01
    return ((a + b) / 2 - torch.sqrt(a * b)).amin()


def law_of_cosines(x, y):  # type: ignore[no-untyped-def]
    return x[0] * x[0] + y[0] * y[0] - 2 * x[0] * y[0] * torch.cos(y[1])


ROOTS = (overlap, overlap_of_roots, shares_by_hand, means, law_of_cosines)
LOSSES = (*ROOTS, composed, variance, divergence, jensen_shannon, log_sum_exp, by_hand, union, circle, rows, plus_part)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("loss", LOSSES, ids=lambda f: f.__name__)
def test_real_values_lie_within_what_is_proven(loss: Callable[..., object], dtype: str) -> None:
    fmt = FORMATS[dtype]
    program = load(loss, "loss", "torch")
    start = {name: np.linspace(-1, 1, N).astype(fmt.numpy) for name in "xy"}
    graph = program.capture(start, ("x",), "eager").graph
    for reach in (1.0, 30.0):
        domains = {name: between(-reach, reach, fmt, 1) for name in graph.inputs}
        view = View(graph)
        exact = Exact(view, list(propagate(graph, domains, refine=False).bounds))
        out = graph.outputs[0].node
        found = [b for b in (exact.bounds(out), exact.shallow(out)) if b is not None]
        low, high = max((float(b.lo.min()) for b in found), default=-np.inf), min((float(b.hi.max()) for b in found), default=np.inf)
        values = [float(loss(*(torch.tensor(drawn[k].tolist()).to(getattr(torch, dtype)) for k in (0, 1)))) for drawn in draws(reach)]  # type: ignore[arg-type]
        assert low <= min(values) and max(values) <= high


def draws(reach: float) -> list[np.ndarray]:
    """Pairs of inputs: anything, ends, equal, neighbours, tiny, one far from the rest."""
    rng = np.random.default_rng(0)
    kinds = [
        lambda: rng.uniform(-reach, reach, (2, N)),
        lambda: rng.choice([-reach, reach], (2, N)),
        lambda: np.tile(rng.uniform(-reach, reach, N), (2, 1)),
        lambda: np.full((2, N), rng.uniform(-reach, reach)) * (1 + 1e-7 * rng.integers(-3, 4, (2, N))),
        lambda: rng.choice([0.0, 1e-38, -1e-38, 1e-7, 1.0], (2, N)),
        lambda: np.where(np.arange(N) == 0, reach, -reach) * np.ones((2, 1)),
    ]
    return [np.clip(kinds[k % len(kinds)](), -reach, reach) for k in range(RUNS)]


def test_something_is_proven() -> None:
    """The test above is about real limits: they are close to what is reached."""
    graph = (
        load(variance, "loss", "torch").capture({name: np.linspace(-1, 1, N).astype(np.float32) for name in "xy"}, ("x",), "eager").graph
    )
    bounds = propagate(graph, {name: between(-1, 1, FORMATS["float32"], 1) for name in graph.inputs}, refine=False).bounds
    found = Exact(View(graph), list(bounds)).bounds(graph.outputs[0].node)
    assert found is not None and -1e-5 < float(found.lo.min()) < 0
