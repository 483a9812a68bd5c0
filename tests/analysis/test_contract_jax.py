"""The wrong thing fed in, in JAX: XLA's and the eager programs of the same mistakes, and models of JAX and Flax."""

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import whynan
from whynan import binary, classes, integers, logit, prob, real
from whynan.analysis.finding import Finding

X = real(4, 5, low=-3, high=3)


def found(loss: Any, mode: str = "jit", **domains: Any) -> list[Finding]:
    """The findings of kind contract in one mode."""
    return [f for f in whynan.check(loss, modes=[mode], **domains).findings if f.kind == "contract"]


def clamped(p, t):
    q = jnp.clip(p, 1e-7, 1 - 1e-7)
    return -(t * jnp.log(q) + (1 - t) * jnp.log(1 - q)).mean()


def softmax_twice(x, t):
    return optax.softmax_cross_entropy_with_integer_labels(jax.nn.softmax(x), t).mean()


def plain_softmax_twice(x, t):
    return -jnp.log(jax.nn.softmax(jax.nn.softmax(x)))[..., 0].mean() + 0 * t.sum()


def sigmoid_twice(x, t):
    return optax.sigmoid_binary_cross_entropy(jax.nn.sigmoid(x), t).mean()


def cross_entropy(x, t):
    return optax.softmax_cross_entropy_with_integer_labels(x, t).mean()


def one_hot(x, t):
    return optax.softmax_cross_entropy(x, jax.nn.one_hot(t, 3)).mean()


@pytest.mark.parametrize(
    ("loss", "cause", "domains", "text"),
    [
        (clamped, "logits-as-probabilities", {"p": logit(4), "t": binary(4)}, "jnp.clip(p, 1e-7, 1 - 1e-7)"),
        (softmax_twice, "double-softmax", {"x": logit(4, 3), "t": classes(3, 4)}, "optax.softmax_cross_entropy_with_integer_labels"),
        (plain_softmax_twice, "double-softmax", {"x": logit(4, 3), "t": binary(4)}, "jax.nn.softmax(jax.nn.softmax(x))"),
        (sigmoid_twice, "double-softmax", {"x": logit(4), "t": binary(4)}, "optax.sigmoid_binary_cross_entropy"),
        (cross_entropy, "target-out-of-range", {"x": logit(4, 3), "t": integers(0, 3, 4)}, "optax.softmax_cross_entropy"),
        (one_hot, "target-out-of-range", {"x": logit(4, 3), "t": integers(0, 3, 4)}, "jax.nn.one_hot(t, 3)"),
    ],
)
def test_the_mistake_is_found_in_the_compiled_program(loss, cause, domains, text):
    (one,) = found(loss, **domains)
    assert one.cause == cause and one.site is not None and one.site.text.startswith(text)
    assert one.witness is not None and one.modes == ("jit",)


@pytest.mark.slow
@pytest.mark.parametrize("loss", [clamped, plain_softmax_twice])
def test_and_op_by_op(loss):
    name, domain = ("p", logit(4)) if loss is clamped else ("x", logit(4, 3))
    (one,) = found(loss, "eager", **{name: domain, "t": binary(4)})
    assert one.cause in ("logits-as-probabilities", "double-softmax")


@pytest.mark.slow
def test_a_label_that_jax_drops_silently_is_a_warning_one_that_gives_nan_an_error():
    (dropped,) = found(one_hot, x=logit(4, 3), t=integers(0, 3, 4))
    (gives_nan,) = found(cross_entropy, x=logit(4, 3), t=integers(0, 3, 4))
    assert (dropped.severity, gives_nan.severity) == ("warning", "error")
    assert np.isfinite(dropped.witness.loss) and np.isnan(gives_nan.witness.loss)


@pytest.mark.parametrize(
    ("loss", "domains"),
    [
        (clamped, {"p": prob(4), "t": binary(4)}),
        (cross_entropy, {"x": logit(4, 3), "t": classes(3, 4)}),
        (one_hot, {"x": logit(4, 3), "t": classes(3, 4)}),
        (lambda x, t: optax.sigmoid_binary_cross_entropy(x, t).mean(), {"x": logit(4), "t": binary(4)}),
        (lambda x, t: cross_entropy(x, t) + jax.nn.softmax(x).mean(), {"x": logit(4, 3), "t": classes(3, 4)}),
        (lambda x: jax.nn.logsumexp(jax.nn.sigmoid(x)), {"x": logit(4)}),
    ],
)
def test_correct_code_is_no_alarm(loss, domains):
    assert found(loss, **domains) == []


def test_a_stopped_gradient_and_numpy_and_a_missing_function():
    (stopped,) = found(lambda p, t: ((jax.lax.stop_gradient(p) - t) ** 2).mean(), p=prob(4), t=binary(4))
    assert stopped.cause == "gradient-detached" and "always 0" in stopped.message
    (numpy,) = found(lambda p: (np.log(p + 1)).mean(), p=prob(4))
    assert (numpy.cause, numpy.severity, numpy.site.text) == ("numpy-in-graph", "error", "np.log(p + 1)")
    (missing,) = found(lambda p: jnp.is_nan(p).mean(), p=prob(4))
    assert missing.cause == "no-such-function" and "jnp.isnan" in missing.message


# ---------------------------------------------------------------- models


@pytest.mark.slow
def test_a_plain_function_of_its_parameters_is_a_model():
    params = {"w": jnp.asarray(np.random.default_rng(0).normal(size=(5, 3)), jnp.float32), "b": jnp.zeros(3)}

    def apply(params, x):
        return x @ params["w"] + params["b"]

    (one,) = found(clamped, model=lambda x: apply(params, x), x=X, y=binary(4, 3))
    assert (one.cause, one.site.text) == ("logits-as-probabilities", "jnp.clip(p, 1e-7, 1 - 1e-7)")
    (twice,) = found(cross_entropy, model=lambda x: jax.nn.softmax(apply(params, x)), x=X, y=classes(3, 4))
    assert twice.cause == "double-softmax"
    assert found(cross_entropy, model=lambda x: apply(params, x), x=X, y=classes(3, 4)) == []


@pytest.mark.slow
def test_flax_models_bound_as_a_pair_and_of_nnx():
    from flax import linen, nnx

    class Net(linen.Module):
        @linen.compact
        def __call__(self, x):
            return linen.softmax(linen.Dense(3)(x))

    class Line(nnx.Module):
        def __init__(self, rngs):
            self.line = nnx.Linear(5, 3, rngs=rngs)

        def __call__(self, x):
            return self.line(x)

    net = Net()
    variables = net.init(jax.random.key(0), jnp.zeros((1, 5)))
    for model in ((net, variables), net.bind(variables)):
        assert [f.cause for f in found(cross_entropy, model=model, x=X, y=classes(3, 4))] == ["double-softmax"]
    assert [f.cause for f in found(clamped, model=Line(nnx.Rngs(0)), x=X, y=binary(4, 3))] == ["logits-as-probabilities"]
