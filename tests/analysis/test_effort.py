"""Seconds of work: what limits on time are about."""

import time

from whynan.analysis.effort import PATIENCE, Effort


def test_waiting_counts_less_than_working():
    waiting = Effort()
    time.sleep(0.2)
    assert waiting.elapsed >= 0.2
    assert waiting.elapsed / PATIENCE <= waiting.seconds < 0.15


def test_work_counts_as_it_is():
    working, begun = Effort(), time.thread_time()
    while time.thread_time() - begun < 0.1:
        pass
    assert 0.1 <= working.seconds <= working.elapsed + 0.02
