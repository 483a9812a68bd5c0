"""`whynan explain INCIDENT` and `whynan incidents`: exit codes, formats, one-line errors."""

import json

import pytest
from tests.watch.incidents import incident

from whynan import cli
from whynan.cli import output
from whynan.watching.bundle import save
from whynan.watching.policy import Options


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A working folder with two incidents in whynan-incidents."""
    monkeypatch.chdir(tmp_path)
    options = Options()
    save(incident(step=3, when="2026-03-01T07:00:00+00:00", finding=None, kind="divergence"), options)
    return save(incident(), options)


def test_explain_tells_the_incident_and_exits_with_1(folder, capsys):
    assert cli.main(["explain", str(folder)]) == 1
    out = capsys.readouterr().out
    assert out.startswith("STEP 1204  the loss is inf: log(0.0)") and "Last steps" in out
    assert f"python {folder}/replay.py" in out and out.endswith("\n") and not out.endswith("\n\n")


@pytest.mark.parametrize("form", ["json", "html", "sarif"])
def test_explain_in_every_format(folder, capsys, form):
    assert cli.main(["explain", str(folder), "--format", form]) == 1
    out = capsys.readouterr().out
    if form == "html":
        assert out.startswith("<!DOCTYPE html>")
    else:
        data = json.loads(out)
        assert form == "sarif" or (data["incident"]["step"], data["findings"][0]["cause"]) == (1204, "log-of-zero")


def test_explain_writes_a_file(folder, tmp_path, capsys):
    assert cli.main(["explain", str(folder), "--output", "told.txt"]) == 1
    assert (tmp_path / "told.txt").read_text().startswith("STEP 1204") and capsys.readouterr().out == ""


def test_explain_on_a_terminal_is_in_colour(folder, monkeypatch):
    import io

    class Terminal(io.StringIO):
        def isatty(self):
            return True

    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.delenv("NO_COLOR", raising=False)
    from whynan import api

    shown = output._text(api.explain(folder), "text", Terminal())
    assert "\x1b[1;31mSTEP 1204" in shown


@pytest.mark.parametrize(("name", "message"), [("whynan-incidents", "cannot be read"), ("empty.txt", "is not an incident")])
def test_what_is_no_incident_is_one_line_and_2(folder, tmp_path, capsys, name, message):
    (tmp_path / "empty.txt").touch()
    assert cli.main(["explain", name]) == 2
    error = capsys.readouterr().err
    assert error.startswith("whynan: ") and message in error and error.count("\n") == 1


def test_a_broken_incident_is_one_line_and_2(folder, capsys):
    (folder / "incident.json").write_text('{"schema": "whynan.incident/9"}')
    assert cli.main(["explain", str(folder)]) == 2
    error = capsys.readouterr().err
    assert "not of schema whynan.incident/1" in error and error.count("\n") == 1


def test_incidents_lists_the_default_folder(folder, capsys):
    assert cli.main(["incidents"]) == 0
    lines = capsys.readouterr().out.split("\n")
    assert "step 1204" in lines[0] and lines[0].endswith(str(folder)) and "step 3" in lines[1] and "divergence" in lines[1]
    assert lines[3] == "2 incidents; `whynan explain FOLDER` tells one."


def test_incidents_as_json(folder, capsys):
    assert cli.main(["incidents", "whynan-incidents", "--format", "json"]) == 0
    data = json.loads(capsys.readouterr().out)
    assert [d["step"] for d in data] == [1204, 3] and data[0]["folder"] == str(folder) and data[0]["samples"] == [3, 7]


def test_incidents_without_a_folder_is_one_line_and_2(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    assert cli.main(["incidents"]) == 2
    assert capsys.readouterr().err.startswith("whynan: there is no folder whynan-incidents.")
