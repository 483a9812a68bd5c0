"""What values stand for: a sigmoid, a softmax, a probability, a class number, however it is spelt."""

import numpy as np
import pytest
from tests.analysis.small import Small, view_of

from whynan.analysis import meaning
from whynan.ir.dtype import INT64


def softmax(s: Small, z: int) -> int:
    """exp(z - max) / sum(exp(z - max)) over the last axis."""
    e = s.op("exp", s.op("sub", z, s.reduce("amax", z, -1)))
    return s.op("div", e, s.reduce("sum", e, -1))


def softmax_by_product(s: Small, z: int) -> int:
    """The same with the sum's inverse, as XLA writes it."""
    e = s.op("exp", s.op("sub", z, s.reduce("amax", z, -1)))
    return s.op("mul", e, s.op("div", s.const(1.0), s.reduce("sum", e, -1)))


def log_softmax(s: Small, z: int) -> int:
    """(z - max) - log(sum(exp(z - max)))."""
    shifted = s.op("sub", z, s.reduce("amax", z, -1))
    return s.op("sub", shifted, s.op("log", s.reduce("sum", s.op("exp", shifted), -1)))


def sigmoid(s: Small, z: int) -> int:
    """1 / (1 + exp(-z))."""
    return s.op("div", s.const(1.0), s.op("add", s.const(1.0), s.op("exp", s.op("neg", z))))


def logistic_term(s: Small, z: int) -> int:
    """log1p(exp(-|z|))."""
    return s.op("log1p", s.op("exp", s.op("neg", s.op("abs", z))))


def chosen_term(s: Small, z: int) -> int:
    """The same with a choice in place of the absolute value, as TensorFlow writes it."""
    positive = s.op("ge", z, s.const(0.0))
    return s.op("log1p", s.op("exp", s.op("where", positive, s.op("neg", z), z, fmt=s.builder.format(z))))


@pytest.mark.parametrize(
    ("spelt", "kind", "log"),
    [
        (softmax, "softmax", False),
        (softmax_by_product, "softmax", False),
        (log_softmax, "softmax", True),
        (sigmoid, "sigmoid", False),
        (logistic_term, "sigmoid", True),
        (chosen_term, "sigmoid", True),
        (lambda s, z: s.op("softmax", z, dim=-1), "softmax", False),
        (lambda s, z: s.op("logsigmoid", z), "sigmoid", True),
        (lambda s, z: s.op("logaddexp", z, s.const(0.0)), "sigmoid", True),
    ],
)
def test_a_normaliser_is_found_in_every_spelling(spelt, kind, log):
    s = Small()
    z = s.input("z", 4, 3)
    out = spelt(s, z)
    view = view_of(s, out)
    found = meaning.normalisers(view)[-1]
    assert (found.node, found.scores, found.kind, found.log) == (out, z, kind, log)


@pytest.mark.parametrize(
    "spelt",
    [
        lambda s, z: s.op("div", s.op("exp", z), s.reduce("sum", z, -1)),
        lambda s, z: s.op("sub", z, s.reduce("amax", z, -1)),
        lambda s, z: s.op("log1p", s.op("exp", z)),
        lambda s, z: s.op("div", s.const(2.0), s.op("add", s.const(1.0), s.op("exp", s.op("neg", z)))),
    ],
    ids=["a sum of something else", "a shift", "without the size", "twice a sigmoid"],
)
def test_what_only_looks_like_one_is_none(spelt):
    s = Small()
    out = spelt(s, s.input("z", 4, 3))
    assert meaning.normalisers(view_of(s, out)) == []


def cross_entropy(s: Small, p: int, low: float | None = 1e-7, high: float | None = 1 - 1e-7) -> int:
    """log(q) + log(1 - q) of a clamped value."""
    q = s.op("clamp", p, low=low, high=high)
    return s.op("add", s.op("log", q), s.op("log", s.op("sub", s.const(1.0), q)))


def test_a_value_with_log_x_and_log_1_minus_x_is_taken_for_a_probability():
    s = Small()
    p = s.input("p", 4)
    (value, uses), *rest = meaning.probability_uses(view_of(s, cross_entropy(s, p))).items()
    assert (value, rest) == (p, []) and {u.inverse for u in uses} == {True, False}
    assert all((u.low, u.high) == (1e-7, 1 - 1e-7) for u in uses if not u.inverse)


def test_a_logarithm_between_eps_and_1_minus_eps_is_enough():
    s = Small()
    p = s.input("p", 4)
    assert p in meaning.probability_uses(view_of(s, s.op("log", s.op("clamp", p, low=1e-7, high=1 - 1e-7))))


@pytest.mark.parametrize(("low", "high"), [(1e-6, None), (1e-6, 1.0 + 1e-3), (1e-6, 100.0), (-1.0, 1.0)])
def test_a_variance_kept_from_zero_is_no_probability(low, high):
    s = Small()
    v = s.input("v", 4)
    assert meaning.probability_uses(view_of(s, s.op("log", s.op("clamp", v, low=low, high=high)))) == {}


def test_class_numbers_are_found_behind_clamps_and_casts():
    s = Small()
    x, t = s.input("x", 4, 3), s.input("t", 4, fmt=INT64)
    index = s.reshape(s.op("clamp", t, low=0.0, high=2.0), 4, 1)
    out = s.op("gather", x, index, shape=(4, 1), fmt=s.builder.format(x), dim=-1)
    assert [(found.name, found.count) for found in meaning.lookups(view_of(s, out))] == [("t", 3)]


def test_comparing_with_0_1_2_makes_one_hot_rows():
    s = Small()
    t = s.input("t", 4, 1, fmt=INT64)
    out = s.op("eq", t, s.const(np.arange(3), INT64), shape=(4, 3))
    assert [(found.name, found.count) for found in meaning.lookups(view_of(s, out))] == [("t", 3)]


def test_values_that_are_treated_apart_are_told():
    s = Small()
    t = s.input("t", 4, fmt=INT64)
    valid = s.op("ne", t, s.const(-100, INT64))
    assert meaning.sentinels(view_of(s, valid), "t") == {-100.0}
    by_size = s.op("ge", t, s.const(0, INT64))
    assert meaning.sentinels(view_of(s, valid, by_size), "t") is None


def test_t_and_1_minus_t_that_weigh_logarithms_are_a_target():
    s = Small()
    p, t = s.input("p", 4), s.input("t", 4)
    rest = s.op("mul", s.op("sub", s.const(1.0), t), s.op("log", s.op("sub", s.const(1.0), p)))
    out = s.op("add", s.op("mul", t, s.op("log", p)), rest)
    assert set(meaning.mixing_weights(view_of(s, out))) == {t}


def test_an_advantage_that_weighs_a_logarithm_is_no_target():
    s = Small()
    p, a = s.input("p", 4), s.input("a", 4)
    assert meaning.mixing_weights(view_of(s, s.op("mul", a, s.op("log", p)))) == {}
