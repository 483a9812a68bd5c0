"""Applying: all or nothing, and nothing but the change."""

import os
import stat
import subprocess
from pathlib import Path

import pytest

from whynan.patches.change import Evidence, FileChange, Fix, PatchError, diff, read_file, write

OLD = "a = 1\nb = 2\n"


def changed(path: Path, new: str) -> FileChange:
    old, encoding, digest = read_file(path)
    return FileChange(path, old, new, encoding, digest)


@pytest.fixture
def file(tmp_path: Path) -> Path:
    path = tmp_path / "losses.py"
    path.write_bytes(OLD.encode())
    return path


def test_mode_and_bytes(file: Path) -> None:
    file.write_bytes(b"# -*- coding: latin-1 -*-\r\nname = '\xe4'\r\n")
    file.chmod(0o750)
    text = read_file(file)[0]
    write((changed(file, text + "b = 2\r\n"),))
    assert file.read_bytes() == b"# -*- coding: latin-1 -*-\r\nname = '\xe4'\r\nb = 2\r\n"
    assert stat.S_IMODE(file.stat().st_mode) == 0o750
    assert [p.name for p in file.parent.iterdir()] == ["losses.py"]


def test_a_link_stays_a_link(file: Path, tmp_path: Path) -> None:
    link = tmp_path / "link.py"
    link.symlink_to(file)
    write((changed(link, "a = 2\n"),))
    assert link.is_symlink() and file.read_text() == "a = 2\n"


def test_a_file_that_has_changed_since_is_left_alone(file: Path) -> None:
    change = changed(file, "a = 2\n")
    file.write_text("a = 3\n")
    with pytest.raises(PatchError, match="has changed since"):
        write((change,))
    assert file.read_text() == "a = 3\n"


def test_what_does_not_parse_is_not_written(file: Path) -> None:
    with pytest.raises(PatchError, match="would not parse"):
        write((changed(file, "a = (\n"),))
    assert file.read_text() == OLD


def test_all_or_none(file: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.py"
    other.write_text(OLD)
    changes = (changed(file, "a = 2\n"), changed(other, "a = (\n"))
    with pytest.raises(PatchError):
        write(changes)
    assert file.read_text() == other.read_text() == OLD


def test_a_failure_while_writing_leaves_the_file(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise OSError("disk full")

    monkeypatch.setattr(os, "replace", refuse)
    with pytest.raises(PatchError, match="disk full"):
        write((changed(file, "a = 2\n"),))
    assert file.read_text() == OLD and [p.name for p in file.parent.iterdir()] == ["losses.py"]


@pytest.mark.parametrize(("old", "new"), [(OLD, "a = 1\nb = 3\n"), ("a = 1", "a = 2"), ("a = 1\r\n", "a = 2\r\n")])
def test_the_diff_can_be_applied(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, old: str, new: str) -> None:
    monkeypatch.chdir(tmp_path)
    Path("losses.py").write_bytes(old.replace("\r\n", "\n").encode())
    text = diff(FileChange(tmp_path / "losses.py", old, new, "utf-8", ""))
    assert text.startswith("--- a/losses.py\n+++ b/losses.py\n")
    subprocess.run(["patch", "-p1"], input=text, text=True, check=True, capture_output=True)
    assert Path("losses.py").read_text() == new.replace("\r\n", "\n")


def test_advice_has_nothing_to_write() -> None:
    fix = Fix("use the with-logits form", "advice", "", Evidence("", 0, 0, None, "", "", None))
    with pytest.raises(PatchError, match="no file"):
        fix.apply()
    assert "not checked" in str(fix)


def test_evidence_says_what_is_known() -> None:
    same = Evidence("safe", 40, 3, 1e-7, "", "gradient alive", 1.2).lines()
    assert same == (
        "checked again on the same inputs: proven finite, gradients included",
        "same value as the original without rounding on 40 inputs, 3 of which make the original fail, at most 1.0e-07 off",
        "gradient alive",
        "cost: 1.2x the time of the original",
    )
    assert "the value changes at 0" in Evidence("undecided", 4, 0, 1.0, "the value changes at 0", "", None).lines()
