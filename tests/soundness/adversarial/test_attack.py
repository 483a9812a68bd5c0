"""The attack finds a false proof where there is one, and none on proofs that lean on the prover's finer facts."""

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.soundness.adversarial.__main__ import main  # noqa: E402
from tests.soundness.adversarial.attack import ROWS, attack, confirmed, judge  # noqa: E402
from tests.soundness.adversarial.collection import cases  # noqa: E402

import whynan  # noqa: E402
from whynan import real  # noqa: E402
from whynan.frontends.torch import load  # noqa: E402

CASES = {case.name: case for case in cases()}

# proven only by a relation, an attained value, a coupled box or a mask: where an unsound rule would show first
LEANING = [
    ("masking.minmax_log", "float32"),
    ("masking.ratio_to_max_abs", "float32"),
    ("masking.logsumexp_shifted", "bfloat16"),
    ("masking.softmax_by_hand", "float16"),
    ("metric.triplet_builtin", "float16"),
    ("metric.contrastive", "float32"),
    ("metric.normalize_sqrt_tight_nograd", "float32"),
    ("metric.cosine_by_hand_eps", "float32"),
    ("tricky.layer_norm", "bfloat16"),
    ("tricky.batch_norm", "float32"),
    ("tricky.tiny_norm_where", "float16"),
    ("tricky.mixed_add", "float32"),
    ("tricky.spread_about_the_median", "float32"),
    ("tricky.steps_of_a_running_maximum", "float32"),
    ("tricky.scale_invariant_log", "float32"),
]
# the same facts one step further, where they break: rounding in a narrower format, the wrong axis, an underflow
BREAKING = [
    ("tricky.mixed_norm", "float16"),
    ("tricky.mixed_norm_sqrt", "float16"),
    ("tricky.mixed_sum", "float16"),
    ("tricky.mixed_add", "float16"),
    ("tricky.mixed_sqrt", "float16"),
    ("tricky.shift_by_wrong_axis_square", "float32"),
    ("tricky.tiny_norm", "float32"),
    ("tricky.nan_in_maximum", "float32"),
    ("tricky.mutated_alias", "float32"),
]


@pytest.mark.parametrize(("name", "dtype"), LEANING)
def test_a_proof_withstands_the_attack(name: str, dtype: str) -> None:
    result = judge(name, CASES[name].loss, CASES[name].domains, dtype, runs=600, seconds=2)
    assert result.verdict == "safe"
    assert result.attacked is not None and not result.attacked.failures


@pytest.mark.parametrize(("name", "dtype"), BREAKING)
def test_a_fact_is_not_used_where_it_breaks(name: str, dtype: str) -> None:
    result = judge(name, CASES[name].loss, CASES[name].domains, dtype, runs=0)
    assert result.verdict == "unsafe"
    assert confirmed(result, CASES[name].loss)


def rare(x: Any) -> Any:
    return (1 / (x - 0.3)).mean()


def of_rows(x: Any) -> Any:
    return torch.log((x - x[:, :1] * 3).abs().sum(-1)).mean()


@pytest.mark.parametrize("loss", [rare, of_rows])
def test_the_attack_finds_what_a_false_proof_would_hide(loss: Any) -> None:
    domain = real(4, 3, low=-10, high=10)
    assert attack(loss, {"x": domain}, runs=2000, seconds=10).failures


def test_an_attack_stays_inside_the_domain() -> None:
    found = attack(rare, {"x": real(4, 3, low=0.5, high=1)}, runs=500, seconds=5)
    assert found.runs >= 500
    assert not found.failures


def test_only_a_loss_that_works_row_by_row_is_run_on_many_rows_at_once() -> None:
    heights: list[int] = []

    def mean(x: Any) -> Any:
        heights.append(len(x))
        return x.square().mean()

    def pairs(x: Any) -> Any:
        heights.append(len(x))
        return torch.cdist(x, x.detach()).square().mean()

    for loss, tallest in ((mean, 4 * ROWS), (pairs, 8)):
        heights.clear()
        found = attack(loss, {"x": real(4, 3, low=-10, high=10)}, runs=300)
        assert max(heights) == tallest
        assert found.runs >= 300 and not found.failures


def test_a_run_that_raises_is_no_evaluation() -> None:
    def choosy(x: Any) -> Any:
        if x[0] > 0:
            raise ValueError
        return x.sum()

    found = attack(choosy, {"x": real(2, low=-10, high=10)}, runs=100)
    assert found.raised and found.runs >= 100
    assert not attack(lambda x: x.missing, {"x": real(2)}, runs=100).runs


CASE = """
import torch

INPUTS = {{"x": dict(shape=(4,), dtype="float32", low=-1, high=1, kind="any", requires_grad=True)}}
CULPRIT = {culprit}


def loss(x):
    return torch.log(x - 1.5).mean()


def fixed_loss(x):
    return {fixed}
"""


def test_a_false_proof_in_a_folder_of_cases_falls(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    checked = []

    def credulous(loss: Any, *, domains: Any, name: str, **options: Any) -> Any:
        checked.append(name.rpartition("/")[2])
        return SimpleNamespace(verdict="safe", domain=domains, undecided=(), findings=())

    (tmp_path / "true.py").write_text(CASE.format(culprit="dict(line=1)", fixed="x.square().mean()"))
    (tmp_path / "false.py").write_text(CASE.format(culprit="dict(line=1)", fixed="(1 / (x - 0.5)).mean()"))
    (tmp_path / "helper.py").write_text("loss = 1\n")
    monkeypatch.setattr(whynan, "check", credulous)
    command = ["--corpus", str(tmp_path), "--runs", "500", "--answers", str(tmp_path / "answers.jsonl")]
    assert main(command) == 1
    said = capsys.readouterr().out
    assert checked == ["false.fixed_loss", "true.fixed_loss"]
    assert "FALSE PROOF" in said and "[1/1: 2 of 2, 0 min left]" in said
    assert "2 safe: 1 of 2 proofs met 500 evaluations or more" in said and "1 false proofs: " in said
    assert main(command) == 1 and len(checked) == 2
    assert "FALSE PROOF" not in capsys.readouterr().out


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: torch.nn.functional.layer_norm(x, (3,)).square().mean(),
        lambda x: torch.nn.functional.batch_norm(x, None, None, training=True).square().mean(),
        lambda x: torch.nn.functional.group_norm(x[..., None], 3).square().mean(),
    ],
    ids=["layer", "batch", "group"],
)
def test_gradients_that_a_mask_leaves_out_do_not_make_a_normalisation_unknown(loss: Any) -> None:
    x = torch.randn(4, 3).numpy()
    graph = load(loss, "normalised").capture({"x": x}, ("x",)).graph
    assert not [n.op for n in graph.nodes if n.op.startswith("unknown")]
    assert whynan.check(loss, x=real(4, 3, low=-10, high=10)).verdict == "safe"
