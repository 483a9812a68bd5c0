"""Climbing towards a danger that special values miss."""

import numpy as np
from tests.analysis.small import Small

from whynan.analysis.descent import proposals
from whynan.analysis.evaluate import evaluate
from whynan.analysis.propagate import propagate
from whynan.domain import sample
from whynan.domain.abstract import bounds_of
from whynan.domain.spec import Domain, const, real
from whynan.ir.graph import Graph


def climbed(graph: Graph, domains: dict[str, Domain], seed: int = 0) -> list[dict[str, np.ndarray]]:
    proof = propagate(graph, {n: bounds_of(d) for n, d in domains.items()}, 2000)
    return [dict(p) for p in proposals(graph, proof, domains, seed)]


def overflow_of_a_product() -> Graph:
    """exp(a * b - c): fails only where a * b is large and c is not."""
    s = Small()
    a, b, c = (s.input(n, 3) for n in "abc")
    return s.graph(s.reduce("sum", s.op("exp", s.op("sub", s.op("mul", a, b), c)), -1))


def test_an_overflow_is_reached_in_a_few_generations() -> None:
    domains = {n: real(3, low=-10, high=10) for n in "abc"}
    graph = overflow_of_a_product()
    values = [evaluate(graph, p)[-1] for p in climbed(graph, domains)]
    assert values and any(not np.isfinite(v).all() for v in values if v is not None)


def test_a_divisor_is_brought_close_to_zero() -> None:
    s = Small()
    x, y = s.input("x", 2), s.input("y", 2)
    graph = s.graph(s.op("reciprocal", s.op("sub", s.op("square", x), s.op("add", y, s.const(0.37)))))
    domains = {"x": real(2, low=0.5, high=2), "y": real(2, low=0.5, high=2)}
    nearest = min(float(np.abs(v[-2]).min()) for v in (evaluate(graph, p) for p in climbed(graph, domains)) if v[-2] is not None)
    assert nearest < 1e-4


def test_proposals_stay_in_their_domains_and_repeat_themselves() -> None:
    domains = {"a": real(3, low=-10, high=10), "b": real(3, low=0, high=9), "c": const([1.0, 2.0, 3.0])}
    graph = overflow_of_a_product()
    one, two, other = climbed(graph, domains), climbed(graph, domains), climbed(graph, domains, seed=1)
    assert one and all(sample.contains(d, p[n]) for p in one for n, d in domains.items())
    assert [p["a"].tobytes() for p in one] == [p["a"].tobytes() for p in two] != [p["a"].tobytes() for p in other]


def test_nothing_is_proposed_where_nothing_is_open_or_nothing_can_be_run() -> None:
    s = Small()
    x = s.input("x", 3)
    assert climbed(s.graph(s.op("tanh", x)), {"x": real(3)}) == []
    s = Small()
    u = s.op("unknown.thing", s.input("x", 3))
    assert climbed(s.graph(s.op("log", u)), {"x": real(3)}) == []
    s = Small()
    assert climbed(s.graph(s.op("log", s.input("x", 2))), {"x": const([0.0, 1.0])}) == []
