"""Failures that need an equality between computed quantities: chance misses them, solving finds them."""

import numpy as np
import pytest

import whynan
from whynan.analysis import check as pipeline

torch = pytest.importorskip("torch")


def log_of_determinant(m):
    return -torch.log(torch.abs(m[0, 0] * m[1, 1] - m[0, 1] * m[1, 0]))


def distance_to_an_affine_image(x, t):
    image = t @ torch.tensor([[0.5, -0.25, 0.125], [0.25, 0.75, -0.5]]) + torch.tensor([0.125, -0.25, 0.375])
    return torch.sqrt(((x - image) ** 2).sum())


def guard_with_equality(t, scale, x):
    later = t >= scale * x
    gap = torch.where(later, t - scale * x, torch.ones_like(t))
    return torch.where(later, -torch.log(gap), torch.zeros_like(t)).mean()


def distance_to_a_projection(a, b):
    b = b * torch.tensor([0.5, 0.75, 1.25, 0.625])
    along = (a * b).sum() / (b * b).sum() * b
    return -torch.log(((a - along) ** 2).sum())


def similarity_in_half_precision(q):
    key = torch.tensor([0.45, -0.1, 0.05, 0.3, -0.22, 0.02, -0.41, 0.11, 0.08, -0.03, 0.25, 0.33], dtype=torch.float16)
    z = q / (q.norm() + 1e-2)
    return torch.exp((key * z).sum() * 15)


DOMAINS = {
    log_of_determinant: {"m": whynan.real(2, 2, low=-0.7, high=0.9)},
    distance_to_an_affine_image: {"x": whynan.real(3, low=-1.4, high=1.6), "t": whynan.real(2, low=-1, high=1.1)},
    guard_with_equality: {
        "t": whynan.real(4, low=1, high=9),
        "scale": whynan.real(4, low=0.3, high=1.7),
        "x": whynan.real(4, low=0.2, high=2, grad=False),
    },
    distance_to_a_projection: {"a": whynan.real(4, low=0.1, high=1.9), "b": whynan.real(4, low=0.05, high=2.1)},
    similarity_in_half_precision: {"q": whynan.real(12, dtype="float16", low=-1, high=1)},
}


@pytest.mark.parametrize("loss", DOMAINS, ids=lambda loss: loss.__name__)
def test_it_is_found_with_a_witness_that_fails_again(loss):
    report = whynan.check(loss, **DOMAINS[loss])
    assert report.verdict == "unsafe"
    run = report.findings[0].witness.replay()
    assert not all(np.isfinite(v.astype(np.float64)).all() for v in (run.loss, *run.gradients.values()))


def test_without_solving_they_are_missed(monkeypatch):
    monkeypatch.setattr(pipeline, "solutions", lambda *_: iter(()))
    for loss in (distance_to_an_affine_image, distance_to_a_projection):
        assert whynan.check(loss, **DOMAINS[loss]).verdict == "undecided"


def test_a_quantity_that_cannot_reach_the_edge_is_no_witness():
    def apart(x, y):
        return -torch.log(((x - y) ** 2).sum())

    report = whynan.check(apart, x=whynan.real(3, low=0, high=1), y=whynan.real(3, low=2, high=3))
    assert report.verdict == "safe"


def test_the_answer_does_not_change_from_run_to_run():
    loss = distance_to_a_projection
    one, two = (whynan.check(loss, **DOMAINS[loss]).findings[0].witness.inputs for _ in range(2))
    assert all(np.array_equal(one[name], two[name]) for name in one)
