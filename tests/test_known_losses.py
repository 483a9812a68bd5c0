"""Losses that nobody here wrote: all of PyTorch's own. Each is answered, and each witness fails again by its script."""

import inspect
import os
import subprocess
import sys

import pytest

import whynan

torch = pytest.importorskip("torch")

FUNCTIONS = sorted(n for n in dir(torch.nn.functional) if n.endswith(("_loss", "_entropy", "_with_logits", "kl_div")) and n[0] != "_")
SIZED = {"AdaptiveLogSoftmaxWithLoss": "(3, 12, [4, 8])", "LinearCrossEntropyLoss": "(3, 5)"}  # modules that need their sizes
MODULES = sorted(n for n, c in vars(torch.nn).items() if inspect.isclass(c) and n.endswith("Loss") and n not in SIZED)
MODULES += [n + size for n, size in SIZED.items() if hasattr(torch.nn, n)]

# what a person would say that the arguments are; only what matters for the answer
ASSUMED = {
    "binary_cross_entropy": {"input": "prob(4)", "target": "binary(4)"},
    "binary_cross_entropy_with_logits": {"input": "logit(4)", "target": "binary(4)"},
    "cross_entropy": {"input": "logit(4, 3)", "target": "classes(3, 4)"},
    "nll_loss": {"input": "real(4, 3, low=-100, high=0)", "target": "classes(3, 4)"},
    "kl_div": {"input": "real(4, low=-100, high=0)", "target": "prob(4)"},
    "mse_loss": {"input": "real(4)", "target": "real(4)"},
    "poisson_nll_loss": {"input": "logit(4)", "target": "nonnegative(4, high=100)"},
    "gaussian_nll_loss": {"input": "real(4)", "target": "real(4)", "var": "positive(4)"},
    "multi_margin_loss": {"input": "real(4, 3)", "target": "classes(3, 4)"},
    "multilabel_margin_loss": {"input": "real(4, 3)", "target": "integers(-1, 2, 4, 3)"},
    "multilabel_soft_margin_loss": {"input": "logit(4)", "target": "binary(4)"},
    "margin_ranking_loss": {"target": "real(4, low=-1, high=1)"},
    "ctc_loss": {"targets": "integers(1, 3, 2, 2)", "target_lengths": "integers(1, 2, 2)"},
}
FAIL = {"poisson_nll_loss", "soft_margin_loss", "PoissonNLLLoss", "SoftMarginLoss"}  # exp of an unbounded input, as documented
UNDECIDED = {
    *("cosine_embedding_loss", "triplet_margin_loss", "triplet_margin_with_distance_loss", "ctc_loss"),
    *("CosineEmbeddingLoss", "TripletMarginLoss", "TripletMarginWithDistanceLoss", "CTCLoss"),
}


def confirmed(finding, folder):
    """Whether the finding's script, run alone, fails where it must and does not where it must not."""
    file = folder / "again.py"
    file.write_text(finding.witness.script())
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False, env={**os.environ, "OMP_NUM_THREADS": "1"})
    return done.returncode == (1 if finding.kind == "non-finite" else 0)


def test_the_lists_are_not_empty():
    assert set(ASSUMED) <= set(FUNCTIONS)
    assert len(MODULES) >= 18


@pytest.mark.slow
@pytest.mark.parametrize("target", [*(f"torch.nn.functional:{n}" for n in FUNCTIONS), *(f"torch.nn:{n}" for n in MODULES)])
def test_it_is_answered(target, tmp_path):
    report = whynan.check(target)
    name = target.partition(":")[2]
    assert name in FAIL or report.verdict != "unsafe", str(report)
    assert name in UNDECIDED | FAIL or report.verdict == "safe", str(report)
    assert report.verdict != "undecided" or report.undecided
    shown = {n: str(d) for n, d in report.domain.items()}
    assert {n: shown[n] for n in ASSUMED.get(name, {})} == ASSUMED.get(name, {})
    assert all(d.assumed for d in report.domain.values() if d.value is None)
    assert [f.cause for f in report.findings if not confirmed(f, tmp_path)] == []
    assert all(len(line) <= 100 for line in str(report).splitlines())
