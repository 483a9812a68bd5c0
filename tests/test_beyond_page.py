"""The page on branches, safe ranges, digits and audits shows what the command prints."""

import re
from pathlib import Path

import pytest

from whynan import cli
from whynan.audits import overrides

pytest.importorskip("torch")

PAGE = (Path(__file__).parents[1] / "docs" / "beyond-the-verdict.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"^```(\w*)\n(.*?)^```$", PAGE, re.DOTALL | re.MULTILINE)
LOSSES = next(text for kind, text in BLOCKS if kind == "python")
SHOWN = [text for _, text in BLOCKS if text.startswith("whynan check ")]


@pytest.mark.slow
@pytest.mark.parametrize("shown", SHOWN, ids=["branches", "safe ranges", "digits"])
def test_what_is_shown_is_printed(shown, tmp_path, monkeypatch, capsys):
    (tmp_path / "losses.py").write_text(LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)
    command, expected = shown.split("\n\n", 1)
    cli.main([part.strip('"') for part in re.findall(r'"[^"]*"|\S+', command)][1:])
    assert expected.rstrip("\n") in capsys.readouterr().out


def test_the_overrides_are_overrides(tmp_path):
    text = next(text for kind, text in BLOCKS if kind == "toml")
    file = tmp_path / "overrides.toml"
    file.write_text(text)
    assert set(overrides.from_file(file).losses) == {"ArcFaceLoss", "PerceptualLoss"}
