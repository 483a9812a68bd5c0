"""A report that was written as JSON reads as it was."""

import json

import pytest

import whynan
from whynan.errors import SampleError
from whynan.report.json import to_dict
from whynan.report.read import from_dict


def again(report: whynan.Report) -> whynan.Report:
    return whynan.Report.of(from_dict(json.loads(json.dumps(report.to_dict(), allow_nan=False))))


def entropy(p, t):
    return -(t * p.log() + (1 - t) * (1 - p).log()).mean()


def saturated(x):
    return (1 - x.sigmoid()).log().mean()


@pytest.mark.parametrize(
    ("loss", "domains", "options"),
    [
        (entropy, {"p": "prob(4)", "t": "[0.0, 1.0, 1.0, 0.5]"}, {}),
        (entropy, {"p": "prob(4, low=0.1, high=0.9)", "t": "binary(4)"}, {}),
        (saturated, {"x": "logit(4)"}, {}),
        (saturated, {"x": "logit(4, high=10)"}, {"accuracy": True}),
        (entropy, {"p": "prob(2, dtype='bfloat16')", "t": "binary(2, dtype='bfloat16')"}, {}),
    ],
)
def test_what_was_written_is_read(loss, domains, options) -> None:
    report = whynan.check(loss, domains=domains, framework="torch", **options)
    read = again(report)
    assert read.to_dict() == report.to_dict()
    for finding, other in zip(report.findings, read.findings, strict=True):
        assert finding.site == other.site and finding.witness.inputs.keys() == other.witness.inputs.keys()
        assert all(
            (finding.witness.inputs[n].dtype, finding.witness.inputs[n].tolist()) == (x.dtype, x.tolist())
            for n, x in other.witness.inputs.items()
        )
    assert str(read).splitlines()[0] == str(report).splitlines()[0]


def test_a_witness_that_was_read_says_that_it_cannot_be_run_again() -> None:
    read = again(whynan.check(entropy, domains={"p": "prob(2)", "t": "binary(2)"}, framework="torch"))
    with pytest.raises(RuntimeError, match="run its script"):
        read.findings[0].witness.replay()


@pytest.mark.parametrize("broken", [{}, {"schema": "other/1"}, {"schema": "whynan.report/1"}, {"schema": "whynan.report/1", "target": 3}])
def test_data_that_are_no_report_are_refused(broken) -> None:
    with pytest.raises(SampleError):
        from_dict(broken)


def test_a_report_with_a_broken_part_is_refused() -> None:
    data = to_dict(whynan.check(entropy, domains={"p": "prob(2)", "t": "binary(2)"}, framework="torch"))
    with pytest.raises(SampleError, match="broken"):
        from_dict({**data, "findings": [{"id": "x"}]})
