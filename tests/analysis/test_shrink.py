"""Shrinking against predicates: the answer still fails, lies in the domain, and is as plain as can be."""

from collections.abc import Callable

import numpy as np
import pytest

from whynan.analysis.shrink import shrink
from whynan.domain import sample
from whynan.domain.spec import Domain, binary, classes, const, integers, mask, onehot, positive, prob, real, simplex, unit
from whynan.ir.dtype import Array

Inputs = dict[str, Array]


def shrunk(domain: Domain, start: Array, fails: Callable[[Array], bool], budget: int = 160) -> Array:
    assert fails(start)
    found = shrink({"x": start}, {"x": domain}, lambda inputs: fails(inputs["x"]), budget)["x"]
    assert fails(found) and sample.contains(domain, found) and found.dtype == domain.format.numpy
    return found


def messy(domain: Domain, seed: int = 0) -> Array:
    return sample.ordinary(domain, np.random.default_rng(seed))


def test_what_always_fails_becomes_plain() -> None:
    for domain in (real(3, 4), prob(5), positive(4), binary(6), mask(4), classes(5, 3), simplex(2, 3), unit(2, 3), onehot(2, 4)):
        found = shrunk(domain, messy(domain), lambda x: True)
        assert found.tobytes() == sample.plain(domain).tobytes()


def test_one_element_is_left_apart_from_the_plain_ones() -> None:
    domain = prob(4, 8)
    start = messy(domain)
    start[2, 5] = 1.0
    found = shrunk(domain, start, lambda x: bool((x == 1.0).any()) and bool((x != 1.0).any()))
    assert sorted(set(found.reshape(-1).tolist())) == [0.5, 1.0] and int((found == 1.0).sum()) == 1


def test_a_failing_element_at_a_fixed_place_stays_alone() -> None:
    domain = real(64)
    start = messy(domain)
    start[37] = -88.25
    found = shrunk(domain, start, lambda x: bool(x[37] < -1.5) and bool(x[36] > -1))
    assert np.flatnonzero(found).tolist() == [37] and found[37] == -2.0


def test_two_elements_that_fail_only_together_stay() -> None:
    domain = real(32)
    start = messy(domain)
    start[3], start[20] = 7.5, -7.5
    found = shrunk(domain, start, lambda x: bool(x[3] > 1.5 and x[20] < -1.5))
    assert np.flatnonzero(found).tolist() == [3, 20] and (found[3], found[20]) == (2.0, -2.0)


@pytest.mark.parametrize(
    ("threshold", "expected"),
    [(0.1, 1.0), (1.5, 2.0), (7.0, 10.0), (88.0, 100.0), (150.0, 1000.0), (1500.0, 4000.0)],
)
def test_numbers_are_rounded_to_what_reads_easily(threshold: float, expected: float) -> None:
    found = shrunk(real(1), np.array([4321.5678], np.float32), lambda x: bool(x[0] > threshold))
    assert found.tolist() == [expected]


def test_what_must_be_exact_stays_exact() -> None:
    value = np.float32(0.123456789)
    found = shrunk(real(2), np.array([value, 3.3], np.float32), lambda x: bool(x[0] == value))
    assert found.tolist() == [float(value), 0.0]


def test_equal_values_are_rounded_together() -> None:
    """a == b must survive: both elements change in one step."""
    found = shrunk(real(4), np.array([2.37, 9.1, 2.37, 5.5], np.float32), lambda x: bool(x[0] == x[2] and x[0] != 0))
    assert found.tolist() == [1.0, 0.0, 1.0, 0.0]


def test_two_inputs_that_must_be_equal_become_plain_together() -> None:
    domains = {"a": real(3), "b": real(3)}
    rng = np.random.default_rng(0)
    start = sample.ordinary(domains["a"], rng)
    found = shrink({"a": start, "b": start.copy()}, domains, lambda i: bool((i["a"] == i["b"]).all()), 160)
    assert (found["a"] == found["b"]).all()


def test_rows_stay_rows() -> None:
    found = shrunk(simplex(3, 4), messy(simplex(3, 4)) * 0 + np.eye(4, dtype=np.float32)[[0, 2, 1]], lambda x: bool((x == 1).any()))
    np.testing.assert_allclose(found.sum(-1), 1.0)
    found = shrunk(onehot(3, 4), np.eye(4, dtype=np.float32)[[3, 2, 1]], lambda x: bool(x[0, 3] == 1))
    assert (found.sum(-1) == 1).all() and found[0].tolist() == [0, 0, 0, 1]


def test_whole_numbers_stay_whole() -> None:
    domain = integers(-50, 50, 3)
    found = shrunk(domain, np.array([37, -12, 5]), lambda x: bool(x[0] >= 11))
    assert found[1:].tolist() == [0, 0] and found[0] >= 11 and found[0] % 10 == 0


def test_a_constant_is_not_touched() -> None:
    domain = const([3.25, 1.5])
    assert shrunk(domain, sample.plain(domain), lambda x: True).tolist() == [3.25, 1.5]


def test_the_budget_counts_runs() -> None:
    calls = 0

    def fails(x: Array) -> bool:
        nonlocal calls
        calls += 1
        return bool((x != 0).sum() >= 20)

    domain = real(64)
    shrink({"x": messy(domain)}, {"x": domain}, lambda i: fails(i["x"]), 30)
    assert calls <= 30


def test_an_input_of_no_elements_and_one_of_no_dimensions() -> None:
    assert shrunk(real(0), np.zeros(0, np.float32), lambda x: True).shape == (0,)
    assert shrunk(real(), np.asarray(3.7, np.float32), lambda x: bool(x > 0.2)) == 1.0


def test_plain_elements_do_not_cost_runs() -> None:
    calls = 0

    def never(inputs: Inputs) -> bool:
        nonlocal calls
        calls += 1
        return False

    domain = real(16)
    shrink({"x": sample.plain(domain)}, {"x": domain}, never, 100)
    assert calls == 0
