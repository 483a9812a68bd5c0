"""The same textbook cases and stable forms in TensorFlow and JAX: the count rests on the recorded graph, whoever recorded it."""

import pytest

import whynan

pytestmark = pytest.mark.slow
REAL, WIDE, LOGIT = whynan.real(8, low=-4, high=4), whynan.real(8), whynan.logit(8)
SOFT, NEAR = whynan.real(8, low=-50, high=50), whynan.real(8, low=-15, high=15)


def texts(loss, **domains):
    report = whynan.check(loss, accuracy=True, **domains)
    return [f.site.text for f in report.findings if f.kind == "inaccurate"]


def test_jax():
    jax = pytest.importorskip("jax")
    jnp = jax.numpy
    assert texts(lambda x: (1 - jnp.cos(x)).mean(), x=REAL) == ["1 - jnp.cos(x)"]
    assert texts(lambda x: jnp.log(1 + jnp.exp(x)).mean(), x=SOFT) == ["1 + jnp.exp(x)"]
    assert texts(lambda x: -jnp.log(1 - jax.nn.sigmoid(x)).mean(), x=NEAR) == ["1 - jax.nn.sigmoid(x)"]
    assert texts(lambda x: (x**2).mean() - x.mean() ** 2, x=WIDE) == ["(x**2).mean() - x.mean() ** 2"]
    assert texts(lambda x: jax.nn.softplus(x).mean(), x=LOGIT) == []
    assert texts(lambda x: jax.nn.log_softmax(x)[:, 0].mean(), x=whynan.logit(4, 8)) == []
    assert texts(lambda x: jnp.var(x), x=WIDE) == []


def test_tensorflow():
    tf = pytest.importorskip("tensorflow")
    assert texts(lambda x: tf.reduce_mean(1 - tf.cos(x)), x=REAL) == ["1 - tf.cos(x)"]
    assert texts(lambda x: tf.reduce_mean(tf.math.log(1 + tf.exp(x))), x=SOFT) == ["1 + tf.exp(x)"]
    assert texts(lambda x: tf.reduce_mean(tf.abs(tf.exp(x) - 1)), x=REAL) == ["tf.exp(x) - 1"]
    variance = "tf.reduce_mean(x**2) - tf.reduce_mean(x) ** 2"
    assert texts(lambda x: tf.reduce_mean(x**2) - tf.reduce_mean(x) ** 2, x=WIDE) == [variance]
    assert texts(lambda x: tf.reduce_mean(tf.nn.softplus(x)), x=LOGIT) == []
    stable = lambda x, t: tf.reduce_mean(tf.nn.sigmoid_cross_entropy_with_logits(labels=t, logits=x))  # noqa: E731
    assert texts(stable, x=LOGIT, t=whynan.prob(8)) == []
    assert texts(lambda x: tf.math.reduce_variance(x), x=WIDE) == []
