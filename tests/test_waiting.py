"""A person who waits is told what is being done, on a terminal and nowhere else."""

import os
import pty
import sys
import time

import pytest

from whynan.waiting import telling
from whynan.watching.overseer import Overseer
from whynan.watching.policy import SKIP, Options
from whynan.watching.record import OPERATION, Incident, Moment


def shown_while(seconds, monkeypatch, stream):
    monkeypatch.setattr(sys, "stderr", stream)
    with telling("checking losses.py:focal", after=0.05):
        time.sleep(seconds)


def read_until(leader, words, seconds=10.0):
    """What has been shown, as soon as the words are in it, or after so many seconds."""
    shown, end = b"", time.monotonic() + seconds
    while words not in shown and time.monotonic() < end:
        try:
            shown += os.read(leader, 10000)
        except BlockingIOError:
            time.sleep(0.01)
    return shown


def test_progress_shows_on_a_terminal_after_a_while(monkeypatch):
    leader, follower = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    with os.fdopen(follower, "w") as terminal:
        shown_while(0.0, monkeypatch, terminal)
        os.set_blocking(leader, False)
        with pytest.raises(BlockingIOError):
            os.read(leader, 1000)
        shown_while(0.5, monkeypatch, terminal)
        assert b"checking losses.py:focal" in read_until(leader, b"checking losses.py:focal")
    os.close(leader)


def test_no_progress_elsewhere(monkeypatch, tmp_path):
    with (tmp_path / "err").open("w") as file:
        shown_while(0.3, monkeypatch, file)
    assert (tmp_path / "err").read_text() == ""


def test_the_explanation_of_a_step_is_told(monkeypatch):
    leader, follower = pty.openpty()
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setattr("whynan.waiting.telling.__wrapped__.__defaults__", (0.05,))
    overseer = Overseer(Options(policy=SKIP, folder=None))

    def explain():
        time.sleep(0.5)
        return Incident(step=0, when="", framework="torch", framework_version="", failed="loss", loss=0.0, finding=None, kind=OPERATION)

    with os.fdopen(follower, "w") as terminal:
        monkeypatch.setattr(sys, "stderr", terminal)
        overseer.bad(Moment(0, float("nan")), explain)
        os.set_blocking(leader, False)
        assert b"looking into step 0" in read_until(leader, b"looking into step 0")
    os.close(leader)
