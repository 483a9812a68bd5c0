"""The decision about a bad step, as a function of what has happened so far."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whynan.errors import WhynanError
from whynan.watching.policy import POLICIES, RAISE, RETRY, ROLLBACK, SKIP, STOP, Options, decided

policies = st.sampled_from(POLICIES)
counts = st.integers(1, 20)


@given(policies, counts, st.none() | policies, counts, counts)
def test_the_patience_th_bad_step_in_a_row_is_never_dropped_in_silence(policy, patience, wanted, in_a_row, rollbacks):
    action = decided(Options(policy, patience), wanted, in_a_row, rollbacks)
    if in_a_row >= max(2, patience):
        assert action == RAISE
    elif (wanted or policy) != ROLLBACK and in_a_row < patience:
        assert action == (wanted or policy)


@pytest.mark.parametrize("policy", [SKIP, RETRY, ROLLBACK])
def test_patience_of_one_bears_none(policy):
    assert decided(Options(policy, 1), None, 1) == RAISE


def test_a_loop_is_asked_to_stop_before_anything_is_raised():
    assert decided(Options(STOP, 1), None, 1) == STOP
    assert decided(Options(STOP, 3), None, 2) == STOP
    assert decided(Options(STOP, 3), None, 3) == RAISE


def test_rollbacks_to_the_same_snapshot_end():
    assert decided(Options(ROLLBACK, 3), None, 1, rollbacks=2) == ROLLBACK
    assert decided(Options(ROLLBACK, 3), None, 1, rollbacks=3) == RAISE
    assert decided(Options(SKIP, 3), None, 1, rollbacks=3) == SKIP


def test_the_callback_is_asked_for_a_policy_that_there_is():
    with pytest.raises(WhynanError, match="on_incident returned 'ignore'"):
        decided(Options(), "ignore", 1)
    assert decided(Options(RAISE), SKIP, 1) == SKIP
    assert decided(Options(SKIP), RAISE, 1) == RAISE


@pytest.mark.parametrize("options", [{"policy": "ignore"}, {"patience": 0}, {"every": 0}, {"memory": 0}])
def test_options_that_make_no_sense(options):
    with pytest.raises(WhynanError):
        Options(**options)
