"""What names say, and the shapes and kinds that are tried in turn."""

import itertools

import numpy as np
import pytest

from whynan.domain import names, spec
from whynan.domain.names import of_array


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("logits", "logit"),
        ("pred_logits", "logit"),
        ("score", "logit"),
        ("logvar", "logscale"),
        ("log_var", "logscale"),
        ("log_sigma", "logscale"),
        ("logVar", "logscale"),
        ("log_probs", "logprob"),
        ("logp", "logprob"),
        ("p", "prob"),
        ("probs", "prob"),
        ("p1", "prob"),
        ("mask", "mask"),
        ("attn_mask", "mask"),
        ("sigma", "positive"),
        ("var", "positive"),
        ("temperature", "positive"),
        ("class_weight", "nonnegative"),
        ("mu", "real"),
        ("x", "real"),
        ("anchor", "real"),
        ("positive", "real"),
        ("y_pred", "real"),
    ],
)
def test_kinds(name, kind):
    assert names.kind_of(name) == kind


def test_a_loss_of_probabilities_takes_predictions_for_probabilities():
    assert names.kind_of("input", "binary_cross_entropy") == "prob"
    assert names.kind_of("y_pred", "dice_loss") == "prob"
    assert names.kind_of("input", "binary_cross_entropy_with_logits") == "logit"
    assert names.kind_of("input", "cross_entropy") == "logit"
    assert names.kind_of("input", "CrossEntropyLoss(reduction='sum')") == "logit"
    assert names.kind_of("input", "BCEWithLogitsLoss") == "logit"
    assert names.kind_of("input", "BCELoss") == "prob"
    assert names.kind_of("input", "mse_loss") == "real"


def test_targets():
    assert all(names.is_target(n) for n in ("y_true", "target", "targets", "t", "labels", "gt", "y", "yTrue", "depth_gt"))
    assert not any(names.is_target(n) for n in ("y_pred", "x", "p", "target_logits", "predicted_labels", "positive"))
    assert not names.is_target("y", ["x", "y"])


def test_targets_lose_their_gradient_unless_told():
    made = names.with_grad_by_name({"p": spec.prob(3), "t": spec.prob(3), "labels": spec.real(3, grad=True)})
    assert {n: d.grad for n, d in made.items()} == {"p": True, "t": False, "labels": True}


def first(wanted, given=None, function=""):
    return {n: str(d) for n, d in next(iter(names.candidates(wanted, given, function))).items()}


def test_first_candidates():
    assert first(["logits", "target"]) == {"logits": "logit(4, 3)", "target": "classes(3, 4)"}
    assert first(["anchor", "positive", "negative"]) == dict.fromkeys(["anchor", "positive", "negative"], "real(4, 3)")
    assert first(["x", "temperature"]) == {"x": "real(4)", "temperature": "positive()"}
    assert first(["mu", "logvar"]) == {"mu": "real(4)", "logvar": "logit(4)"}


@pytest.mark.parametrize(
    ("wanted", "function", "expected"),
    [
        (["input", "target"], "kl_div", ("real(4, low=-100, high=0)", "prob(4)")),
        (["input", "target"], "nll_loss", ("real(4, 3, low=-100, high=0)", "classes(3, 4)")),
        (["input", "target"], "gaussian_nll_loss", ("real(4)", "real(4)")),
        (["input1", "input2", "target"], "cosine_embedding_loss", ("real(4, 3)", "real(4, 3)", "real(4, low=-1, high=1)")),
        (["input", "target"], "mse_loss", ("real(8, 1)", "real(8, 1)")),
    ],
)
def test_the_functions_name_counts(wanted, function, expected):
    assert expected in [tuple(str(d) for d in c.values()) for c in names.candidates(wanted, function=function)]


@pytest.mark.parametrize(
    ("wanted", "function", "expected"),
    [
        (["predictions", "targets"], "cosine_similarity", {"predictions": "real(4)", "targets": "real(4)"}),
        (["logits", "labels"], "ranking_softmax_loss", {"logits": "logit(4)", "labels": "binary(4)"}),
        (["outputs", "targets"], "perceptron_loss", {"outputs": "real(4)", "targets": "real(4, low=-1, high=1)"}),
        (["logits", "labels"], "softmax_cross_entropy", {"logits": "logit(4, 3)", "labels": "onehot(4, 3)"}),
        (["logits", "labels"], "sigmoid_cross_entropy", {"logits": "logit(4)", "labels": "binary(4)"}),
        (["predictions", "targets"], "multiclass_dice_loss softmax", {"predictions": "logit(4, 3)", "targets": "onehot(4, 3)"}),
    ],
)
def test_targets_of_the_inputs_shape_by_the_functions_name(wanted, function, expected):
    """The first candidate without class numbers: a loss that takes none refuses those before."""
    made = ({n: str(d) for n, d in c.items()} for c in names.candidates(wanted, function=function))
    assert next(m for m in made if not any("classes" in d for d in m.values())) == expected


def test_the_logarithm_of_a_rate_has_no_upper_end():
    assert names.kind_of("log_input", "log_poisson_loss") == "logit"
    assert names.kind_of("log_input", "kl_div") == "logprob"


def test_alignments_without_lengths():
    assert first(["y_true", "y_pred"], function="CTC") == {"y_true": "integers(1, 3, 2, 2)", "y_pred": "logit(2, 5, 4)"}


def test_p_and_q_beside_predictions_are_powers():
    made = next(iter(names.candidates(["y_true", "y_pred", "q"], function="categorical_generalized_cross_entropy")))
    assert (made["q"].shape, made["q"].kind, made["q"].grad, made["q"].assumed) == ((), "positive", False, True)
    assert first(["p", "q"]) == {"p": "prob(4)", "q": "prob(4)"}
    assert first(["p", "t"])["p"] != "positive(high=1, grad=False)"


def test_one_column_has_no_classes():
    assert not [c for c in names.candidates(["input", "target"]) if c["input"].shape == (8, 1) and c["target"].kind == "classes"]


def made_of(wanted, given=None):
    return [tuple(str(d) for d in c.values()) for c in names.candidates(wanted, given)]


def test_later_candidates_hold_the_other_readings():
    made = made_of(["p", "t"])
    assert {("prob(4)", "binary(4)"), ("prob(4, 3)", "binary(4, 3)"), ("prob()", "binary()")} <= set(made)
    assert ("prob(2, 3, 8, 8)", "classes(3, 2, 8, 8)") in made
    assert ("real(4)", "real(4)") in made_of(["pred", "target"])
    assert ("real(4)", "mask(4)") in made_of(["x", "mask"])
    assert ("real(4)", "binary(4)") in made_of(["x", "mask"])


def test_given_domains_stay_and_lead():
    made = next(iter(names.candidates(["logits", "target"], {"logits": spec.logit(5, 7, low=-3, high=3)})))
    assert str(made["logits"]) == "logit(5, 7, low=-3, high=3)"
    assert str(made["target"]) == "classes(7, 5)"
    assert (made["logits"].assumed, made["target"].assumed) == (False, True)
    scores = next(iter(names.candidates(["scores", "labels"], {"labels": spec.classes(4, 6)})))
    assert str(scores["scores"]) == "logit(6, 4)"


def test_nothing_to_infer_is_one_candidate():
    given = {"p": spec.prob(3), "t": spec.binary(3)}
    assert [{n: str(d) for n, d in c.items()} for c in names.candidates(["p", "t"], given)] == [{"p": "prob(3)", "t": "binary(3)"}]


@pytest.mark.parametrize("wanted", [["p", "t", "mask"], ["y_true", "y_pred"], ["a", "b", "y"], []])
def test_candidates_are_few_and_distinct(wanted):
    made = made_of(wanted)
    assert len(made) == len(set(made)) <= 70
    assert made


@pytest.mark.parametrize(
    ("name", "value", "meant"),
    [
        ("p", np.float32([0.2, 1.0]), "prob(2)"),
        ("x", np.float32([0.2, 1.0]), "real(2)"),
        ("x", np.float64([0.2, 3e5]), "real(2, low=-300000, high=300000, dtype='float64')"),
        ("logits", np.float32([2, -300]), "logit(2, low=-300, high=300)"),
        ("t", np.float32([0, 1]), "binary(2)"),
        ("t", np.float32([0, 0.5]), "real(2)"),
        ("labels", np.int64([0, 4]), "classes(5, 2)"),
        ("count", np.int32([2, 4]), "integers(2, 4, 2, dtype='int32')"),
        ("mask", np.array([True]), "mask(1)"),
        ("sigma", np.float32([0.5]), "positive(1)"),
        ("x", np.float32([np.nan]), "const([nan])"),
    ],
)
def test_arrays_by_name_and_value(name, value, meant):
    assert str(of_array(value, name)) == meant


def test_array_domains_hold_the_array():
    from whynan.domain.sample import contains

    rng = np.random.default_rng(0)
    scales = (1e-3, 1.0, 1e3, 1e6)
    for name, scale in itertools.product(("p", "t", "x", "logits", "var", "logp", "mask", "weight", "attn"), scales):
        array = (scale * rng.normal(size=(3, 4))).astype(np.float32)
        assert contains(of_array(array, name), array), name
        assert contains(of_array(np.abs(array), name), np.abs(array)), name
