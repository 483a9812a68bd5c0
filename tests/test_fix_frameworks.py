"""whynan.fix on naive losses of TensorFlow, Keras and JAX."""

from pathlib import Path

import pytest

import whynan

pytest.importorskip("egglog")

TENSORFLOW = """import tensorflow as tf


def bce(x, t):
    p = tf.sigmoid(x)
    return -tf.reduce_mean(t * tf.math.log(p) + (1.0 - t) * tf.math.log(1.0 - p))


def root(x, y):
    return tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.square(x - y), axis=-1)))
"""

JAX = """import jax
import jax.numpy as jnp


def cross_entropy(x, t):
    p = jax.nn.softmax(x)
    return -jnp.mean(jnp.sum(t * jnp.log(p), axis=-1))


def length(x):
    return jnp.sum(jnp.linalg.norm(x, axis=-1))
"""

CASES = [
    ("tensorflow", TENSORFLOW, "bce", {"x": whynan.logit(4, low=-200.0, high=200.0), "t": whynan.binary(4)}),
    ("tensorflow", TENSORFLOW, "root", {"x": whynan.real(3, 2, low=-2.0, high=2.0), "y": whynan.real(3, 2, low=-2.0, high=2.0)}),
    ("jax", JAX, "cross_entropy", {"x": whynan.logit(2, 3, low=-200.0, high=200.0), "t": whynan.onehot(2, 3)}),
    ("jax", JAX, "length", {"x": whynan.real(3, 2, low=-2.0, high=2.0)}),
]


@pytest.mark.slow
@pytest.mark.parametrize(("framework", "text", "name", "domains"), CASES, ids=lambda v: v if isinstance(v, str) and len(v) < 20 else "")
def test_naive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, framework: str, text: str, name: str, domains: dict) -> None:
    pytest.importorskip(framework)
    monkeypatch.chdir(tmp_path)
    file = tmp_path / f"{framework}_losses.py"
    file.write_text(text)
    best = whynan.fix(f"{file}:{name}", domains=domains)[0]
    assert best.applicability == "verified", str(best)
    best.apply()
    again = tmp_path / f"{framework}_again.py"
    again.write_text(file.read_text())
    assert whynan.check(f"{again}:{name}", domains=domains).verdict == "safe"
