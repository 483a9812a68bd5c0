"""The report in users' hands: every way to show it, and that it is still the analysis' record."""

import json

import numpy as np
import pytest

from whynan.analysis.finding import Finding, Report, Witness
from whynan.domain.spec import prob
from whynan.result import Report as Shown


@pytest.fixture
def shown():
    witness = Witness({"p": np.zeros(1, np.float32)}, np.float32("inf"), {}, "print(1)\n", lambda inputs: inputs["p"] + 1)
    finding = Finding("f1", "non-finite", "error", "log-of-zero", "log gets 0.0.", "log", "forward", None, ("eager",), witness=witness)
    sites = {"total": 2, "proven": 1, "refuted": 1, "undecided": 0}
    record = Report("a.py:f", "torch", "2.13.0", "float32", ("eager",), "unsafe", 0.1, {"p": prob(1)}, sites, (finding,))
    return Shown.of(record)


def test_is_the_record(shown):
    assert isinstance(shown, Report)
    assert (shown.verdict, shown.modes, shown.findings[0].cause) == ("unsafe", ("eager",), "log-of-zero")


def test_print_is_plain_text(shown, capsys):
    print(shown)
    printed = capsys.readouterr().out
    assert printed.startswith("UNSAFE  f can become infinite: logarithm of zero\n")
    assert "\x1b" not in printed


def test_repr_is_short(shown):
    assert repr(shown) == "<Report unsafe: a.py:f, 1 finding>"


def test_notebooks_get_html(shown):
    assert shown._repr_html_().startswith('<div class="whynan">')


def test_to_html_writes_a_page(shown, tmp_path):
    shown.to_html(tmp_path / "report.html")
    assert (tmp_path / "report.html").read_text(encoding="utf-8").startswith("<!DOCTYPE html>")


def test_data_forms(shown):
    assert json.loads(json.dumps(shown.to_dict()))["verdict"] == "unsafe"
    assert shown.to_sarif()["version"] == "2.1.0"


def test_witness(shown):
    witness = shown.findings[0].witness
    assert witness.script() == "print(1)\n"
    assert witness.replay() == [1]


def test_a_witness_from_a_file_cannot_be_replayed():
    with pytest.raises(RuntimeError, match="run its script"):
        Witness({}, np.float32(0), {}).replay()
