"""Counting, deciding, keeping: what the overseer does with the steps that a watcher reports."""

import logging
import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from whynan.errors import NonFiniteError, WhynanError
from whynan.watching.overseer import Overseer
from whynan.watching.policy import POLICIES, RAISE, RETRY, ROLLBACK, SKIP, STOP, Options
from whynan.watching.record import DIVERGENCE, OPERATION, UNEXPLAINED, Incident, Moment


def overseer(policy=SKIP, **options):
    return Overseer(Options(policy, **{"folder": None, "scalars": False, **options}))


def good(o, optimizer=0):
    o.healthy(Moment(o.step, 1.0, (1.0,), 3.0, optimizer=optimizer))


def bad(o, optimizer=0, explain=None):
    moment = Moment(o.step, math.nan, (math.nan,), 3.0, optimizer=optimizer)
    return o.bad(moment, explain or (lambda: incident(moment.step)))


def incident(step):
    return Incident(step, "", "torch", "2", "loss", math.nan, None, OPERATION, unexplained="for the test.")


# ---------------------------------------------------------------- counting


def test_the_third_bad_step_in_a_row_raises():
    o = overseer(SKIP, patience=3)
    assert [bad(o), bad(o)] == [SKIP, SKIP]
    with pytest.raises(NonFiniteError) as raised:
        bad(o)
    assert raised.value.in_a_row == 3 and raised.value.incident.step == 2
    assert (o.step, o.bad_steps, o.skipped, o.in_a_row) == (3, 3, 3, 3)


def test_a_healthy_step_begins_the_count_anew():
    o = overseer(SKIP, patience=2)
    for _ in range(5):
        assert bad(o) == SKIP
        good(o)
    assert (o.step, o.bad_steps, o.in_a_row) == (10, 5, 0)


def test_what_a_scaler_leaves_out_is_no_healthy_step_and_no_bad_one():
    o = overseer(SKIP, patience=2)
    bad(o)
    o.passed_over(Moment(o.step, 1.0, scale=2.0, outcome="left out by the gradient scaler"))
    assert (o.bad_steps, o.in_a_row, o.skipped) == (1, 1, 2)
    with pytest.raises(NonFiniteError):
        bad(o)


def test_two_optimizers_that_take_turns_are_counted_each_by_itself():
    o = overseer(SKIP, patience=3)
    for _ in range(2):
        bad(o, optimizer=1)
        good(o, optimizer=0)
    with pytest.raises(NonFiniteError) as raised:
        bad(o, optimizer=1)
    assert raised.value.in_a_row == 3


def test_policies_that_change_from_step_to_step_are_one_row():
    wishes = iter([SKIP, RETRY, None])
    o = overseer(ROLLBACK, patience=3, on_incident=lambda i: next(wishes))
    assert [bad(o), bad(o)] == [SKIP, RETRY]
    with pytest.raises(NonFiniteError):
        bad(o)


def test_rollbacks_to_the_same_snapshot_come_to_an_end():
    o = overseer(ROLLBACK, patience=3, every=100)
    for _ in range(2):
        assert bad(o) == ROLLBACK
        for _ in range(50):
            good(o)
    with pytest.raises(NonFiniteError):
        bad(o)


def test_rollbacks_to_newer_snapshots_do_not():
    o = overseer(ROLLBACK, patience=3, every=10)
    for _ in range(6):
        assert bad(o) == ROLLBACK
        for _ in range(10):
            good(o)


def test_stop_asks_first_and_raises_if_nobody_listens():
    o = overseer(STOP, patience=3)
    assert [bad(o), bad(o)] == [STOP, STOP]
    with pytest.raises(NonFiniteError):
        bad(o)


@given(st.sampled_from(POLICIES), st.integers(1, 5), st.lists(st.sampled_from(["good", "bad", "left out"]), max_size=40))
def test_counts_add_up(policy, patience, steps):
    o = overseer(policy, patience=patience)
    row = applied = wrong = 0
    for kind in steps:
        if kind == "good":
            good(o)
            row, applied = 0, applied + 1
        elif kind == "left out":
            o.passed_over(Moment(o.step, 1.0, outcome="left out by the gradient scaler"))
        else:
            row, wrong = row + 1, wrong + 1
            raised, action = None, ""
            try:
                action = bad(o)
            except NonFiniteError as error:
                raised = error
            if raised is not None:
                assert raised.in_a_row == row
                assert policy in (RAISE, ROLLBACK) or row >= patience
                break
            assert action == policy
            assert row < max(2, patience)
    assert o.bad_steps == wrong and o.in_a_row == row
    assert o.step == applied + wrong + sum(m.outcome.startswith("left out") for m in o.flight.moments)
    assert sum(m.outcome == "applied" for m in o.flight.moments) == applied


# ---------------------------------------------------------------- incidents


def test_so_many_incidents_are_explained_and_kept_and_the_one_that_raises():
    calls = []
    o = overseer(SKIP, patience=3, incidents=2)
    for _ in range(5):
        step = o.step
        bad(o, explain=lambda step=step: calls.append(step) or incident(step))
        good(o)
    assert [i.step for i in o.incidents] == calls == [0, 2]
    assert o.last is None
    bad(o), bad(o)
    with pytest.raises(NonFiniteError) as raised:
        bad(o)
    assert raised.value.incident.step == 12 and [i.step for i in o.incidents] == [0, 2, 12]


def test_a_retry_is_always_explained_but_not_always_kept():
    o = overseer(RETRY, incidents=1)
    for _ in range(3):
        bad(o)
        assert o.last is not None and o.last.step == o.step - 1
        good(o)
    assert len(o.incidents) == 1


def test_the_callback_has_the_incident_and_the_last_word():
    seen = []
    o = overseer(RAISE, on_incident=lambda i: seen.append(i) or SKIP)
    assert bad(o) == SKIP
    assert [i.step for i in seen] == [0] and o.incidents[0].action == SKIP


def test_a_callback_that_returns_nonsense():
    with pytest.raises(WhynanError, match="on_incident returned 'later'"):
        bad(overseer(SKIP, on_incident=lambda i: "later"))


def test_an_explanation_that_fails_does_not_end_the_run(caplog):
    def explain():
        raise ZeroDivisionError("planted")

    o = overseer(SKIP)
    with caplog.at_level(logging.WARNING, "whynan.watch"):
        assert bad(o, explain=explain) == SKIP
    assert o.incidents[0].kind == UNEXPLAINED and "planted" in str(o.incidents[0])
    assert any(r.exc_info for r in caplog.records)


def test_an_incident_has_the_steps_before_it_and_its_own():
    o = overseer(RAISE, memory=5)
    for _ in range(20):
        good(o)
    with pytest.raises(NonFiniteError) as raised:
        bad(o)
    assert [m.step for m in raised.value.incident.moments] == [16, 17, 18, 19, 20]
    assert o.flight.moments[-1].outcome == RAISE


def test_a_folder_that_cannot_be_written_is_a_note(tmp_path):
    (tmp_path / "file").write_text("")
    o = overseer(SKIP, folder=tmp_path / "file" / "below")
    bad(o)
    assert "could not be written" in o.incidents[0].notes[0]


# ---------------------------------------------------------------- divergence, warnings, log


def test_a_divergence_is_told_with_advice():
    o = overseer(RAISE)
    for i in range(40):
        o.healthy(Moment(i, 1.0, (2.0 + i % 3,), 3.0, learning_rates=(0.1,)))
    for i in range(5):
        o.healthy(Moment(40 + i, 10.0 ** (4 * i + 2), (10.0 ** (2 * i + 2),), 3 * 10.0 ** (2 * i), learning_rates=(0.1,)))
    with pytest.raises(NonFiniteError) as raised:
        o.bad(Moment(45, math.inf, (math.nan,), 3e10, learning_rates=(0.1,)), lambda: incident(45))
    found = raised.value.incident
    assert found.kind == DIVERGENCE and found.cause == "divergence"
    assert any("learning rate" in a for a in found.advice) and any("norm of 4" in a for a in found.advice)


def test_the_log_has_the_warning_before_the_crash_and_the_bad_steps(caplog):
    o = overseer(SKIP)
    with caplog.at_level(logging.WARNING, "whynan.watch"):
        for i in range(40):
            o.healthy(Moment(i, 1.0, (1.0,), 3.0))
        for i in range(6):
            o.healthy(Moment(40 + i, 10.0**i, (100.0**i,), 3.0))
        bad(o)
    first, second = (r.getMessage() for r in caplog.records)
    assert "the gradient norm is" in first
    assert "This update was not applied; policy skip." in second


def test_moments_may_be_noted_later_than_their_steps_are_counted():
    o = overseer(SKIP, patience=2)
    bad(o)
    o.applied()
    o.applied()
    assert (o.step, o.in_a_row, len(o.flight.moments)) == (3, 0, 1)
    o.noted(Moment(1, 1.0))
    o.noted(Moment(2, 1.0))
    assert [m.step for m in o.flight.moments] == [0, 1, 2]
