"""whynan.fix end to end: naive losses in PyTorch, on disk and in memory, by Python and by the command line."""

import json
import stat
import sys
from pathlib import Path

import numpy as np
import pytest

import whynan
from whynan.cli import main
from whynan.errors import TargetError

pytest.importorskip("torch")
pytest.importorskip("egglog")

LOSSES = '''"""Losses."""

import torch
import torch.nn.functional as F


def bce(x, t):
    """By hand."""
    p = torch.sigmoid(x)
    # the loss
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


def distance(a, b):
    return torch.sqrt(((a - b) ** 2).sum(-1)).mean()


def share(x, y):
    return (x / y).mean()


def fine(a, b):
    return ((a - b) ** 2).mean()


class Scaled(torch.nn.Module):
    def __init__(self, scale=2.0):
        super().__init__()
        self.scale = scale

    def forward(self, x):
        return self.scale * torch.log(torch.sigmoid(x)).mean()
'''

DOMAINS = {
    "bce": {"x": whynan.logit(4, low=-200.0, high=200.0), "t": whynan.binary(4)},
    "distance": {"a": whynan.real(3, 2, high=10.0, low=-10.0), "b": whynan.real(3, 2, high=10.0, low=-10.0)},
    "share": {"x": whynan.real(3, low=1.0, high=2.0), "y": whynan.real(3, low=0.0, high=2.0)},
    "fine": {"a": whynan.real(3, high=10.0), "b": whynan.real(3, high=10.0)},
    "Scaled": {"x": whynan.logit(4, low=-200.0, high=200.0)},
}


@pytest.fixture
def file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    path = tmp_path / "losses.py"
    path.write_text(LOSSES)
    return path


def fixes(file: Path, name: str) -> list[whynan.Fix]:
    return whynan.fix(f"{file}:{name}", domains=DOMAINS[name])


def same_value(file: Path, changed: Path, name: str, **inputs: np.ndarray) -> None:
    import torch

    from whynan.target import load_target

    tensors = {n: torch.tensor(v) for n, v in inputs.items()}
    old, new = (load_target(f"{f}:{name}").callable(**tensors) for f in (file, changed))
    assert torch.allclose(old, new, rtol=1e-5)


@pytest.mark.parametrize("name", ["bce", "distance", "Scaled"])
def test_a_naive_loss_gets_a_verified_fix(file: Path, tmp_path: Path, name: str) -> None:
    found = fixes(file, name)
    best = found[0]
    assert best.applicability == "verified" and best.evidence.verdict == "safe"
    assert best.patch.startswith("--- a/losses.py\n+++ b/losses.py\n@@")
    assert file.read_text() == LOSSES  # nothing is written until asked
    best.apply()
    assert whynan.check(f"{file}:{name}", domains=DOMAINS[name]).verdict == "safe"
    changed, original = tmp_path / "changed.py", tmp_path / "original.py"
    changed.write_text(file.read_text())
    original.write_text(LOSSES)
    rng = np.random.default_rng(0)
    shapes = {n: d.shape for n, d in DOMAINS[name].items()}
    inputs = {n: np.float32(rng.uniform(0, 1, s)) for n, s in shapes.items()}
    same_value(original, changed, name, **inputs)


def test_the_whole_entropy_is_written_by_the_built_in(file: Path) -> None:
    best = fixes(file, "bce")[0]
    assert "binary_cross_entropy_with_logits" in best.patch or "softplus" in best.patch or "logsigmoid" in best.patch
    assert "# the loss" in best.patch


def test_where_the_value_must_change_it_is_said_how_much(file: Path) -> None:
    for fix in fixes(file, "share"):
        said = fix.evidence.changed
        if fix.applicability == "needs-review":
            assert "at most from" in said or fix.evidence.verdict == "undecided"
        else:
            assert not said or "only where the original fails" in said or "on none of" in said


def test_probabilities_of_a_model_call_for_logits(file: Path) -> None:
    file.write_text("import torch\n\n\ndef nll(p):\n    return -torch.log(p).mean()\n")
    found = whynan.fix(f"{file}:nll", p=whynan.prob(4))
    assert found[-1].applicability == "advice" and "logits" in found[-1].title and not found[-1].patch
    assert found[0].applicability != "advice"


def test_a_patched_source_is_never_unsafe(file: Path) -> None:
    for fix in fixes(file, "share"):
        file.write_text(LOSSES)
        fix.apply()
        assert whynan.check(f"{file}:share", domains=DOMAINS["share"]).verdict != "unsafe"


def test_a_safe_loss_has_nothing_to_fix(file: Path) -> None:
    assert fixes(file, "fine") == []


def test_a_loss_without_a_file_gets_no_patch() -> None:
    import torch

    names: dict[str, object] = {"torch": torch}
    exec("def loss(x):\n    return torch.log(x).mean()\n", names)
    found = whynan.fix(names["loss"], x=whynan.prob(3))
    assert [f.applicability for f in found] == ["advice"] and not found[0].changes and found[0].patch.startswith("import torch\n")


def test_in_memory(file: Path) -> None:
    from whynan.target import load_target

    loaded = load_target(f"{file}:distance").callable
    found = whynan.fix(loaded, **DOMAINS["distance"])
    assert found[0].applicability == "verified" and str(file).lstrip("/") in found[0].patch.replace("a/losses.py", str(file).lstrip("/"))


def test_a_clamp_that_acts_before_the_original_fails_is_not_verified(file: Path) -> None:
    file.write_text("import torch\n\n\ndef growth(x):\n    return torch.exp(x).mean()\n")
    for fix in whynan.fix(f"{file}:growth", x=whynan.real(4)):
        assert "clamp" not in fix.patch or fix.applicability == "needs-review", str(fix)


def test_a_planted_wrong_change_is_not_verified(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A proposal that is finite but has another value, called equivalent by a wrong rule, is found out by the comparison."""
    from whynan.fixes import Proposal
    from whynan.fixing import candidates
    from whynan.ir.term import at as part
    from whynan.ir.term import put, term

    def wrong(whole, at, *_):
        bad = term("tanh", *part(whole, at).args)
        return [Proposal(put(whole, at, bad), "a wrong rule", "equivalent")]

    monkeypatch.setattr(candidates, "propose", wrong)
    found = fixes(file, "Scaled")
    assert found and all(f.applicability == "needs-review" and "the value changes on" in f.evidence.changed for f in found)


def test_the_same_loss_gets_the_same_fixes(file: Path) -> None:
    assert [f.patch for f in fixes(file, "distance")] == [f.patch for f in fixes(file, "distance")]


# ---------------------------------------------------------------- the command line


ARGUMENTS = ["-d", "a=real(3, 2, low=-10, high=10)", "-d", "b=real(3, 2, low=-10, high=10)"]


def test_the_command_shows_and_applies(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file.chmod(0o640)
    assert main(["fix", "losses.py:distance", *ARGUMENTS]) == 1
    shown = capsys.readouterr().out
    assert "[1] " in shown and "verified" in shown and "+++ b/losses.py" in shown and file.read_text() == LOSSES
    assert main(["fix", "losses.py:distance", *ARGUMENTS, "--apply"]) == 0
    assert "fix 1 is written" in capsys.readouterr().err
    assert file.read_text() != LOSSES and stat.S_IMODE(file.stat().st_mode) == 0o640
    assert main(["fix", "losses.py:distance", *ARGUMENTS]) == 0
    assert "nothing to fix" in capsys.readouterr().out


def test_json_holds_the_fixes(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", "losses.py:distance", *ARGUMENTS, "--format", "json"]) == 1
    data = json.loads(capsys.readouterr().out)
    fix = data["findings"][0]["fixes"][0]
    assert set(fix) == {"title", "applicability", "patch", "evidence"} and fix["evidence"]["verdict"] == "safe"


def test_a_number_that_there_is_not(file: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["fix", "losses.py:distance", *ARGUMENTS, "--apply", "99"]) == 2
    assert "there is no fix 99" in capsys.readouterr().err and file.read_text() == LOSSES


def test_without_the_package_it_says_what_to_install(file: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file.write_text("import torch\n\n\ndef unseen(x):\n    return torch.log(x * 0.375 + x / 7).sum()\n")
    monkeypatch.setitem(sys.modules, "egglog.bindings", None)
    with pytest.raises(whynan.WhynanError, match=r"pip install '?whynan\[fix\]"):
        whynan.fix(f"{file}:unseen", x=whynan.prob(3))


def test_what_cannot_be_checked_cannot_be_fixed() -> None:
    with pytest.raises(TargetError):
        whynan.fix(3)


def test_a_sign_on_both_sides_goes_and_the_mean_becomes_the_built_ins_own(file: Path) -> None:
    text = "import torch\nimport torch.nn.functional as F\n\n\ndef loss(x, t):\n    p = torch.sigmoid(x)\n"
    file.write_text(text + "    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()\n")
    best = whynan.fix(f"{file}:loss", x=whynan.logit(4), t=whynan.binary(4))[0]
    assert best.applicability == "verified"
    assert "+    return F.binary_cross_entropy_with_logits(x, t)\n" in best.patch


def test_without_egglog_one_line_says_what_to_install(
    file: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "egglog", None)
    monkeypatch.setitem(sys.modules, "egglog.bindings", None)
    code = main(["fix", f"{file}:distance", "-d", "a=real(3, 2)", "-d", "b=real(3, 2)"])
    said = capsys.readouterr().err.strip()
    assert code == 2 and "pip install whynan[fix]" in said and "\n" not in said and "Traceback" not in said
