"""The obligations of every row of every table, and rows that must be caught."""

import pytest
from tests.fixes.obligations import cured, less_finite, unequal

from whynan.fixes._pattern import guard, rewrite, variables
from whynan.fixes.guards import GUARDS
from whynan.fixes.rewrites import TABLES

RULES = [row for rows in TABLES.values() for row in rows]
CURES = [row for row in RULES if row.cures]


@pytest.mark.parametrize("row", RULES, ids=lambda row: row.name)
def test_both_sides_have_the_same_real_value(row):
    assert not unequal(row)


@pytest.mark.parametrize("row", CURES, ids=lambda row: row.name)
def test_the_new_form_is_finite_wherever_the_old_one_is(row):
    assert not less_finite(row)


@pytest.mark.parametrize("row", CURES, ids=lambda row: row.name)
def test_the_new_form_mends_what_it_is_for(row):
    assert cured(row)


@pytest.mark.parametrize("row", GUARDS, ids=lambda row: row.name)
def test_a_guard_is_finite_wherever_the_old_form_is(row):
    assert not less_finite(row, n=50)


@pytest.mark.parametrize("row", GUARDS, ids=lambda row: row.name)
def test_a_guard_mends_what_it_is_for(row):
    assert cured(row)


@pytest.mark.parametrize("rows", [RULES, list(GUARDS)], ids=["rewrites", "guards"])
def test_names_are_unique_and_nothing_comes_from_nowhere(rows):
    assert len({row.name for row in rows}) == len(rows)
    for row in rows:
        assert set(variables(row.right)) <= set(variables(row.left)), row.name


@pytest.mark.parametrize("row", GUARDS, ids=lambda row: row.name)
def test_a_guard_says_what_it_changes(row):
    assert row.changes.endswith(".") and row.title[0].islower()


# ---------------------------------------------------------------- the tests tested

WRONG = [
    rewrite("planted-sign", "log(sigmoid(X))", "logsigmoid(-X)"),
    rewrite("planted-factor", "log(1 - tanh(X) ** 2)", "0.6931471805599453 - X - softplus(-2 * X)"),
    rewrite("planted-without-condition", "sqrt(square(X))", "X"),
    rewrite("planted-mean", "mean(square(X), axis=A) - square(mean(X, axis=A))", "mean(square(X), axis=A)"),
    rewrite("planted-order", "exp(X) / exp(Y)", "exp(Y - X)"),
    rewrite("planted-without-value", "log(-exp(X))", "X"),
]


@pytest.mark.parametrize("row", WRONG, ids=lambda row: row.name)
def test_a_wrong_equality_is_caught(row):
    assert unequal(row)


def test_a_form_that_fails_more_often_is_caught():
    assert less_finite(rewrite("planted-overflow", "softplus(X)", "log(1 + exp(X))"))
    assert less_finite(guard("planted-guard", "sqrt(X)", "X / sqrt(X)", "worse", "Worse."))


def test_a_form_that_mends_nothing_is_caught():
    assert not cured(rewrite("planted-idle", "log(1 + exp(X))", "log(exp(X) + 1)"))
    assert not cured(guard("planted-epsilon", "log(X)", "log(X + 0)", "add nothing", "Nothing."))
