"""Every cause of the contract has words, nothing else has, and they are fit to be shown."""

import re

import numpy as np
import pytest

import whynan.ops
from whynan.ir.dtype import BFLOAT16, FLOAT16, FLOAT32, FLOAT64, FLOATS
from whynan.ops._opdef import OPS
from whynan.report.words import WORDS, words

NON_FINITE = [
    "log-of-zero",
    "log-of-negative",
    "div-by-zero",
    "zero-over-zero",
    "sqrt-of-negative",
    "sqrt-grad-at-zero",
    "norm-grad-at-zero",
    "pow-domain",
    "pow-grad-at-zero",
    "inverse-trig-domain",
    "inverse-trig-grad-at-edge",
    "atan2-at-origin",
    "exp-overflow",
    "square-overflow",
    "product-overflow",
    "sum-overflow",
    "cast-overflow",
    "underflow-then-divide",
    "inf-minus-inf",
    "zero-times-inf",
    "inf-over-inf",
    "masked-branch-gradient",
    "empty-reduction",
    "zero-variance",
    "all-masked-softmax",
    "epsilon-rounds-away",
    "rounding-out-of-domain",
    "epsilon-removed-by-compiler",
    "nonfinite-input",
    "divergence",
    "custom-gradient-wrong",
    "other-domain-error",
]
OTHERS = [
    "steep-gradient",
    "clamp-kills-gradient",
    "saturated-activation",
    "vanished-gradient",
    "cancellation",
    "logits-as-probabilities",
    "double-softmax",
    "target-out-of-range",
    "nan-hidden-after-the-fact",
    "gradient-detached",
    "numpy-in-graph",
    "no-such-function",
]


def test_every_cause_has_words_and_nothing_else():
    assert set(WORDS) == {*NON_FINITE, *OTHERS}


@pytest.mark.parametrize("cause", sorted(WORDS))
def test_texts_are_sentences(cause):
    text = words(cause)
    assert len(text.title) <= 60
    assert not text.title.endswith(".")
    for sentence in (text.why, text.hint):
        assert sentence.isascii()
        assert sentence.endswith((".", ")."))
        assert "  " not in sentence
    assert not re.search(r"\. [A-Z]", text.why), "why is one sentence"


def test_every_danger_of_every_op_has_words():
    assert whynan.ops
    assert {danger.cause for op in OPS.values() for danger in op.dangers} <= set(WORDS)


def test_an_unknown_cause_is_an_error():
    with pytest.raises(KeyError):
        words("bad-luck")


@pytest.mark.parametrize("fmt", FLOATS, ids=str)
def test_an_epsilon_of_eps_does_what_its_hint_says(fmt):
    one, eps = fmt.numpy.type(1), fmt.numpy.type(fmt.eps)
    assert one - (one - eps) > 0
    assert (one + eps) - one > 0
    assert (one + eps / fmt.numpy.type(2)) - one == 0


@pytest.mark.parametrize(("fmt", "largest", "overflows"), [(FLOAT32, 88.7, 88.8), (FLOAT16, 11.09, 11.1), (FLOAT64, 709.7, 709.8)], ids=str)
def test_the_limits_of_exp(fmt, largest, overflows):
    assert f"{largest} in {fmt}" in words("exp-overflow").why
    with np.errstate(over="ignore"):
        exact = np.exp(np.array([largest, overflows], np.float64))
        assert np.isfinite(exact.astype(fmt.numpy)).tolist() == [True, False]


def test_the_spacings_named_are_those_of_the_formats():
    for fmt in (FLOAT32, FLOAT16, BFLOAT16):
        assert f"{fmt.eps:.1e} in {fmt}" in words("epsilon-rounds-away").why
