"""Analysis time per operation: does it stay the same from 100 operations to 10,000?"""

from collections.abc import Callable
from typing import Any

import torch
from graphs import SHAPES, domains
from timing import seconds, table

from whynan.analysis.propagate import propagate
from whynan.domain.abstract import bounds_of
from whynan.domain.spec import real
from whynan.frontends.torch import load
from whynan.ir.graph import Graph

SIZES = (100, 1_000, 10_000)
STEPS = (3, 30, 300)


def main() -> None:
    """Print a row per graph and size, with the time ratio beside the ratio of operations."""
    rows = [row for name, build in SHAPES.items() for row in _rows(name, [build(n) for n in SIZES], domains())]
    inputs = {"x": real(2, 8, low=-5, high=5)}
    rows += _rows("recorded loop", [_recorded(steps) for steps in STEPS], {n: bounds_of(d) for n, d in inputs.items()})
    table("Bounding every value of a graph, without branch and prune", ("graph", "operations", "ms", "us/operation", "ratio"), rows)


def _rows(name: str, graphs: list[Graph], bounds: Any) -> list[tuple[str, ...]]:
    out = []
    before: tuple[float, int] | None = None
    for graph in graphs:
        count = len(graph.nodes)
        spent = seconds(lambda graph=graph: propagate(graph, bounds, refine=False), 1 if count > 2_000 else 3)
        ratio = f"x{spent / before[0]:.1f} for x{count / before[1]:.1f}" if before else ""
        out.append((name, f"{count:,}", f"{spent * 1e3:.1f}", f"{spent / count * 1e6:.0f}", ratio))
        before = spent, count
    return out


def _recorded(steps: int) -> Graph:
    """A real loss with a Python loop, forward and backward, as the front end records it."""
    inputs = {"x": torch.linspace(-1, 1, 16).reshape(2, 8).numpy()}
    return load(_loop(steps), "loop").capture(inputs, ("x",)).graph


def _loop(steps: int) -> Callable[[torch.Tensor], torch.Tensor]:
    def loss(x: torch.Tensor) -> torch.Tensor:
        h, total = torch.zeros(8), torch.zeros(())
        for _ in range(steps):
            h = torch.tanh(h * 0.9 + torch.sigmoid(x[0] + h) * x[1])
            total = total - torch.log(torch.sigmoid(h) + 1e-6).mean()
        return total / steps

    return loss
