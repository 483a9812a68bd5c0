"""What a value is away from zero at least holds for real runs, down to the last bit."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import whynan
from whynan.analysis.apart import apart
from whynan.analysis.evaluate import evaluate
from whynan.analysis.propagate import propagate
from whynan.analysis.view import View
from whynan.domain import sample
from whynan.domain.abstract import bounds_of
from whynan.frontends.torch import load
from whynan.ir.dtype import next_down, next_up

POSITIVE = torch.tensor([0.75, 1.0, 1.5])
LOSSES: dict[str, Callable[[Any], Any]] = {
    "a pulse": lambda x: torch.relu(1 - x.abs() / 0.4).sum(-1).cumsum(0).sum(),
    "several constants": lambda x: (x - POSITIVE.to(x.dtype)).square().sum(),
    "a product": lambda x: ((1 - x) * (0.3 - x)).abs().sum(0).max(),
    "a quotient": lambda x: torch.where(x > 0.5, (1 - x) / (2 + x), 3.0).sum(),
    "with a sign": lambda x: ((1 - x) + (x - 1.5)).sum() + (1 - x).sum(),
    "a selection": lambda x: (1 - x)[x < 1].sum() + x.sum() * 0,
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
@pytest.mark.parametrize("loss", LOSSES.values(), ids=LOSSES)
def test_no_value_but_zero_lies_nearer_to_zero(loss: Callable[[Any], Any], dtype: str) -> None:
    domain = whynan.real(2, 3, low=-2, high=2, dtype=dtype)
    rng = np.random.default_rng(0)
    close = np.asarray([0.3, 0.4, 0.5, 0.75, 1.0, 1.5, 2.0])
    marks = sample.project(domain.but(shape=(7,)), close)
    close = np.concatenate([marks, *(step(domain.format, marks, k) for step in (next_up, next_down) for k in (1, 2))])
    tried = [sample.project(domain, rng.choice(close, size=domain.shape)) for _ in range(4)]
    tried += [sample.project(domain, 1 + rng.normal(size=domain.shape) * 2.0 ** rng.integers(-24, 0)) for _ in range(4)]
    said, seen_shapes = 0, {}
    for x in tried:
        trace = load(loss, "loss").capture({"x": x}, ("x",), "eager")
        shapes = tuple(node.shape for node in trace.graph.nodes)
        if shapes not in seen_shapes:
            seen_shapes[shapes] = propagate(trace.graph, {"x": bounds_of(domain)}, 500).bounds, View(trace.graph), {}
        bounds, view, known = seen_shapes[shapes]
        for node, seen, computed in zip(trace.graph.nodes, trace.values, evaluate(trace.graph, {"x": x}), strict=True):
            size = apart(view, bounds, node.id, known)
            said += size > 0 and node.op != "const"
            for value in (seen, computed):
                magnitude = np.abs(np.asarray(value, np.float64)) if value is not None else np.zeros(0)
                assert (magnitude[(magnitude > 0) & np.isfinite(magnitude)] >= size).all(), (node.op, size)
    assert said


def test_a_positive_sum_of_pulses_can_be_divided_by() -> None:
    def loss(x: Any) -> Any:
        height = torch.relu(1 - x.abs() / 3).sum(1)
        return (1 / height[height > 0]).sum() + 0 * x.sum()

    assert whynan.check(loss, x=whynan.real(3, 2, low=-5, high=5)).verdict == "safe"


def test_of_what_is_added_with_a_sign_nothing_is_known() -> None:
    trace = load(lambda x: (torch.relu(1 - x) - 0.5 * torch.relu(x)).sum(), "loss").capture({"x": np.float32([1.5])}, ("x",), "eager")
    domain = whynan.real(1, low=-2, high=2)
    bounds, view = propagate(trace.graph, {"x": bounds_of(domain)}).bounds, View(trace.graph)
    found = {node.op: apart(view, bounds, node.id, {}) for node in trace.graph.nodes if node.phase == "forward"}
    assert found["relu"] == 0 and found["sum"] == 0
    assert apart(view, bounds, next(n.id for n in trace.graph.nodes if n.op == "relu"), {}) > 0
