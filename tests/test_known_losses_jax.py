"""Losses that nobody here wrote: all of optax. Each is answered, and each witness fails again in `jit`, the mode that runs."""

import inspect
from dataclasses import replace

import numpy as np
import pytest
from tests.known_losses import assert_answered, fails_again, script_agrees

import whynan

losses = pytest.importorskip("optax").losses

MAKERS = ("make_fenchel_young_loss",)  # returns a loss
FUNCTIONS = sorted(n for n, f in vars(losses).items() if inspect.isroutine(inspect.unwrap(f)) and n[0] != "_" and n not in MAKERS)

_CLASSES, _ROWS, _LOGITS = "classes(3, 4)", "onehot(4, 3)", "logit(4, 3)"
_LOGARITHMS = "real(4, low=-100, high=0)"
# what a person would say that the arguments are; only what matters for the answer
ASSUMED = {
    "sigmoid_binary_cross_entropy": {"logits": "logit(4)", "labels": "binary(4)"},
    "sigmoid_focal_loss": {"logits": "logit(4)", "labels": "binary(4)"},
    "softmax_cross_entropy": {"logits": _LOGITS, "labels": _ROWS},
    "safe_softmax_cross_entropy": {"logits": _LOGITS, "labels": _ROWS},
    "poly_loss_cross_entropy": {"logits": _LOGITS, "labels": _ROWS},
    "softmax_cross_entropy_with_integer_labels": {"logits": _LOGITS, "labels": _CLASSES},
    "multiclass_hinge_loss": {"scores": _LOGITS, "labels": _CLASSES},
    "multiclass_perceptron_loss": {"scores": _LOGITS, "labels": _CLASSES},
    "multiclass_sparsemax_loss": {"scores": _LOGITS, "labels": _CLASSES},
    "multiclass_generalized_dice_loss": {"predictions": _LOGITS, "targets": _ROWS},
    "hinge_loss": {"predictor_outputs": "real(4)", "targets": "real(4, low=-1, high=1)"},
    "perceptron_loss": {"predictor_outputs": "real(4)", "targets": "real(4, low=-1, high=1)"},
    "ranking_softmax_loss": {"logits": "logit(4)", "labels": "binary(4)"},
    "kl_divergence": {"log_predictions": _LOGARITHMS, "targets": "prob(4)"},
    "convex_kl_divergence": {"log_predictions": _LOGARITHMS, "targets": "prob(4)"},
    "kl_divergence_with_log_targets": {"log_predictions": _LOGARITHMS, "log_targets": _LOGARITHMS},
    "cosine_distance": {"predictions": "real(4)", "targets": "real(4)"},
    "cosine_similarity": {"predictions": "real(4)", "targets": "real(4)"},
    "squared_error": {"predictions": "real(4)"},
    "ntxent": {"embeddings": "real(4, 3)", "labels": _CLASSES},
    "triplet_margin_loss": {"anchors": "real(4, 3)", "positives": "real(4, 3)", "negatives": "real(4, 3)"},
    "ctc_loss": {
        "logits": "logit(2, 5, 4)",
        "logit_paddings": "binary(2, 5)",
        "labels": "integers(1, 3, 2, 2)",
        "label_paddings": "binary(2, 2)",
    },
}
FAIL = {"cosine_distance", "cosine_similarity"}  # epsilon is 0 unless told: 0/0 by a zero vector, and one whose square is 0
UNDECIDED = {
    *("dice_loss", "multiclass_generalized_dice_loss"),  # the union is above 0 as the intersection is no larger than either sum
    "multiclass_sparsemax_loss",  # the number of classes in the support is at least 1: the largest score always counts
    "ntxent",  # similarities of other classes are masked by -inf and by the number of positives
    "sigmoid_focal_loss",  # of log p and log(1 - p), weighted by 1 - y and y, one weight is not 0
}

BENIGN = {"predictions": np.ones(4, np.float32), "targets": np.ones(4, np.float32)}


def test_the_lists_are_not_empty():
    assert {*ASSUMED, *FAIL, *UNDECIDED} <= {*FUNCTIONS}
    assert len(FUNCTIONS) >= 30


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_answered(name):
    report = whynan.check(f"optax.losses:{name}", framework="jax")
    assert_answered(report, name, FAIL, UNDECIDED, ASSUMED.get(name, {}))


@pytest.mark.slow
def test_a_maker_of_losses_is_no_loss_but_makes_them():
    with pytest.raises(whynan.TargetError, match="returned a function"):
        whynan.check("optax.losses:make_fenchel_young_loss", framework="jax")
    made = "optax.losses:make_fenchel_young_loss(__import__('jax').nn.logsumexp)"
    report = whynan.check(made, framework="jax", scores="logit(3)", targets="onehot(3)")
    assert_answered(report, "made", (), (), {})


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(FAIL))
def test_scripts_agree(name, tmp_path):
    report = whynan.check(f"optax.losses:{name}", framework="jax")
    assert [f.cause for f in report.findings if not script_agrees(f, tmp_path)] == []


@pytest.mark.slow
def test_the_tester_finds_a_finding_that_does_not_hold():
    finding = whynan.check("optax.losses:cosine_distance", framework="jax").findings[0]
    assert fails_again(finding)
    assert not fails_again(replace(finding, kind="exploding-gradient"))  # which a run is that is finite
    assert not fails_again(replace(finding, witness=replace(finding.witness, runner=lambda _: finding.witness.runner(BENIGN))))
