"""whynan.fix on a loss that is given with its model: the activation goes from the model into the loss."""

from pathlib import Path

import pytest

import whynan
from whynan.cli import main

pytest.importorskip("torch")
pytest.importorskip("egglog")

TEXT = """import torch
import torch.nn as nn
import torch.nn.functional as F


def model(x):
    z = 40 * x.sum(-1)
    return torch.sigmoid(z)


torch.manual_seed(0)
net = nn.Sequential(nn.Linear(3, 1), nn.Sigmoid())


def bce(p, t):
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()
"""
X = whynan.real(4, 3, low=-30.0, high=30.0)


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "both.py"
    path.write_text(TEXT)
    return path


@pytest.mark.slow
def test_the_model_returns_logits_and_the_loss_takes_them(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    asked = ["fix", "both.py:bce", "--model", "both.py:model", "-d", "x=real(4, 3, low=-30, high=30)", "-d", "y=binary(4)"]
    assert main(asked) == 1
    said = " ".join(capsys.readouterr().out.split())
    assert "[1] let the model return logits" in said and "the model returns logits now" in said and file.read_text() == TEXT
    assert main([*asked, "--apply"]) == 0
    text = file.read_text()
    assert "    return z\n" in text and "    return F.binary_cross_entropy_with_logits(p, t)\n" in text
    again = file.with_name("again.py")
    again.write_text(text)
    assert whynan.check(f"{again}:bce", model=f"{again}:model", x=X, y=whynan.binary(4)).verdict == "safe"


@pytest.mark.slow
def test_the_last_layer_of_a_network_goes(file: Path) -> None:
    best = whynan.fix(f"{file}:bce", model=f"{file}:net", x=whynan.real(4, 3, low=-900.0, high=900.0), y=whynan.binary(4, 1))[0]
    assert best.applicability == "verified" and "+net = nn.Sequential(nn.Linear(3, 1))\n" in best.patch
    assert "binary_cross_entropy_with_logits(p, t)" in best.patch


@pytest.mark.slow
def test_a_model_that_ends_in_nothing_known_is_left_alone(file: Path) -> None:
    file.write_text(TEXT.replace("return torch.sigmoid(z)", "return 0.5 * (1 + torch.tanh(z))"))
    found = whynan.fix(f"{file}:bce", model=f"{file}:model", x=X, y=whynan.binary(4))
    assert found and all("logits" not in f.title for f in found)
