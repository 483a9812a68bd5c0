"""Losses that nobody here wrote: all of `tf.nn`. Each is answered, and each witness fails again.

In both default modes, eager and function, but for the slow ones with samples of classes and with alignments: in `function` only.
"""

import pytest
from tests.known_losses import assert_answered, script_agrees

import whynan

nn = pytest.importorskip("tensorflow").nn

FUNCTIONS = sorted(n for n in dir(nn) if callable(getattr(nn, n)) and ("loss" in n or "entropy" in n))

_SCORED = {"labels": "binary(4)", "logits": "logit(4)"}
# what a person would say that the arguments are; only what matters for the answer
ASSUMED = {
    "sigmoid_cross_entropy_with_logits": _SCORED,
    "weighted_cross_entropy_with_logits": {**_SCORED, "pos_weight": "nonnegative(4, high=100)"},
    "softmax_cross_entropy_with_logits": {"labels": "onehot(4, 3)", "logits": "logit(4, 3)"},
    "sparse_softmax_cross_entropy_with_logits": {"labels": "classes(3, 4)", "logits": "logit(4, 3)"},
    "log_poisson_loss": {"targets": "nonnegative(4, high=100)", "log_input": "logit(4)"},
    "l2_loss": {"t": "real(4)"},
    "compute_average_loss": {"per_example_loss": "real(4)"},
    "scale_regularization_loss": {"regularization_loss": "real(4)"},
    "ctc_loss": {
        "labels": "integers(1, 3, 2, 2)",
        "logits": "logit(5, 2, 4)",
        "label_length": "integers(1, 2, 2)",
        "logit_length": "integers(5, 5, 2)",
    },
}
FAIL = {"log_poisson_loss"}  # exp of an unbounded input, as documented
UNDECIDED = {
    "ctc_loss",  # the recursion over alignments starts from -inf
    *("nce_loss", "sampled_softmax_loss"),  # which classes are sampled, and how likely they were, may be anything
}
# numbers in place of tensors, which no name tells
SIZED = {
    name: f"lambda weights, biases, labels, inputs: {name}(weights, biases, labels, inputs, 2, 5)"
    for name in ("nce_loss", "sampled_softmax_loss")
}
STATED = {"weights": "real(5, 3)", "biases": "real(5)", "labels": "integers(0, 4, 4, 1, dtype='int64')", "inputs": "real(4, 3)"}
SLOW = {"ctc_loss", *SIZED}


def test_the_lists_are_not_empty():
    assert {*ASSUMED, *FAIL, *UNDECIDED, *SIZED} <= {*FUNCTIONS}
    assert len(FUNCTIONS) >= 11


@pytest.mark.slow
@pytest.mark.parametrize("name", FUNCTIONS)
def test_it_is_answered(name):
    modes = "function" if name in SLOW else None
    stated = STATED if name in SIZED else {}
    report = whynan.check(f"tensorflow.nn:{SIZED.get(name, name)}", framework="tensorflow", modes=modes, **stated)
    assert report.modes == (("function",) if modes else ("eager", "function"))
    assert_answered(report, name, FAIL, UNDECIDED, ASSUMED.get(name, {}))


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(SIZED))
def test_a_loss_whose_sizes_no_name_tells_asks_for_them(name):
    with pytest.raises(whynan.DomainError, match=r"num_sampled.*Say what they are"):
        whynan.check(f"tensorflow.nn:{name}", framework="tensorflow", modes="function")


@pytest.mark.slow
def test_an_unknown_operation_is_named():
    report = whynan.check(f"tensorflow.nn:{SIZED['nce_loss']}", framework="tensorflow", modes="function", **STATED)
    assert any(o.op == "unknown:tf.LogUniformCandidateSampler" and "LogUniformCandidateSampler" in o.reason for o in report.undecided)


@pytest.mark.slow
def test_scripts_agree(tmp_path):
    report = whynan.check("tensorflow.nn:log_poisson_loss", framework="tensorflow")
    assert len(report.findings) >= 2
    assert [f.cause for f in report.findings if not script_agrees(f, tmp_path)] == []
