"""Exact arithmetic on random graphs: every value of a run lies within what it proves; and planted errors are found."""

import numpy as np
import pytest
from tests.soundness.smooth import draw_smooth
from tests.soundness.violations import minimised, violations

from whynan.analysis.exact import arithmetic, facts, functions
from whynan.analysis.exact.poly import constant, plus


def wrong(first: int, last: int) -> str:
    """The first violation of graphs first to last - 1, as text; empty if there is none."""
    for k in range(first, last):
        found = next(violations(draw_smooth(np.random.default_rng([3, k])), ("exact",)), None)
        if found is not None:
            return f"graph {k}:\n{minimised(found)}"
    return ""


@pytest.mark.parametrize("chunk", [0, *(pytest.param(c, marks=pytest.mark.slow) for c in range(1, 6))])
def test_values_lie_within_what_exact_arithmetic_says(chunk: int) -> None:
    assert not wrong(60 * chunk, 60 * (chunk + 1))


@pytest.mark.slow
def test_forgotten_rounding_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(arithmetic, "unit_of", lambda node: 0.0)
    assert "proven within" in wrong(0, 120)


@pytest.mark.slow
def test_forgotten_errors_of_library_functions_are_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(functions, "LIBRARY", 0)
    monkeypatch.setattr(functions, "lost", lambda fmt: 0.0)
    assert "proven within" in wrong(0, 240)


@pytest.mark.slow
def test_a_wrong_inequality_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = facts._max
    monkeypatch.setattr(facts, "_max", lambda atoms, i: (plus(g, constant(-0.1)) for g in plain(atoms, i)))
    assert "proven within" in wrong(0, 240)
