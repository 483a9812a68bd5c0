"""SARIF: what code hosts require of a log, and that regions point at the expression."""

import json
from pathlib import Path
from urllib.parse import unquote, urlparse

import pytest

from whynan.report import sarif
from whynan.report.sarif import findings_sarif, to_sarif

LEVELS = {"none", "note", "warning", "error"}


@pytest.fixture(autouse=True)
def _fixed_version(monkeypatch):
    monkeypatch.setattr(sarif, "version", lambda package: "1.2.3")


def test_golden(name, example, matches_golden):
    matches_golden(f"sarif/{name}.sarif", json.dumps(to_sarif(example), indent=2) + "\n")


def test_required_properties(name, example):
    log = json.loads(json.dumps(to_sarif(example)))
    assert log["version"] == "2.1.0"
    assert urlparse(log["$schema"]).scheme == "https"
    (run,) = log["runs"]
    driver = run["tool"]["driver"]
    assert (driver["name"], driver["version"]) == ("whynan", "1.2.3")
    assert len({r["id"] for r in driver["rules"]}) == len(driver["rules"])
    assert len(run["results"]) == len(example.findings)
    for result in run["results"]:
        assert driver["rules"][result["ruleIndex"]]["id"] == result["ruleId"]
        assert result["level"] in LEVELS
        assert result["message"]["text"]
        assert all("\x1b" not in str(v) for v in result.values())
        for location in result["locations"]:
            uri, region = location["physicalLocation"]["artifactLocation"]["uri"], location["physicalLocation"]["region"]
            assert not set(uri) & set(" <>[]\\\x1b")
            assert 1 <= region["startLine"] <= region["endLine"]
            assert min(region["startColumn"], region["endColumn"]) >= 1


def region_text(region, file):
    lines = Path(file).read_text(encoding="utf-8").split("\n")[region["startLine"] - 1 : region["endLine"]]
    lines[-1] = lines[-1][: region["endColumn"] - 1]
    lines[0] = lines[0][region["startColumn"] - 1 :]
    return "\n".join(lines)


@pytest.mark.parametrize("text", ["log(x)", "f(1,\n\n  'é') + '漢é'"])
def test_regions_count_characters_from_one(tmp_path, make_finding, find_site, text):
    file = tmp_path / "a b%.py"
    file.write_text(f"s = '漢é'; y = {text} + 1\n", encoding="utf-8")
    (result,) = findings_sarif([make_finding(site=find_site(text, "f", str(file)))])["runs"][0]["results"]
    place = result["locations"][0]["physicalLocation"]
    assert region_text(place["region"], file) == text == place["region"]["snippet"]["text"]
    assert Path(unquote(urlparse(place["artifactLocation"]["uri"]).path)) == file


def test_a_file_below_the_working_directory_is_relative(examples):
    (result,) = to_sarif(examples["where-trap"]())["runs"][0]["results"]
    assert result["locations"][0]["physicalLocation"]["artifactLocation"]["uri"] == "losses.py"


def test_the_fingerprint_outlives_a_move_and_tells_causes_apart(tmp_path, make_finding, find_site):
    def fingerprint(before, **changes):
        file = tmp_path / "moved.py"
        file.write_text(before + "y = log(x)\n")
        (result,) = findings_sarif([make_finding(site=find_site("log(x)", "f", str(file)), **changes)])["runs"][0]["results"]
        return result["partialFingerprints"]["whynan/v1"]

    assert fingerprint("") == fingerprint("\n\n  # moved\n")
    assert fingerprint("") != fingerprint("", cause="log-of-negative")


def test_undecided_sites_are_notifications(examples):
    (run,) = to_sarif(examples["undecided-op"]())["runs"]
    assert run["results"] == []
    notes = run["invocations"][0]["toolExecutionNotifications"]
    assert [n["level"] for n in notes] == ["note"] * 3
    assert "acme.spline" in notes[0]["message"]["text"]


def test_a_finding_without_a_site_has_no_location(make_finding):
    (result,) = findings_sarif([make_finding()])["runs"][0]["results"]
    assert result["locations"] == []
