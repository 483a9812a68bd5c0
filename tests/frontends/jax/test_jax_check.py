"""whynan.check on JAX losses: verdicts, expressions and modes, from end to end."""

import jax
import jax.numpy as jnp
import optax
import pytest

import whynan
from whynan.errors import WhynanError

pytestmark = pytest.mark.slow


def errors(report):
    return [(f.cause, f.phase, f.site.text, f.modes) for f in report.findings if f.severity == "error"]


def test_an_epsilon_that_only_the_compiled_program_lacks():
    def loss(p):
        return -jnp.log(1.0 - p + 1e-8).sum()

    report = whynan.check(loss, p=whynan.prob(4), modes="all")
    assert report.verdict == "unsafe"
    assert errors(report) == [("epsilon-removed-by-compiler", "forward", "jnp.log(1.0 - p + 1e-8)", ("jit",))]


@pytest.mark.parametrize("mode", ["jit", "eager"])
def test_a_gradient_behind_a_mask(mode):
    def loss(x):
        return jnp.where(x > 0, jnp.sqrt(x), 0.0).sum()

    report = whynan.check(loss, x=whynan.real(4, low=0, high=1), modes=[mode])
    assert [e[:3] for e in errors(report)] == [("masked-branch-gradient", "backward", "jnp.sqrt(x)")]


@pytest.mark.parametrize("mode", ["jit", "eager"])
def test_losses_that_are_proven(mode):
    def loss(logits, labels):
        return optax.losses.sigmoid_binary_cross_entropy(logits, labels).mean() + jax.nn.softplus(logits).mean()

    report = whynan.check(loss, logits=whynan.logit(4), labels=whynan.binary(4), modes=[mode])
    assert (report.verdict, errors(report)) == ("safe", [])


def test_a_traced_choice_says_what_and_where():
    def loss(x):
        return x.sum() if x.sum() > 0 else x.mean()

    with pytest.raises(WhynanError, match=r"TracerBoolConversionError: .*: return x.sum\(\) if .*; it depends on x"):
        whynan.check(loss, x=whynan.real(3), framework="jax")
