"""Epsilons that a compiler took away: constants of the source that the program that runs does not add."""

import numpy as np

from whynan.analysis.blame import Blame
from whynan.analysis.compiled import blamed_on, may_lack_epsilon, removed
from whynan.ir.dtype import FLOAT32
from whynan.ir.graph import Addend, Builder, Graph, Output, Place
from whynan.ir.where import Site

SITE = Site("losses.py", 3, 3, 8, 24, "1 - p + 1e-8", "loss")


def one_minus_p(*, epsilon: bool, spread: bool = False) -> Graph:
    b = Builder()
    p = b.add("input", (), (3,), FLOAT32, name="p")
    x = b.add("sub", (b.const(np.float32(1), FLOAT32), p), (3,), FLOAT32)
    if epsilon:
        b.place = Place(site=SITE)
        c = b.const(np.float32(1e-8), FLOAT32)
        x = b.add("add", (x, b.add("expand", (c,), (3,), FLOAT32) if spread else c), (3,), FLOAT32)
    return Graph(tuple(b.nodes), {"p": p}, (Output("loss", "loss", x),), added=(Addend(1e-8, SITE),))


def test_a_constant_that_is_no_longer_added_is_named_with_its_place():
    assert removed(one_minus_p(epsilon=False)) == [Addend(1e-8, SITE)]


def test_a_constant_that_is_still_added_is_not_even_when_it_is_broadcast():
    assert removed(one_minus_p(epsilon=True)) == removed(one_minus_p(epsilon=True, spread=True)) == []


def test_the_cause_changes_and_the_old_one_is_related():
    why = Blame(3, "log", "forward", SITE, "log-of-zero", ("zero-times-inf",), "log of 0.", (), "loss", ())
    assert may_lack_epsilon(why)
    changed = blamed_on(why, removed(one_minus_p(epsilon=False))[0])
    assert (changed.cause, changed.related) == ("epsilon-removed-by-compiler", ("log-of-zero", "zero-times-inf"))
    assert "1e-08 in `1 - p + 1e-8`" in changed.message
    assert changed.message.endswith("log of 0.")
    assert not may_lack_epsilon(Blame(3, "exp", "forward", SITE, "exp-overflow", (), "", (), "loss", ()))
