"""docs/models-and-contracts.md is true: its table has the causes there are, its examples do what they say."""

import re
import shlex
from pathlib import Path

import pytest

from whynan import cli
from whynan.report.words import words

pytest.importorskip("torch")

PAGE = (Path(__file__).parents[1] / "docs" / "models-and-contracts.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", PAGE, re.DOTALL)
NET = """
import torch

class Net(torch.nn.Module):
    def __init__(self):
        super().__init__()
        self.line = torch.nn.Linear(5, 1)

    def forward(self, x):
        return torch.sigmoid(self.line(x))
"""


@pytest.fixture
def folder(tmp_path, monkeypatch):
    losses = next(text for kind, text in BLOCKS if kind == "python" and "def bce" in text)
    (tmp_path / "losses.py").write_text(losses, encoding="utf-8")
    (tmp_path / "nets.py").write_text(NET, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_cause_of_the_table_has_its_words():
    causes = re.findall(r"^\| `([\w-]+)` \|", PAGE, re.MULTILINE)
    assert len(causes) == 7 and all(words(cause).title for cause in causes)


def test_the_command_prints_the_error_that_is_shown(folder, capsys):
    command = next(text for kind, text in BLOCKS if kind == "sh" and "--model" not in text)
    assert cli.main(shlex.split(command)[1:]) == 1
    shown = re.search(r"^    (error\[.*)$", PAGE, re.MULTILINE)
    assert shown is not None and shown[1] in capsys.readouterr().out


def test_with_probabilities_there_is_no_contract_finding(folder, capsys):
    assert cli.main(["check", "losses.py:bce", "-d", "p=prob(8)", "-d", "t=binary(8)"]) == 0
    assert "logits-as-probabilities" not in capsys.readouterr().out


def test_the_command_with_a_model_runs(folder, capsys):
    command = next(text for kind, text in BLOCKS if kind == "sh" and "--model" in text)
    assert cli.main(shlex.split(command)[1:]) == 0
    assert capsys.readouterr().out.startswith("SAFE")
