"""The README's quick start is what the program prints."""

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from whynan import cli

pytest.importorskip("torch")

README = (Path(__file__).parents[1] / "README.md").read_text(encoding="utf-8")
BLOCKS = re.findall(r"```(\w*)\n(.*?)```", README, re.DOTALL)
LOSSES = "\n\n".join(text for kind, text in BLOCKS if kind == "python" and re.search(r"^import torch\n\n|def bce_from_logits", text))
TRAINING = next(text for kind, text in BLOCKS if kind == "python" and "whynan.watch(" in text)
JAX_LOSSES = next(text for kind, text in BLOCKS if kind == "python" and "jax.numpy" in text)


def shown_after(command):
    texts = [text for _, text in BLOCKS]
    return texts[texts.index(command + "\n") + 1]


def without_time(line):
    return re.sub(r"(torch|jax) \S+ |[\d.]+ s$", "", line)


@pytest.mark.parametrize("target", ["losses.py:bce", "losses.py:bce_from_logits", "jax_losses.py:bce"])
def test_the_output_shown_is_the_output(target, tmp_path, monkeypatch, capsys):
    if target.startswith("jax"):
        pytest.importorskip("jax")
    command = next(text.strip() for _, text in BLOCKS if text.startswith(f"whynan check {target} -d"))
    (tmp_path / "losses.py").write_text(LOSSES)
    (tmp_path / "jax_losses.py").write_text(JAX_LOSSES)
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("COLUMNS", raising=False)  # a test runner's worker may have the width of its own terminal
    cli.main([part.strip('"') for part in re.findall(r'"[^"]*"|\S+', command)][1:])
    printed = [without_time(line) for line in capsys.readouterr().out.splitlines()]
    shown = [without_time(line) for line in shown_after(command).splitlines()]
    assert printed[: len(shown)] == shown


@pytest.mark.slow
def test_the_incident_shown_is_what_the_watched_run_says(tmp_path):
    (tmp_path / "losses.py").write_text(LOSSES)
    (tmp_path / "train.py").write_text(TRAINING)
    place = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[1] / "src"), "COLUMNS": "100"}
    run = subprocess.run([sys.executable, "-W", "ignore", "train.py"], cwd=tmp_path, env=place, capture_output=True, text=True, check=False)
    assert run.returncode == 1
    shown = [line for line in shown_after("python train.py").splitlines() if "PyTorch" not in line]
    printed = [line.removeprefix("whynan.errors.NonFiniteError: ") for line in run.stderr.splitlines() if "PyTorch" not in line]
    assert printed[printed.index(shown[0]) :][: len(shown)] == shown
