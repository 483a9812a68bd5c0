"""The attack finds a false proof where there is one, and none on proofs that lean on the prover's finer facts."""

from typing import Any

import pytest

torch = pytest.importorskip("torch")

from tests.soundness.adversarial.attack import attack, confirmed, judge  # noqa: E402
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
