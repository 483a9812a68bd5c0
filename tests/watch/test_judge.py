"""What follows from a step's health, whatever the framework: norms of parameters are noted where they tell something."""

import logging
import math

import numpy as np

from whynan.watching.doors import options_of
from whynan.watching.judge import Judge, euclidean
from whynan.watching.overseer import Overseer
from whynan.watching.record import Moment


def test_the_parameters_are_measured_now_and_then_and_at_a_bad_step(caplog):
    caplog.set_level(logging.CRITICAL)
    overseer = Overseer(options_of({"policy": "skip", "folder": None, "scalars": False}))
    judge = Judge(overseer, lambda: None, lambda _: None, norm=lambda: 2.0 + overseer.step)

    def explain():
        raise RuntimeError("not here")

    for step in range(70):
        judge.begin()
        if step == 67:
            judge.bad(Moment(step, math.inf, ()), explain)
        else:
            judge.healthy(1.0, 1.0)
    judge.note()
    measured = {m.step: m.parameter_norm for m in overseer.flight.moments if not math.isnan(m.parameter_norm)}
    assert measured == {step: 2.0 + step for step in (0, 1, 2, 4, 8, 16, 32, 64, 67)}


def test_a_norm_is_known_where_squares_overflow():
    assert euclidean([np.full(4, 1e30, np.float32), np.zeros((0, 3), np.float32)]) == 2 * float(np.float32(1e30))
    assert euclidean([np.array([3.0], np.float16), np.array([4.0])]) == 5.0
