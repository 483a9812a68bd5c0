"""Masks that Python code reads whole, as those that go through SciPy: each array is a path of its own, and none is left out."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.analysis.test_paths import explored, many, violations

import whynan
from whynan.analysis import arrays
from whynan.frontends.torch import load

MANY, FEW = whynan.prob(7), whynan.prob(3)


def reasons(report: Any) -> str:
    return "\n".join(o.reason for o in report.undecided)


def distance(mask: torch.Tensor) -> torch.Tensor:
    """Something that NumPy computes of a mask: how far each element is from the nearest one outside."""
    m = mask.numpy()
    outside = np.flatnonzero(~m)
    away = [min((abs(k - j) for j in outside), default=0) if on else 0 for k, on in enumerate(m)]
    return torch.tensor(np.asarray(away, np.float32))


def boundary(x):
    return (distance(x.detach() > 0.5) * x).mean()


def both_sides(x):
    """The mask and its opposite, behind looks that leave out two masks."""
    mask = x.detach() > 0.5
    if not mask.any() or mask.all():
        return x.sum() * 0
    return ((distance(mask) + distance(~mask)) * (x - 0.2) ** 2).mean()


def with_labels(x, y):
    return ((distance(x.detach() > 0.5) + distance(y > 0)) * (x - y) ** 2).mean()


def fails_on_one(x):
    """Finite but for the mask (true, false, true)."""
    d = distance(x.detach() > 0.5)
    return (x / (d - torch.tensor([1.0, 0.0, 1.0])).abs().sum()).mean()


@pytest.mark.parametrize("loss", [boundary, both_sides])
def test_a_loss_that_is_finite_for_each_mask_is_safe(loss: Any) -> None:
    assert whynan.check(loss, x=FEW).verdict == "safe"


@pytest.mark.slow
def test_cases_of_labels_that_are_read_later() -> None:
    assert whynan.check(with_labels, x=whynan.prob(2), y=whynan.binary(2)).verdict == "safe"


def test_the_one_mask_that_fails_is_found() -> None:
    report = whynan.check(fails_on_one, x=FEW)
    assert report.verdict == "unsafe"
    assert ((report.findings[0].witness.inputs["x"] > 0.5) == [True, False, True]).all()


def test_too_many_masks_are_not_gone_through() -> None:
    report = whynan.check(boundary, x=MANY)
    assert report.verdict == "undecided"
    assert "looks at a value" in reasons(report)


def test_numbers_with_fractions_that_are_read_stay_undecided() -> None:
    assert whynan.check(lambda x: (x * torch.from_numpy(x.detach().numpy() * 2)).sum(), x=FEW).verdict == "undecided"


@pytest.mark.parametrize(("loss", "count"), [(boundary, 8), (both_sides, 8)])
def test_no_mask_is_left_out(loss: Any, count: int) -> None:
    problem, covered = explored(load(loss, "loss"), {"x": FEW}, "eager")
    assert (covered.unproven, len(covered.paths)) == ((), count)
    assert violations(problem, covered, many({"x": FEW}, 60)) == []


def test_a_mask_that_is_left_out_is_missed(monkeypatch: pytest.MonkeyPatch) -> None:
    """The tester tested: without one mask among those that are possible, inputs are found that take no path."""
    every = arrays.possible

    def fewer(*args: Any) -> Any:
        found = every(*args)
        return None if found is None else [v for v in found if v.tolist() != [True, False, True]]

    monkeypatch.setattr("whynan.analysis.paths.possible", fewer)
    problem, covered = explored(load(boundary, "loss"), {"x": FEW}, "eager")
    assert any("no path" in v for v in violations(problem, covered, many({"x": FEW}, 60)))


def test_what_was_read_decides_its_opposite() -> None:
    report = whynan.check(both_sides, x=whynan.prob(2))
    assert report.verdict == "safe"
