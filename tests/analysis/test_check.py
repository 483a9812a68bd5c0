"""The whole check: verdicts and their reasons, what is covered, what is counted, and that it repeats itself."""

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import whynan
from whynan.domain import sample
from whynan.errors import TargetError
from whynan.frontends.torch import load

QUICK: dict[str, Any] = {}


def reasons(report: Any) -> str:
    return "\n".join(o.reason for o in report.undecided)


# ---------------------------------------------------------------- safe


def logsumexp_by_hand(x):
    m = x.amax(-1, keepdim=True)
    return (torch.log(torch.exp(x - m).sum(-1, keepdim=True)) + m).mean()


SAFE = {
    "mse": (lambda x, y: F.mse_loss(x, y), {"x": whynan.real(4), "y": whynan.real(4)}),
    "cross entropy": (lambda x, t: F.cross_entropy(x, t), {"x": whynan.logit(3, 5), "t": whynan.classes(5, 3)}),
    "bce with logits": (lambda x, t: F.binary_cross_entropy_with_logits(x, t), {"x": whynan.logit(4), "t": whynan.binary(4)}),
    "log of p + eps": (lambda p: -torch.log(p + 1e-7).mean(), {"p": whynan.prob(4)}),
    "log-sum-exp by hand": (logsumexp_by_hand, {"x": whynan.logit(2, 5)}),
    "double where": (
        lambda x: torch.where(x > 0, torch.sqrt(torch.where(x > 0, x, torch.ones_like(x))), torch.zeros_like(x)).sum(),
        {"x": whynan.real(4, low=-5, high=5)},
    ),
    "normalised": (lambda x: F.normalize(x, dim=-1).sum(), {"x": whynan.real(2, 4, low=-10, high=10)}),
    "one hot": (
        lambda x, t: -(F.one_hot(t, 5).float() * F.log_softmax(x, dim=-1)).sum(-1).mean(),
        {"x": whynan.logit(3, 5), "t": whynan.classes(5, 3)},
    ),
}


@pytest.mark.parametrize(("loss", "domains"), SAFE.values(), ids=SAFE)
def test_safe(loss: Callable[..., Any], domains: dict[str, Any]) -> None:
    report = whynan.check(loss, **domains)
    assert report.verdict == "safe", reasons(report)
    assert report.undecided == () and not [f for f in report.findings if f.kind == "non-finite"]
    assert report.sites["proven"] == report.sites["total"] > 0


def test_what_is_safe_stays_finite_on_inputs_at_the_edge() -> None:
    for loss, domains in SAFE.values():
        program = load(loss, "loss")
        wrt = tuple(n for n, d in domains.items() if d.grad)
        corners = {n: sample.corners(d) for n, d in domains.items()}
        for k in range(8):
            run = program.run({n: c[k % len(c)] for n, c in corners.items()}, wrt, "eager")
            assert np.isfinite(run.loss).all() and all(np.isfinite(g).all() for g in run.gradients.values())


# ---------------------------------------------------------------- looks at values


def guarded(x):
    if (x < 0).any():
        raise ValueError("negative")
    return torch.log(x + 1).sum()


def test_a_guard_that_the_domain_fulfils_does_not_matter() -> None:
    assert whynan.check(guarded, x=whynan.positive(4)).verdict == "safe"


def test_a_guard_that_the_domain_does_not_fulfil_leaves_it_undecided() -> None:
    report = whynan.check(guarded, x=whynan.real(4, low=-0.5, high=5), **QUICK)
    assert report.verdict == "undecided" and "another path" in reasons(report)


def test_an_item_that_is_only_compared_has_two_paths() -> None:
    def loss(x):
        return x.sum() if x.mean().item() > 0 else (x * 2).sum()

    assert whynan.check(loss, x=whynan.real(4, low=-5, high=5)).verdict == "safe"


def test_a_branch_on_an_item_leaves_it_undecided_and_says_where() -> None:
    def loss(x):
        mean = x.mean().item()
        return x.sum() if mean > 0 else (x * 2).sum()

    report = whynan.check(loss, x=whynan.real(4, low=-5, high=5), **QUICK)
    assert report.verdict == "undecided" and ".item()" in reasons(report)
    assert any(o.op == "path" for o in report.undecided)


def test_a_branch_on_a_shape_is_no_branch_on_values() -> None:
    def loss(x):
        return x.sum() if x.shape[0] > 2 else x.mean()

    assert whynan.check(loss, x=whynan.real(4, low=-5, high=5)).verdict == "safe"


def test_a_boolean_index_is_proven_for_each_number_of_elements() -> None:
    report = whynan.check(lambda x: x[x > 0].sum(), x=whynan.real(6, low=-5, high=5), **QUICK)
    assert report.verdict == "safe", reasons(report)


def test_a_constant_that_came_through_numpy_leaves_it_undecided() -> None:
    def loss(x):
        return (x * torch.from_numpy(x.detach().numpy() + 1)).sum()

    report = whynan.check(loss, x=whynan.real(4, low=-1, high=1), **QUICK)
    assert report.verdict == "undecided" and "changes with the input's values" in reasons(report)


def test_an_unknown_operation_leaves_it_undecided_and_is_named() -> None:
    report = whynan.check(lambda x: torch.linalg.matrix_exp(x).sum(), x=whynan.real(2, 2, low=-1, high=1), **QUICK)
    assert report.verdict == "undecided" and "matrix_exp" in reasons(report)
    assert report.search["evaluations"] > 0


# ---------------------------------------------------------------- unsafe


def naive_bce(p, t):
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


UNSAFE = {
    "bce": (naive_bce, {"p": whynan.prob(4), "t": whynan.binary(4)}),
    "norm in the divisor": (lambda x: (x / x.norm()).sum(), {"x": whynan.real(4)}),
    "exp": (lambda x: torch.exp(x).mean(), {"x": whynan.logit(4)}),
    "sqrt": (lambda x: torch.sqrt(x).sum(), {"x": whynan.nonnegative(4)}),
    "equal points": (lambda a, b: torch.sqrt(((a - b) ** 2).sum(-1)).mean(), {"a": whynan.real(2, 3), "b": whynan.real(2, 3)}),
    "half": (lambda x: (x.half() * 100).float().mean(), {"x": whynan.real(4)}),
    "where trap": (lambda x: torch.where(x > 0, torch.log(x), 0 * x).sum(), {"x": whynan.nonnegative(4)}),
    "empty mask": (lambda x, m: (x * m).sum() / m.sum(), {"x": whynan.real(4), "m": whynan.mask(4)}),
}


@pytest.mark.parametrize(("loss", "domains"), UNSAFE.values(), ids=UNSAFE)
def test_every_witness_fails_again_and_lies_in_its_domain(loss: Callable[..., Any], domains: dict[str, Any]) -> None:
    report = whynan.check(loss, **domains, **QUICK)
    assert report.verdict == "unsafe"
    errors = [f for f in report.findings if f.kind == "non-finite"]
    assert errors and all(f.severity == "error" for f in errors)
    for f in errors:
        again = f.witness.replay()
        outputs = [again.loss, *again.gradients.values()]
        assert not all(np.isfinite(v.astype(np.float64)).all() for v in outputs)
        assert (f.phase == "forward") == (not np.isfinite(again.loss).all())
        for name, d in domains.items():
            assert f.witness.inputs[name].dtype == d.format.numpy and sample.contains(d, f.witness.inputs[name])
        assert f.chain and f.message and f.modes == ("eager",)


@pytest.mark.parametrize(("loss", "domains"), UNSAFE.values(), ids=UNSAFE)
def test_sites_add_up(loss: Callable[..., Any], domains: dict[str, Any]) -> None:
    sites = whynan.check(loss, **domains, **QUICK).sites
    assert sites["proven"] + sites["refuted"] + sites["undecided"] == sites["total"]
    assert sites["refuted"] >= 1 and min(sites.values()) >= 0


def test_findings_are_numbered_errors_first_and_are_not_repeated() -> None:
    report = whynan.check(naive_bce, p=whynan.prob(4), t=whynan.binary(4), **QUICK)
    assert [f.id for f in report.findings] == [f"F{n}" for n in range(1, len(report.findings) + 1)]
    severities = [f.severity for f in report.findings]
    assert severities == sorted(severities, key=("error", "warning", "note").index)
    places = [(f.kind, f.cause, f.phase, f.site) for f in report.findings]
    assert len(set(places)) == len(places)
    assert {f.site.text for f in report.findings if f.kind == "non-finite"} >= {"torch.log(p)", "torch.log(1 - p)"}


# ---------------------------------------------------------------- the report


def test_the_report_says_what_was_checked() -> None:
    report = whynan.check(naive_bce, p=whynan.prob(4, dtype="float16"), t=whynan.binary(4), **QUICK)
    d = report.to_dict()
    assert d["schema"] == "whynan.report/1" and d["framework"] == "torch" and d["modes"] == ["eager"] and d["dtype"] == "float16"
    assert d["framework_version"] == torch.__version__
    p, t = d["domain"]["p"], d["domain"]["t"]
    assert (p["kind"], p["shape"], p["dtype"], p["low"], p["high"], p["assumed"]) == ("prob", [4], "float16", 0.0, 1.0, False)
    assert (t["kind"], t["dtype"]) == ("binary", "float32")
    assert d["search"]["evaluations"] > 0 and d["seconds"] >= d["search"]["seconds"] > 0


def test_what_was_inferred_is_marked_as_assumed() -> None:
    report = whynan.check(naive_bce, p=whynan.prob(4), **QUICK)
    assert not report.domain["p"].assumed and report.domain["t"].assumed


def test_a_target_has_no_gradient_unless_asked_for() -> None:
    def loss(pred, target):
        return (pred - target).square().mean()

    report = whynan.check(loss, pred=whynan.real(3), target=whynan.real(3))
    assert not report.domain["target"].grad and report.domain["pred"].grad


def test_a_vector_is_summed_and_that_is_noted() -> None:
    report = whynan.check(lambda x: x * 2, x=whynan.real(3))
    assert report.verdict == "safe" and any("sum" in n for n in report.notes)


@pytest.mark.parametrize("shape", [lambda x, y: (x.sum(), torch.log(y).sum()), lambda x, y: {"a": x.sum(), "b": torch.log(y).sum()}])
def test_all_parts_of_a_structured_result_are_checked(shape: Callable[..., Any]) -> None:
    report = whynan.check(shape, x=whynan.real(3), y=whynan.nonnegative(3), **QUICK)
    assert report.verdict == "unsafe" and report.notes


def test_gradients_of_a_modules_parameters_are_outputs() -> None:
    class Scale(torch.nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.weight = torch.nn.Parameter(torch.zeros(3))

        def forward(self, x):
            return (torch.sqrt(self.weight) * x).sum()

    report = whynan.check(Scale(), x=whynan.real(3, low=-1, high=1), **QUICK)
    assert report.verdict == "unsafe"
    (found,) = [f for f in report.findings if f.kind == "non-finite"]
    assert (found.cause, found.phase, found.site.text) == ("sqrt-grad-at-zero", "backward", "torch.sqrt(self.weight)")
    assert "weight" in found.witness.gradients


def test_a_loss_that_cannot_run_on_its_domain_says_so() -> None:
    with pytest.raises(TargetError, match=r"cannot be multiplied.* Give "):
        whynan.check(lambda x, y: (x @ y).sum(), x=whynan.real(2, 3), y=whynan.real(2, 3))


def test_random_numbers_are_noted() -> None:
    report = whynan.check(lambda x: F.dropout(x, 0.5).sum(), x=whynan.real(4, low=-1, high=1))
    assert report.verdict == "safe" and any("seed" in n for n in report.notes)


def test_explaining_one_input_says_that_nothing_else_was_looked_at() -> None:
    bad = whynan.explain(naive_bce, p=np.float32([0.0, 1.0]), t=np.float32([1.0, 1.0]))
    good = whynan.explain(naive_bce, p=np.float32([0.5, 0.5]), t=np.float32([1.0, 1.0]))
    assert bad.verdict == "unsafe" and bad.findings[0].cause == "log-of-zero"
    assert good.findings == () and any("one concrete input" in n for n in good.notes)


# ---------------------------------------------------------------- repeatability


def stable(report: Any) -> dict[str, Any]:
    """The report as data without the clock."""
    d = report.to_dict()
    d.pop("seconds")
    d["search"].pop("seconds")
    return d


AMPLE = {"budget": 30.0}  # the count of evaluations stops the search, not the clock


@pytest.mark.slow
@pytest.mark.parametrize("name", ["bce", "where trap", "empty mask"])
def test_the_same_seed_gives_the_same_report(name: str) -> None:
    loss, domains = UNSAFE[name]
    assert stable(whynan.check(loss, **domains, **AMPLE)) == stable(whynan.check(loss, **domains, **AMPLE))


LOSS = """
import torch
def loss(p, t):
    q = p.clamp(1e-8, 1 - 1e-8)
    return -(t * torch.log(q) + (1 - t) * torch.log(1 - q)).mean()
"""
CHECK = """
import json, sys, whynan
d = whynan.check(sys.argv[1], p=whynan.prob(4), t=whynan.binary(4), budget=30.0).to_dict()
d.pop("seconds"); d["search"].pop("seconds")
print(json.dumps(d, sort_keys=True))
"""


@pytest.mark.slow
def test_another_process_with_another_hash_seed_gives_the_same_report(tmp_path: Path) -> None:
    file = tmp_path / "losses.py"
    file.write_text(LOSS)
    target = f"{file}:loss"
    here = stable(whynan.check(target, p=whynan.prob(4), t=whynan.binary(4), **AMPLE))
    env = {**os.environ, "PYTHONHASHSEED": "12345", "PYTHONPATH": os.pathsep.join(p for p in sys.path if p)}
    done = subprocess.run([sys.executable, "-c", CHECK, target], env=env, capture_output=True, text=True, check=True, timeout=120)
    there = json.loads(done.stdout)
    assert there["verdict"] == "unsafe" and there == json.loads(json.dumps(here))
