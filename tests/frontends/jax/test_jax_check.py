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


def test_an_epsilon_that_the_compiled_program_lacks_at_one_of_two_places():
    def loss(p, t):
        return -(t * jnp.log(p + 1e-8) + (1 - t) * jnp.log(1 - p + 1e-8)).mean()

    report = whynan.check(loss, p=whynan.prob(4), t=whynan.binary(4), modes=["jit"])
    assert errors(report) == [("epsilon-removed-by-compiler", "forward", "jnp.log(1 - p + 1e-8)", ("jit",))]
    assert "in `1 - p + 1e-8`" in report.findings[0].message


def test_an_epsilon_that_rounds_to_zero():
    def loss(p):
        return -jnp.log(p + 1e-8).mean()

    report = whynan.check(loss, p=whynan.prob(4, dtype="float16"), modes="all")
    assert errors(report)[0] == ("epsilon-rounds-away", "forward", "jnp.log(p + 1e-8)", ("jit", "eager"))


def test_a_mean_of_nothing_that_the_compiler_has_computed():
    def loss(x):
        return jnp.mean(jnp.square(x[1:] - x[:-1]))

    report = whynan.check(loss, x=whynan.real(1), modes=["jit"])
    assert errors(report) == [("empty-reduction", "forward", "jnp.mean(jnp.square(x[1:] - x[:-1]))", ("jit",))]


def test_scores_times_a_constant_in_a_log_softmax_are_proven():
    def loss(x):
        return -jnp.diagonal(jax.nn.log_softmax(x / 0.01, -1)).mean()

    assert whynan.check(loss, x=whynan.real(3, 3, low=-1, high=1), modes=["jit"]).verdict == "safe"


def test_a_softmax_of_nothing_in_half_precision():
    def loss(x, mask):
        return jax.nn.softmax(jnp.where(mask, x, -jnp.inf), axis=-1).mean()

    report = whynan.check(loss, x=whynan.real(2, 3, low=-1, high=1, dtype="bfloat16"), mask=whynan.mask(2, 3), modes=["jit"])
    assert errors(report)[0][0] == "all-masked-softmax"


def test_an_angle_of_two_subnormal_numbers():
    def loss(y, x):
        return jnp.arctan2(y, x).mean()

    report = whynan.check(loss, y=whynan.real(2, low=1e-40, high=1e-39), x=whynan.real(2, low=1e-40, high=1e-39), modes=["jit"])
    assert errors(report)[0][:3] == ("atan2-at-origin", "forward", "jnp.arctan2(y, x)")


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


@pytest.mark.parametrize("mode", ["jit", "eager"])
def test_complex_numbers_are_unknown_and_not_taken_for_integers(mode):
    def spectrum(x):
        return jnp.abs(jnp.fft.fft(x)).sum()

    def rotated(x):
        return jnp.real(jnp.exp(1j * x) * jnp.exp(x)).sum()

    for loss in (spectrum, rotated):
        report = whynan.check(loss, x=whynan.real(4, low=-1, high=1), modes=[mode])
        assert report.verdict == "undecided" and any(o.op.startswith("unknown:") for o in report.undecided), loss.__name__
    assert whynan.check(rotated, x=whynan.real(4, low=0, high=200), modes=[mode]).verdict == "unsafe"
