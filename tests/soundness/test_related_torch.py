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


LOSSES = (largest_first, running_sum, running_sum_from_anywhere, thresholds, turned_round, running_product)


@pytest.mark.parametrize("dtype", ["float32", "float64", "float16", "bfloat16"])
@pytest.mark.parametrize("loss", [*LOSSES, any_of_the_largest], ids=lambda f: f.__name__)
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
        seen = low >= -64 * fmt.eps * reach - 1e-30
        assert seen if loss in LOSSES and fmt.eps < 1e-3 else loss in LOSSES or not seen
