"""Matrix products, distances, convolutions and pools: exact and tight expectations."""

from typing import Any

import numpy as np
import pytest

import whynan.ops  # noqa: F401  (registers the ops)
from whynan.domain.interval import Bounds, between, make, of_array
from whynan.ir.dtype import FLOAT16, FLOAT32, FLOAT64, Format
from whynan.ir.graph import Call, Shape
from whynan.ops._opdef import bound, run


def product(a: Bounds, b: Bounds, m: int, k: int, n: int, fmt: Format = FLOAT32) -> Bounds:
    return bound(Call("matmul", {}, ((m, k), (k, n)), (fmt, fmt), (m, n), fmt), [a, b])


def test_a_uniform_product_is_one_interval() -> None:
    unit = between(0, 1, FLOAT32, 2, neg_zero=False)
    b = product(unit, unit, 10**5, 10**4, 10**5)
    assert b.shape == (1, 1)
    assert b.lo.item() == 0
    assert b.hi.item() == 1e4
    assert b.finite


def test_known_matrices_multiply_nearly_exactly() -> None:
    x, y = np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[5.0], [-6.0]])
    b = product(of_array(x), of_array(y), 2, 2, 1)
    assert b.lo.tolist() == b.hi.tolist() == (x @ y).tolist()
    assert np.all(np.abs(product(of_array(x / 3), of_array(y), 2, 2, 1).hi - x @ y / 3) < 1e-5)


def test_products_beyond_the_limit_are_joined_row_by_row() -> None:
    a = make(np.tile(np.arange(1.0, 3), 1000)[:, None] * np.ones((1, 600)), 2.0)
    b = product(a, of_array(np.ones((600, 600))), 2000, 600, 600)
    assert b.shape == (1, 600)
    assert 590 < b.lo.min() <= 600
    assert 1200 <= b.hi.max() < 1201


def test_zero_times_infinity_in_a_product() -> None:
    assert product(of_array(np.array([[np.inf]])), of_array(np.array([[0.0]])), 1, 1, 1).may_nan.all()
    assert not product(between(0, 1e4, FLOAT16, 2), between(0, 1, FLOAT16, 2), 1, 4, 1, FLOAT16).may_nan.any()
    assert not product(between(-1e20, 1e20, FLOAT32, 2), between(-1e20, 1e20, FLOAT32, 2), 1, 2, 1).finite


def distance(p: float, b: Bounds) -> Bounds:
    return bound(Call("cdist", {"p": p}, ((5, 3), (7, 3)), (FLOAT32, FLOAT32), (5, 7), FLOAT32), [b, b])


@pytest.mark.parametrize(("p", "most"), [(1.0, 6.0), (2.0, 12**0.5), (np.inf, 2.0)])
def test_distances_of_points_in_a_cube(p: float, most: float) -> None:
    b = distance(p, between(-1, 1, FLOAT32, 2))
    assert b.shape == (1, 1)
    assert b.lo.item() == 0
    assert b.hi.item() == pytest.approx(most, rel=1e-5)


@pytest.mark.parametrize("p", [1.0, 1.5, 2.0, np.inf])
def test_gradients_of_distances_are_bounded_by_what_comes_in(p: float) -> None:
    x = between(-1, 1, FLOAT32, 2)
    inputs = [between(-1, 1, FLOAT32, 2), x, x, distance(p, x)]
    b = bound(Call("cdist_grad", {"p": p}, ((5, 7), (5, 3), (7, 3), (5, 7)), (FLOAT32,) * 4, (5, 3), FLOAT32), inputs)
    assert b.finite
    assert b.hi.max() <= 7 * 2.5 * 1.01


def test_gradients_of_other_distances_are_not_bounded() -> None:
    x = between(-1, 1, FLOAT32, 2)
    inputs = [x, x, x, distance(0.5, x)]
    b = bound(Call("cdist_grad", {"p": 0.5}, ((5, 7), (5, 3), (7, 3), (5, 7)), (FLOAT32,) * 4, (5, 3), FLOAT32), inputs)
    assert not b.finite


def test_a_singular_matrix_has_no_inverse_and_the_others_keep_theirs() -> None:
    call = Call("inverse", {}, ((2, 2, 2),), (FLOAT64,), (2, 2, 2), FLOAT64)
    value = run(call, [np.array([[[1.0, 1.0], [1.0, 1.0]], [[2.0, 0.0], [0.0, 4.0]]])])
    assert np.isnan(value[0]).all()
    assert value[1].tolist() == [[0.5, 0.0], [0.0, 0.25]]
    assert not bound(call, [between(1, 2, FLOAT64, 3)]).finite


def convolution(x: Bounds, w: Bounds, w_shape: Shape, groups: int = 1, padding: int = 0) -> Bounds:
    attrs: dict[str, Any] = {"stride": (1, 1), "padding": (padding,) * 2, "dilation": (1, 1), "groups": groups, "transposed": False}
    n = 32 + 2 * padding - w_shape[2] + 1
    return bound(Call("conv", attrs, ((2, 3, 32, 32), w_shape), (FLOAT32, FLOAT32), (2, w_shape[0], n, n), FLOAT32), [x, w])


def test_a_blurred_image_stays_in_its_range() -> None:
    """A window of weights that sum to one, as structural similarity uses it."""
    weights = np.full((3, 1, 3, 3), 1 / 9)
    inside = convolution(between(0, 1, FLOAT32, 4), of_array(weights), (3, 1, 3, 3), groups=3)
    assert inside.hi.max() == pytest.approx(1, rel=1e-5)
    assert inside.lo.min() == 0
    bright = between(1, 2, FLOAT32, 4)
    assert convolution(bright, of_array(weights), (3, 1, 3, 3), groups=3).lo.min() == pytest.approx(1, rel=1e-5)
    assert convolution(bright, of_array(weights), (3, 1, 3, 3), groups=3, padding=1).lo.min() == 0


def test_channels_of_a_convolution_have_their_own_bounds() -> None:
    weights = np.zeros((2, 3, 1, 1))
    weights[1] = 1.0
    b = convolution(between(1, 2, FLOAT32, 4), of_array(weights), (2, 3, 1, 1))
    assert b.shape == (1, 2, 1, 1)
    assert b.hi[0, 0].item() == 0
    assert b.lo[0, 1].item() == pytest.approx(3, rel=1e-5)


def test_pools_stay_in_the_hull() -> None:
    attrs = {"kernel": (2, 2), "stride": (2, 2), "padding": (0, 0), "ceil_mode": False}
    x = between(1, 2, FLOAT32, 4)
    most = bound(Call("max_pool", attrs, ((1, 1, 8, 8),), (FLOAT32,), (1, 1, 4, 4), FLOAT32), [x])
    assert (most.lo.item(), most.hi.item()) == (1.0, 2.0)
    mean = bound(Call("avg_pool", attrs, ((1, 1, 8, 8),), (FLOAT32,), (1, 1, 4, 4), FLOAT32), [x])
    assert mean.lo.item() == pytest.approx(1, rel=1e-5)
    assert mean.hi.item() == pytest.approx(2, rel=1e-5)
