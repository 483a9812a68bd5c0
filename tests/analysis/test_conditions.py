"""What outcomes imply: the facts hold for every input with the outcome, in every float format's corners, and say enough to prove with."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import whynan
from whynan.analysis.conditions import contradictory, implied
from whynan.analysis.propagate import propagate
from whynan.analysis.view import View
from whynan.domain import sample
from whynan.domain.abstract import bounds_of
from whynan.domain.interval import contains
from whynan.domain.spec import Domain
from whynan.frontends.torch import load
from whynan.ir.frontend import Trace

SPECIAL = np.array([0.0, -0.0, 1.0, -1.0, 0.5, 2.0, 1e-45, -1e-45, 3e38, -3e38, np.inf, -np.inf, np.nan, 0.1, 255.0], np.float32)

CONDITIONS: dict[str, Callable[..., Any]] = {
    "lt": lambda x, y, m: (x < y).all(),
    "le": lambda x, y, m: (x <= y).any(),
    "gt a constant": lambda x, y, m: (x > 0.5).all(),
    "ge": lambda x, y, m: (x.max() >= y.min()),
    "eq": lambda x, y, m: (x == y).any(),
    "ne": lambda x, y, m: (x != y).all(),
    "ne zero": lambda x, y, m: (x != 0).all(),
    "max": lambda x, y, m: x.max() > 1,
    "min": lambda x, y, m: x.min() < -1,
    "abs": lambda x, y, m: x.abs().max() <= 1,
    "negated": lambda x, y, m: ~((-x).amax() < 0),
    "and": lambda x, y, m: ((x > 0) & (y < 1)).all(),
    "or": lambda x, y, m: ((x > 0) | (y < 1)).any(),
    "xor": lambda x, y, m: ((x > 0) ^ (y < 1)).any(),
    "nan": lambda x, y, m: torch.isnan(x).any(),
    "inf": lambda x, y, m: torch.isinf(x).any(),
    "finite": lambda x, y, m: torch.isfinite(x).all(),
    "a sum": lambda x, y, m: x.abs().sum() <= 2,
    "a mask": lambda x, y, m: m.any(),
    "all of a mask": lambda x, y, m: m.all(),
    "a count": lambda x, y, m: m.sum() == 2,
    "a count of floats": lambda x, y, m: m.float().sum() > 0,
    "maximum": lambda x, y, m: torch.maximum(x, y).max() < 1,
    "minimum": lambda x, y, m: torch.minimum(x, y).min() > -1,
    "relu": lambda x, y, m: torch.relu(x).max() < 1,
    "a cast": lambda x, y, m: (x.double() > 0.1).all(),
    "numbers as truth": lambda x, y, m: x.bool().all(),
    "rows": lambda x, y, m: (x.reshape(2, 2).amax(-1) > 0).all(),
}


def loss_of(condition: Callable[..., Any]) -> Callable[..., Any]:
    def loss(x, y, m):
        seen = bool(condition(x, y, m))
        f = m.to(x.dtype)
        parts = [x.sum(), (x - y).sum(), (y - x).sum(), f.sum(), (~m).to(x.dtype).sum(), x.amax(), f.mean(), torch.relu(x).sum()]
        return sum(p * 1.0 for p in parts) + (1.0 if seen else 2.0)

    return loss


def recorded(program: Any, inputs: dict[str, Any]) -> Trace:
    return program.capture(inputs, ("x", "y"), "eager")


@pytest.mark.parametrize("condition", CONDITIONS.values(), ids=CONDITIONS)
@pytest.mark.parametrize("wild", [False, True], ids=["tame", "with NaN and infinity"])
def test_no_input_with_the_outcome_breaks_what_it_implies(condition: Callable[..., Any], wild: bool) -> None:
    program, rng = load(loss_of(condition), "loss"), np.random.default_rng(0)
    domains: dict[str, Domain] = {"x": whynan.real(4), "y": whynan.real(4), "m": whynan.mask(4)}
    values = SPECIAL if wild else SPECIAL[np.isfinite(SPECIAL)]
    proofs: dict[float, Any] = {}
    seen = 0
    for k in range(24 if wild else 14):
        pick = rng.choice(values, (2, 4)) if k % 2 else np.stack([sample.draw(domains[n], rng) for n in ("x", "y")])
        trace = recorded(program, {"x": pick[0], "y": pick[1], "m": rng.random(4) < rng.choice([0.0, 0.5, 1.0])})
        if not trace.graph.assumptions:
            continue
        outcome = trace.graph.assumptions[0].low
        if outcome not in proofs:
            bounds = {n: bounds_of(domains[n].but(low=-3.5e38, high=3.5e38) if n != "m" else domains[n]) for n in trace.graph.inputs}
            if wild:
                bounds = {n: anything if n != "m" else bounds[n] for n, anything in {n: everything() for n in bounds}.items()}
            plain = propagate(trace.graph, bounds)
            given = implied(View(trace.graph), plain.bounds, trace.graph.assumptions)
            proofs[outcome] = propagate(trace.graph, bounds, given=given)
        proof = proofs[outcome]
        for node, value, b in zip(trace.graph.nodes, trace.values, proof.bounds, strict=True):
            if value is not None:
                assert contains(b, value).all(), (node.op, value, b, pick)
                seen += 1
    assert seen > 60


def everything() -> Any:
    from whynan.domain.interval import top
    from whynan.ir.dtype import FLOAT32

    return top(FLOAT32, 1)


# ---------------------------------------------------------------- what they are good for


def facts(loss: Callable[..., Any], inputs: dict[str, Any], domains: dict[str, Domain]) -> tuple[Any, Any]:
    trace = load(loss, "loss").capture({n: np.asarray(v) for n, v in inputs.items()}, (), "eager")
    bounds = {n: bounds_of(domains[n]) for n in trace.graph.inputs}
    given = implied(View(trace.graph), propagate(trace.graph, bounds).bounds, trace.graph.assumptions)
    return trace.graph, propagate(trace.graph, bounds, given=given)


def test_a_maximum_that_is_at_most_one_bounds_every_element() -> None:
    def loss(x):
        return x.sum() if x.max() > 1 else torch.log(2 - x).sum()

    _, proof = facts(loss, {"x": np.full(4, 0.5, np.float32)}, {"x": whynan.real(4, low=-5, high=5)})
    assert proof.finite and float(proof.bounds[0].hi.max()) == 1.0


def test_a_sum_that_is_not_zero_is_at_least_one() -> None:
    def loss(m, x):
        return x.sum() * 0 if m.sum() == 0 else x.sum() / m.sum()

    inputs = {"m": np.array([True, False, True]), "x": np.ones(3, np.float32)}
    _, proof = facts(loss, inputs, {"m": whynan.mask(3), "x": whynan.real(3, low=-5, high=5)})
    assert proof.finite


def test_what_cannot_be_is_seen_to_be_contradictory() -> None:
    def loss(x):
        return x.sum() if x.max() > 1 else (x * 2).sum()

    trace = load(loss, "loss").capture({"x": np.full(3, 2, np.float32)}, ("x",), "eager")
    bounds = {"x": bounds_of(whynan.real(3, low=2, high=5))}
    [a] = trace.graph.assumptions
    plain = propagate(trace.graph, bounds)
    for low, impossible in ((0.0, True), (1.0, False)):
        flipped = type(a)(a.node, low, low, a.what, a.site)
        given = implied(View(trace.graph), plain.bounds, [flipped])
        assert contradictory(trace.graph, propagate(trace.graph, bounds, given=given).bounds, given) == impossible
