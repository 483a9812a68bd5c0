"""Runs of the real function on one and the same input are done once; what a witness repeats is run again."""

import numpy as np

from whynan.analysis.check import MOST_REMEMBERED, SMALL, _Job
from whynan.config import Settings
from whynan.domain.spec import real
from whynan.ir.frontend import Run


class _Counted:
    """A program that says how often it was run."""

    name, framework, framework_version, parameters = "counted", "none", "", {}

    def __init__(self) -> None:
        self.runs = 0

    def run(self, inputs, wrt, mode):
        """The number of the run as the loss."""
        self.runs += 1
        return Run(np.asarray(float(self.runs)), {})


def _job(program: _Counted, size: int = 2) -> _Job:
    return _Job(program, {"x": real(size)}, Settings(), lambda inputs, mode: "")


def test_equal_inputs_are_run_once_in_each_mode():
    program = _Counted()
    job = _job(program)
    first = job.run({"x": np.zeros(2, np.float32)}, "eager")
    assert job.run({"x": np.zeros(2, np.float32)}, "eager") is first
    assert job.run({"x": np.zeros(2, np.float32)}, "compile") is not first
    assert program.runs == 2


def test_the_sign_of_zero_the_dtype_and_the_shape_tell_inputs_apart():
    program = _Counted()
    job = _job(program)
    for x in (np.zeros(2, np.float32), -np.zeros(2, np.float32), np.zeros(2, np.int32), np.zeros((2, 1), np.float32)):
        job.run({"x": x}, "eager")
    assert program.runs == 4


def test_a_witness_is_really_run_again():
    program = _Counted()
    job = _job(program)
    inputs = {"x": np.zeros(2, np.float32)}
    witness = job._witness("eager", inputs, job.run(inputs, "eager"))
    assert witness.replay().loss == 2.0


def test_memory_is_limited():
    program = _Counted()
    job = _job(program, SMALL + 1)
    for _ in range(2):
        job.run({"x": np.zeros(SMALL + 1, np.float32)}, "eager")
    assert program.runs == 2
    for k in range(MOST_REMEMBERED + 5):
        job.run({"x": np.full(2, k, np.float32)}, "eager")
    assert len(job._seen) == MOST_REMEMBERED
