"""Bounds of a domain hold every member, and as little else as an interval can."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from whynan.domain import sample, spec
from whynan.domain.abstract import bounds_of
from whynan.domain.interval import contains

KINDS = [
    spec.real(3, 2),
    spec.real(3, low=0.05, high=0.3, dtype="float16"),
    spec.prob(4, dtype="bfloat16"),
    spec.logit(2, 3),
    spec.positive(4, dtype="float64"),
    spec.nonnegative(2),
    spec.binary(5),
    spec.mask(5),
    spec.classes(7, 4),
    spec.integers(-3, 50, 4, dtype="int16"),
    spec.onehot(3, 4),
    spec.simplex(3, 4),
    spec.simplex(2, 5, low=0.1, high=0.3),
    spec.unit(3, 4, dtype="float16"),
    spec.unit(3, 4, low=0.1),
    spec.const([[0.0, -0.0, np.nan, np.inf]]),
    spec.real(),
    spec.real(0, 3),
]


@pytest.mark.parametrize("domain", KINDS, ids=str)
@given(seed=st.integers(0, 2**32))
def test_bounds_hold_every_member(domain, seed):
    assert contains(bounds_of(domain), sample.draw(domain, np.random.default_rng(seed))).all()


@pytest.mark.parametrize("domain", KINDS, ids=str)
def test_bounds_hold_corners_and_have_a_group_per_dimension(domain):
    bounds = bounds_of(domain)
    assert len(bounds.shape) == len(domain.shape)
    assert all(contains(bounds, corner).all() for corner in sample.corners(domain))


def test_ends_flags_and_groups():
    bounds = bounds_of(spec.prob(8, 1000))
    assert (bounds.lo.item(), bounds.hi.item(), bounds.shape) == (0, 1, (1, 1))
    assert bounds.may_neg_zero.all()
    assert not bounds.integral.any()
    assert not bounds.may_nan.any()
    assert not bounds_of(spec.binary(3)).may_neg_zero.any()
    assert bounds_of(spec.binary(3)).integral.all()
    assert not bounds_of(spec.positive(3)).may_zero.any()


def test_constants_are_exact_and_shared_when_uniform():
    assert bounds_of(spec.const([1.0, 2.0])).shape == (2,)
    assert bounds_of(spec.const(np.zeros((50, 50)))).shape == (1, 1)
    mixed = bounds_of(spec.const([0.0, -0.0]))
    assert mixed.may_neg_zero.tolist() == [False, True]
