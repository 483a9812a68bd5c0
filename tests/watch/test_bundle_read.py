"""Reading incidents that a stranger may have written: nothing is executed, nothing else is opened, and every fault is one line."""

import json
import os
import random
import sys
import time
from dataclasses import replace

import pytest
from tests.watch.incidents import HERE, finding, incident

import whynan
from whynan.errors import IncidentError
from whynan.report.html import to_html
from whynan.watching.bundle import save
from whynan.watching.explained import IncidentReport, explained
from whynan.watching.json import dumps, loads, to_dict
from whynan.watching.listing import as_data, as_text, listed
from whynan.watching.policy import Options
from whynan.watching.read import read


def folder_of(tmp_path, text):
    folder = tmp_path / "one"
    folder.mkdir()
    (folder / "incident.json").write_bytes(text if isinstance(text, bytes) else text.encode())
    return folder


def changed(path, value):
    data = to_dict(incident())
    inner = data
    for key in path[:-1]:
        inner = inner[key]
    inner[path[-1]] = value
    return json.dumps(data)


# ---------------------------------------------------------------- explain


def test_explain_gives_a_report(tmp_path, monkeypatch):
    monkeypatch.chdir(HERE)
    folder = save(incident(), Options(folder=tmp_path))
    report = whynan.explain(folder)
    assert isinstance(report, whynan.Report) and report.incident.step == 1204
    assert (report.verdict, report.findings[0].cause, report.findings[0].site.text) == ("unsafe", "log-of-zero", "torch.log(p)")
    assert str(report).startswith("STEP 1204  the loss is inf: log(0.0) in step_losses.py:7") and "run again" in str(report)
    assert report.to_dict()["schema"] == "whynan.report/1" and report.to_dict()["incident"]["schema"] == "whynan.incident/1"
    assert "gradient norm of the last 60 steps" in to_html(report) and report.to_sarif()["version"] == "2.1.0"
    assert "STEP" in repr(str(report)) and "log-of-zero" in repr(report)
    assert str(whynan.explain(str(folder))) == str(report) == str(whynan.explain(folder / "incident.json"))


@pytest.mark.parametrize(("kind", "cause"), [("divergence", "divergence"), ("unexplained", "other-domain-error")])
def test_an_incident_without_a_finding_is_an_error_too(tmp_path, kind, cause):
    report = whynan.explain(save(incident(finding=None, kind=kind, unexplained="it grew."), Options(folder=tmp_path)))
    assert isinstance(report, IncidentReport)
    assert [(f.severity, f.cause) for f in report.findings] == [("error", cause)] and "it grew." in str(report)


def test_nothing_is_executed_and_nothing_else_is_opened(tmp_path, monkeypatch):
    folder = save(incident(), Options(folder=tmp_path))
    for name in ("replay.py", "tensors.safetensors", "report.txt", "report.html", "sitecustomize.py", "conftest.py"):
        (folder / name).write_text("raise SystemExit('executed')")
    opened = []
    sys.addaudithook(lambda event, args: opened.append(str(args[0])) if event == "open" and watching else None)
    watching = True
    str(whynan.explain(folder))
    watching = False
    assert [f for f in opened if str(tmp_path) in f] == [str(folder / "incident.json")]


# ---------------------------------------------------------------- hostile folders


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "broken"),
        ("[]", "it is no object"),
        ("{}", "not of schema"),
        ("null", "it is no object"),
        ("{", "broken"),
        ("[" * 100_000, "broken"),
        ('{"schema": "whynan.incident/1", "x": ' * 3000, "broken"),
        ('{"schema": "whynan.incident/1", "step": ' + "9" * 5000 + "}", "broken"),
        ('{"schema": "whynan.incident/2"}', "not of schema whynan.incident/1"),
        ('{"schema": "whynan.incident/1"}', "it has no step"),
        (b"\xff\xfe", "not UTF-8"),
        ("NaN", "NaN is not JSON"),
        (dumps(incident()).replace('"Infinity"', "Infinity", 1), "Infinity is not JSON"),
        (changed(["loss"], 10**400), "broken"),
        (changed(["finding", "cause"], "no-such-cause"), "no cause"),
        (changed(["finding", "site", "line"], -1), "no line -1"),
        (changed(["finding", "site", "column"], -1), "columns -1"),
        (changed(["finding", "site", "more"], 1), "broken"),
        (changed(["finding", "site", "file"], 3), "file is no string"),
        (changed(["finding", "chain", 0, "inputs"], "text"), "inputs is no array"),
        (changed(["finding", "fixes"], [{}]), "has no title"),
        (changed(["moments"], [[]]), "moments[0] is no object"),
        (changed(["moments"], [None] * 200_000), "too long"),
        (changed(["layer"], "x" * 30_000), "layer is too long"),
        (changed(["step"], -1), "step is out of range"),
        (changed(["rank"], 10**300), "rank is out of range"),
    ],
)
def test_broken_data_are_one_line(tmp_path, text, message):
    folder = folder_of(tmp_path, text)
    with pytest.raises(IncidentError) as caught:
        whynan.explain(folder)
    assert message in str(caught.value) and str(folder) in str(caught.value)


def test_a_file_that_is_too_large_is_not_read(tmp_path):
    folder = folder_of(tmp_path, "")
    os.truncate(folder / "incident.json", 10**12)
    with pytest.raises(IncidentError, match="larger than 16 MiB"):
        read(folder)


@pytest.mark.parametrize("make", ["link", "broken link", "pipe", "folder"])
@pytest.mark.skipif(not hasattr(os, "mkfifo"), reason="no pipes here")
def test_what_is_no_ordinary_file_is_refused(tmp_path, make):
    folder = tmp_path / "one"
    folder.mkdir()
    file, elsewhere = folder / "incident.json", tmp_path / "secret.json"
    elsewhere.write_text(dumps(incident()))
    {
        "link": lambda: file.symlink_to(elsewhere),
        "broken link": lambda: file.symlink_to(tmp_path / "nowhere"),
        "pipe": lambda: os.mkfifo(file),
        "folder": file.mkdir,
    }[make]()
    with pytest.raises(IncidentError):
        read(folder)


def test_missing_things(tmp_path):
    (tmp_path / "text.txt").write_text("x")
    for path, message in (
        (tmp_path / "none", "there is no incident"),
        (tmp_path, "cannot be read"),
        (tmp_path / "text.txt", "is not an incident"),
    ):
        with pytest.raises(IncidentError, match=message):
            read(path)


@pytest.mark.parametrize(
    "file",
    [
        "/dev/zero",
        "/etc/passwd",
        "/dev/zero.py/../zero",
        "pipe.py",
        "x\x00.py",
        "\ud800.py",
        "//host/share/x.py",
        "\\\\host\\x.py",
        "large.py",
        "<x>",
        "",
    ],
)
def test_no_source_is_opened_but_ordinary_python(tmp_path, monkeypatch, file):
    monkeypatch.chdir(tmp_path)
    os.mkfifo("pipe.py")
    with open("large.py", "wb") as large:
        large.truncate(10**11)
    text = changed(["finding", "site", "file"], file)
    start = time.monotonic()
    report = whynan.explain(folder_of(tmp_path, text))
    shown = str(report) + to_html(report)
    assert time.monotonic() - start < 2
    assert "torch.log(p)" in shown and "root:" not in shown
    assert (report.findings[0].site.file == f"<{file}>") or not os.path.exists(file)


def test_a_site_of_a_huge_span_is_cut(tmp_path):
    again = loads(changed(["finding", "site", "end_line"], 10**14))
    assert again.finding.site.end_line == again.finding.site.line
    str(again)


def test_a_source_that_has_changed_is_not_shown(tmp_path):
    (tmp_path / "private.py").write_text("password = 'hunter2'\n" * 20)
    text = changed(["finding", "site", "file"], str(tmp_path / "private.py"))
    assert "hunter2" not in str(whynan.explain(folder_of(tmp_path, text)))


def test_markup_and_control_characters(tmp_path):
    evil = "<script>alert(1)</script>\x1b[2J\u202e[red]"
    fields = dict.fromkeys(("layer", "framework", "framework_version", "failed", "kind", "how", "action", "when", "unexplained"), evil)
    data = {**to_dict(incident()), **fields, "notes": [evil], "advice": [evil], "parameters": [evil]}
    report = whynan.explain(folder_of(tmp_path, json.dumps(data)))
    text, page = str(report), to_html(report)
    assert "\x1b" not in text + page and "\u202e" not in text + page and "<script>" not in page
    assert "<script>" in text


STRANGE = [
    None,
    True,
    -1,
    10**30,
    1.5,
    "NaN",
    "",
    "\x1b[2J\u202e",
    "\ud800",
    "/dev/zero",
    [],
    {},
    [[]],
    {"a": 1},
    ["x"],
    [1, 2],
    "漢" * 300,
]


def _places(data, path=()):
    for key, value in data.items() if isinstance(data, dict) else enumerate(data[:3]):
        yield (*path, key)
        if isinstance(value, dict | list):
            yield from _places(value, (*path, key))


@pytest.mark.parametrize("seed", range(3))
def test_data_changed_at_random_are_refused_or_shown(seed):
    random_, whole, shown = random.Random(seed), {**to_dict(incident()), "moments": to_dict(incident())["moments"][:3]}, 0
    for _ in range(150):
        data = json.loads(json.dumps(whole))
        *way, last = random_.choice(list(_places(data)))
        inner = data
        for key in way:
            inner = inner[key]
        inner[last] = random_.choice(STRANGE)
        try:
            report = explained(loads(json.dumps(data)))
        except IncidentError:
            continue
        assert str(report) + to_html(report) + json.dumps(report.to_sarif())
        shown += 1
    assert shown > 5, "not everything is refused"


# ---------------------------------------------------------------- lists


def test_incidents_are_listed_newest_first(tmp_path):
    def kept(step, when, **changes):
        return save(incident(step=step, when=when, **changes), Options(folder=tmp_path)).name

    names = [
        kept(7, "2026-03-01T08:00:00+00:00"),
        kept(9, "2026-03-02T08:00:00+00:00", finding=None, kind="divergence"),
        kept(8, "2026-03-01T08:00:00+00:00"),
    ]
    broken = folder_of(tmp_path, "{")
    (tmp_path / "other").mkdir()
    (tmp_path / ".writing-1-ab").mkdir()
    (tmp_path / "link").symlink_to(tmp_path / names[0])
    found = listed(tmp_path)
    assert [e.folder.name for e in found] == [names[1], names[2], names[0], broken.name]
    lines = as_text(found, tmp_path, sys.stdout).split("\n")
    assert len(lines) == 7 and "2026-03-02 08:00:00  step 9" in lines[0] and "divergence" in lines[0] and "cannot be read" in lines[3]
    assert "log-of-zero" in lines[1] and "step_losses.py:7" in lines[1] and "samples 3, 7" in lines[1] and lines[1].endswith(names[2])
    data = as_data(found)
    assert data[1]["text"] == "torch.log(p)" and data[1]["loss"] == "Infinity" and "fault" in data[3]
    json.dumps(data, allow_nan=False)
    assert [e.folder for e in listed(tmp_path / names[0])] == [tmp_path / names[0]]


def test_a_list_of_hostile_incidents(tmp_path):
    evil = "\x1b[2J\u202e\n[red]"
    site = replace(finding().site, file=evil)
    save(incident(when=evil, finding=replace(finding(), site=site), failed=evil), Options(folder=tmp_path))
    odd = tmp_path / "\x1b]0;owned\x07\n[bold]"
    odd.mkdir()
    (odd / "incident.json").write_text("{}")
    text = as_text(listed(tmp_path), tmp_path, sys.stdout)
    assert [c for c in text if not c.isprintable() and c != "\n"] == [] and len(text.split("\n")) == 5


def test_an_empty_or_missing_folder(tmp_path):
    said = as_text(listed(tmp_path), tmp_path, sys.stdout)  # a long path is wrapped
    assert "".join(said.split()) == f"Noincidentsin{tmp_path}."
    with pytest.raises(IncidentError, match="no folder"):
        listed(tmp_path / "none")
