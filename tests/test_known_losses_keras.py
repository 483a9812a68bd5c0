"""Losses that nobody here wrote: all of Keras, on TensorFlow. Each is answered, and each witness fails again.

Classes are checked in both default modes, eager and function; the functions that they call in `function` only, which is the quicker.
"""

import inspect

import pytest
from tests.known_losses import assert_answered, script_agrees

import whynan

keras = pytest.importorskip("keras")
if keras.backend.backend() != "tensorflow":
    pytest.skip("Keras runs on another framework here", allow_module_level=True)

NO_LOSS = {"Loss", "get", "serialize", "deserialize"}
NAMES = sorted(n for n in dir(keras.losses) if n not in NO_LOSS and n[0] != "_" and not inspect.ismodule(getattr(keras.losses, n)))
CLASSES = [n for n in NAMES if inspect.isclass(getattr(keras.losses, n))]
FUNCTIONS = [n for n in NAMES if n not in CLASSES]

_PROBABILITIES = {"y_true": "binary(4)", "y_pred": "prob(4)"}
_ROWS = {"y_true": "onehot(4, 3)", "y_pred": "simplex(4, 3)"}
_NUMBERED = {"y_true": "classes(3, 4)", "y_pred": "simplex(4, 3)"}
_REAL = {"y_true": "real(4)", "y_pred": "real(4)"}
_COUNTS = {"y_true": "nonnegative(4, high=100)", "y_pred": "nonnegative(4, high=100)"}
_HINGED = {"y_true": "onehot(4, 3)", "y_pred": "real(4, 3)"}
_EMBEDDED = {"y_true": "classes(3, 4)", "y_pred": "real(4, 3)"}
_DISTRIBUTIONS = {"y_true": "prob(4)", "y_pred": "prob(4)"}
_SIGNS = {"y_true": "real(4, low=-1, high=1)", "y_pred": "real(4)"}
_LABELS = {"y_true": "integers(1, 3, 2, 2)", "y_pred": "logit(2, 5, 4)"}  # 0 is the blank
# what a person would say that the arguments are; only what matters for the answer
ASSUMED = {
    **dict.fromkeys(("BinaryCrossentropy", "BinaryFocalCrossentropy", "binary_crossentropy", "binary_focal_crossentropy"), _PROBABILITIES),
    **dict.fromkeys(("Dice", "Tversky", "dice", "tversky"), _PROBABILITIES),
    **dict.fromkeys(("CategoricalCrossentropy", "CategoricalFocalCrossentropy", "categorical_crossentropy"), _ROWS),
    **dict.fromkeys(("SparseCategoricalCrossentropy", "sparse_categorical_crossentropy", "CategoricalGeneralizedCrossEntropy"), _NUMBERED),
    "categorical_generalized_cross_entropy": {**_NUMBERED, "q": "positive(high=1, grad=False)"},
    **dict.fromkeys(("MeanSquaredError", "mean_squared_error", "LogCosh", "Huber", "CosineSimilarity", "cosine_similarity"), _REAL),
    **dict.fromkeys(("Poisson", "poisson"), _COUNTS),
    **dict.fromkeys(("Hinge", "hinge", "SquaredHinge", "squared_hinge"), _SIGNS),
    **dict.fromkeys(("CategoricalHinge", "categorical_hinge"), _HINGED),
    **dict.fromkeys(("KLDivergence", "kl_divergence"), _DISTRIBUTIONS),
    **dict.fromkeys(("Circle", "circle"), _EMBEDDED),
    **dict.fromkeys(("CTC", "ctc"), _LABELS),
    "BinaryCrossentropy(from_logits=True)": {"y_true": "binary(4)", "y_pred": "logit(4)"},
    "BinaryFocalCrossentropy(from_logits=True)": {"y_true": "binary(4)", "y_pred": "logit(4)"},
    "CategoricalCrossentropy(from_logits=True)": {"y_true": "onehot(4, 3)", "y_pred": "logit(4, 3)"},
    "SparseCategoricalCrossentropy(from_logits=True)": {"y_true": "classes(3, 4)", "y_pred": "logit(4, 3)"},
}
SCORED = [n for n in ASSUMED if "from_logits" in n]
FAIL = {"CategoricalGeneralizedCrossEntropy", "categorical_generalized_cross_entropy"}  # the slope of p ** q at p = 0; nothing clips p
UNDECIDED = {
    *("Circle", "circle"),  # pairs that are masked by -inf, in a row that may have no pair
    *("CosineSimilarity", "cosine_similarity"),  # both factors of rsqrt's gradient are large, but not at the same place
    *("CTC", "ctc"),  # the recursion over alignments starts from -inf
    *("Hinge", "SquaredHinge"),  # eagerly, whether all labels are 0 and 1 is looked at in Python; in `function` all is proven
}


def test_the_lists_are_not_empty():
    assert {*ASSUMED, *FAIL, *UNDECIDED} <= {*NAMES, *SCORED}
    assert len(CLASSES) >= 22
    assert len(FUNCTIONS) >= 22


@pytest.mark.slow
@pytest.mark.parametrize("name", [*CLASSES, *SCORED])
def test_a_class_is_answered(name):
    report = whynan.check(f"keras.losses:{name}", framework="tensorflow")
    assert report.modes == ("eager", "function")
    assert_answered(report, name, FAIL, UNDECIDED, ASSUMED.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_a_function_is_answered(name):
    report = whynan.check(f"keras.losses:{name}", framework="tensorflow", modes="function")
    assert_answered(report, name, FAIL, UNDECIDED, ASSUMED.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(NO_LOSS))
def test_what_is_no_loss_is_refused(name):
    with pytest.raises((whynan.TargetError, whynan.DomainError), match=f"keras.losses:{name}"):
        whynan.check(f"keras.losses:{name}", framework="tensorflow")


@pytest.mark.slow
@pytest.mark.parametrize("name", ["CategoricalGeneralizedCrossEntropy", "BinaryCrossentropy"])
def test_scripts_agree(name, tmp_path):
    report = whynan.check(f"keras.losses:{name}", framework="tensorflow", modes="eager")
    assert report.findings
    assert [f.cause for f in report.findings[:1] if not script_agrees(f, tmp_path)] == []
