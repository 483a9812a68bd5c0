"""Arrays of a domain: all of them members, the plain ones plain, the special ones special."""

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from tests.domain.test_abstract import KINDS

from whynan.domain import sample, spec


@pytest.mark.parametrize("domain", KINDS, ids=str)
def test_plain_and_corners_are_members_in_the_dtype(domain):
    for array in (sample.plain(domain), *sample.corners(domain)):
        assert sample.contains(domain, array)
        assert (array.shape, array.dtype) == (domain.shape, domain.format.numpy)


@pytest.mark.parametrize("domain", KINDS, ids=str)
def test_draws_are_members_and_repeat_with_the_seed(domain):
    first, second = np.random.default_rng(7), np.random.default_rng(7)
    for _ in range(60):
        array = sample.draw(domain, first)
        assert sample.contains(domain, array)
        assert array.dtype == domain.format.numpy
        assert array.tobytes() == sample.draw(domain, second).tobytes()


@pytest.mark.parametrize("domain", [d for d in KINDS if d.kind != "const"], ids=str)
@given(data=st.data())
def test_projection_gives_a_member_and_leaves_members_alone(domain, data):
    array = data.draw(hnp.arrays(np.float64, domain.shape, elements=st.floats(width=64)))
    member = sample.project(domain, array)
    assert sample.contains(domain, member)
    if domain.kind not in spec.ROWS:
        assert sample.project(domain, member).tobytes() == member.tobytes()


@pytest.mark.parametrize("domain", KINDS, ids=str)
def test_special_values_lie_inside_and_are_distinct(domain):
    values = sample.special_values(domain)
    if domain.kind != "const":
        assert all(domain.low <= v <= domain.high and float(np.asarray(v, domain.format.numpy)) == v for v in values)
    assert len({(str(v), np.signbit(v)) for v in values}) == len(values)


def test_special_values_name_the_places_where_losses_fail():
    values = sample.special_values(spec.prob(3))
    for expected in (0.0, 1.0, 0.5, 1 - 2.0**-24, 2.0**-149, 2.0**-126, 2.0**-23):
        assert expected in values
    assert not any(np.signbit(v) for v in values)
    assert any(np.signbit(v) for v in sample.special_values(spec.real(3)) if v == 0)
    logits = sample.special_values(spec.logit(3))
    assert any(88.7 < v < 88.8 for v in logits)
    assert any(v < -87.3 for v in logits)
    assert sample.special_values(spec.classes(4, 2)) == [0, 1, 2, 3]
    assert {0.0, 1e6} <= set(sample.special_values(spec.integers(0, 10**6, 2)))


def test_plain_arrays_are_plain():
    assert sample.plain(spec.prob(2)).tolist() == [0.5, 0.5]
    assert sample.plain(spec.logit(2)).tolist() == [0, 0]
    assert sample.plain(spec.positive(2)).tolist() == [1, 1]
    assert sample.plain(spec.mask(2)).tolist() == [True, True]
    assert sample.plain(spec.real(1, low=3, high=4)).tolist() == [3]
    assert sample.plain(spec.simplex(1, 4)).tolist() == [[0.25] * 4]
    assert sample.plain(spec.unit(1, 3)).tolist() == [[1, 0, 0]]


def test_corners_reach_the_ends_and_the_empty_mask():
    ends = sample.corners(spec.real(4, low=-2, high=3))
    assert {(float(c.min()), float(c.max())) for c in ends} == {(-2, -2), (3, 3), (0, 0), (-2, 3)}
    masks = sample.corners(spec.mask(3))
    assert any(not m.any() for m in masks)
    assert any(m.all() for m in masks)
    assert any(m.sum() == 1 for m in masks)
    assert any(c.max() == 1 for c in sample.corners(spec.simplex(2, 3)))


@pytest.mark.parametrize(
    ("domain", "array"),
    [
        (spec.prob(2), [0.5, 1.0000001]),
        (spec.prob(2), [0.5, np.nan]),
        (spec.prob(2), [0.5]),
        (spec.prob(2), [[0.5, 0.5]]),
        (spec.real(1), [np.inf]),
        (spec.real(1), [0.1]),  # no float32
        (spec.positive(1), [0.0]),
        (spec.binary(1), [0.5]),
        (spec.classes(3, 1), [3]),
        (spec.onehot(1, 2), [[1, 1]]),
        (spec.simplex(1, 2), [[0.5, 0.501]]),
        (spec.unit(1, 2), [[0.5, 0.5]]),
        (spec.const([1.0]), [2.0]),
    ],
    ids=str,
)
def test_non_members(domain, array):
    assert not sample.contains(domain, np.array(array))


def test_members():
    assert sample.contains(spec.real(2), np.array([-0.0, 1e4], np.float32))
    assert sample.contains(spec.simplex(1, 3), np.full((1, 3), 1 / 3, np.float32))
    assert sample.contains(spec.const([np.nan]), np.array([np.nan], np.float32))
    assert sample.contains(spec.real(0, 3), np.zeros((0, 3)))


def test_projection_clips_rounds_and_renormalises():
    assert sample.project(spec.prob(3), np.array([-1, np.nan, 9])).tolist() == [0, 0.5, 1]
    assert sample.project(spec.integers(0, 3, 3), np.array([0.4, 2.6, 99])).tolist() == [0, 3, 3]
    assert sample.project(spec.simplex(1, 2), np.array([[0.25, 0.75]])).tolist() == [[0.25, 0.75]]
    assert sample.project(spec.onehot(1, 3), np.array([[0.1, 0.7, 0.2]])).tolist() == [[0, 1, 0]]
    assert sample.project(spec.unit(1, 2), np.array([[3e-30, 4e-30]]))[0] == pytest.approx([0.6, 0.8])
    assert sample.project(spec.real(1, dtype="bfloat16"), np.array([0.1])).dtype == ml_dtypes.bfloat16


def test_draws_cover_ends_subnormals_and_repeats():
    rng = np.random.default_rng(0)
    draws = [sample.draw(spec.prob(6), rng) for _ in range(200)]
    assert any((d == 0).any() for d in draws)
    assert any((d == 1).any() for d in draws)
    assert any(((d > 0) & (d < 2.0**-126)).any() for d in draws)
    assert any(len(set(d.tolist())) == 1 for d in draws)
