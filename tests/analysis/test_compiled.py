"""Epsilons that a compiler took away: constants of the source that the program that runs does not add."""

from dataclasses import replace

import numpy as np

from whynan.analysis.blame import Blame, blame
from whynan.analysis.compiled import blamed_on, may_lack_epsilon, removed
from whynan.ir.dtype import FLOAT16, FLOAT32
from whynan.ir.frontend import Trace
from whynan.ir.graph import Addend, Builder, Graph, Output, Place
from whynan.ir.where import Site

SITE = Site("losses.py", 3, 3, 8, 24, "1 - p + 1e-8", "loss")
ELSEWHERE = Site("losses.py", 3, 3, 40, 48, "p + 1e-8", "loss")  # the same line
WHY = Blame(2, "log", "forward", SITE, "log-of-zero", ("zero-times-inf",), "log of 0.", (), "loss", ())


def one_minus_p(*, epsilon: bool, spread: bool = False, at: Site = SITE) -> Graph:
    b = Builder()
    p = b.add("input", (), (3,), FLOAT32, name="p")
    x = b.add("sub", (b.const(np.float32(1), FLOAT32), p), (3,), FLOAT32)
    if epsilon:
        b.place = Place(site=at)
        c = b.const(np.float32(1e-8), FLOAT32)
        x = b.add("add", (x, b.add("expand", (c,), (3,), FLOAT32) if spread else c), (3,), FLOAT32)
    return Graph(tuple(b.nodes), {"p": p}, (Output("loss", "loss", x),), added=(Addend(1e-8, SITE),))


def test_a_constant_that_is_no_longer_added_is_named_with_its_place():
    assert removed(one_minus_p(epsilon=False), WHY) == [Addend(1e-8, SITE)]


def test_a_constant_that_is_still_added_is_not_even_when_it_is_broadcast():
    assert removed(one_minus_p(epsilon=True), WHY) == removed(one_minus_p(epsilon=True, spread=True), WHY) == []


def test_a_constant_that_is_lost_at_one_of_its_places_is_named_with_that_place():
    graph = one_minus_p(epsilon=True, at=ELSEWHERE)
    graph = replace(graph, added=(Addend(1e-8, ELSEWHERE), Addend(1e-8, SITE)))
    assert removed(graph, WHY) == [Addend(1e-8, SITE)]
    assert removed(graph, replace(WHY, node=graph.outputs[0].node)) == []  # it is added on the way to what failed


def test_what_is_lost_at_the_failing_expression_comes_first():
    graph = replace(one_minus_p(epsilon=False), added=(Addend(1e-6, ELSEWHERE), Addend(1e-8, SITE)))
    assert [a.value for a in removed(graph, WHY)] == [1e-8, 1e-6]


def test_a_constant_that_rounds_to_zero_is_the_cause_although_the_program_does_not_add_it():
    half = Builder()
    p = half.add("input", (), (3,), FLOAT16, name="p")
    half.place = Place(site=Site("losses.py", 3, 3, 0, 30, "log(p + 1e-8)", "loss"), source=0)
    log = half.add("log", (p,), (3,), FLOAT16)
    site = Site("losses.py", 3, 3, 4, 12, "p + 1e-8", "loss")
    graph = Graph(tuple(half.nodes), {"p": p}, (Output("loss", "loss", log),), added=(Addend(1e-8, site, FLOAT16),))
    zeros = np.zeros(3, np.float16)
    why = blame(Trace(graph, (zeros, None)))
    assert why is not None and (why.cause, why.related) == ("epsilon-rounds-away", ("log-of-zero",))
    assert "1e-08 rounds to 0 in float16" in why.message
    for other in (Addend(1e-4, site, FLOAT16), Addend(1e-8, replace(site, line=9, end_line=9), FLOAT16)):
        found = blame(Trace(replace(graph, added=(other,)), (zeros, None)))
        assert found is not None and found.cause == "log-of-zero"


def test_the_cause_changes_and_the_old_one_is_related():
    assert may_lack_epsilon(WHY)
    changed = blamed_on(WHY, removed(one_minus_p(epsilon=False), WHY)[0])
    assert (changed.cause, changed.related) == ("epsilon-removed-by-compiler", ("log-of-zero", "zero-times-inf"))
    assert "1e-08 in `1 - p + 1e-8`" in changed.message
    assert changed.message.endswith("log of 0.") and changed.message.count("log of 0.") == 1
    assert not may_lack_epsilon(Blame(3, "exp", "forward", SITE, "exp-overflow", (), "", (), "loss", ()))
