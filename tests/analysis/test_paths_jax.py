"""Paths of JAX losses in eager mode, where Python code may look at values."""

from collections.abc import Callable
from typing import Any

import pytest

import whynan

jnp = pytest.importorskip("jax.numpy")


def reasons(report: Any) -> str:
    return "\n".join(o.reason for o in report.undecided)


def masked_mean(x, m):
    if m.sum() == 0:
        return x.sum() * 0
    return (x * m).sum() / m.sum()


def image_range(x):
    if x.max() > 1:
        x = x / 255
    return jnp.log(2 - x).mean()


def counted(x, m):
    n = int(m.sum())
    return (x * m).sum() / max(n, 1)


X = whynan.real(4, low=-10, high=10)
SAFE: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "a sum of a mask": (masked_mean, {"x": X, "m": whynan.binary(4)}),
    "the largest element": (image_range, {"x": whynan.real(4, low=0, high=255)}),
    "a count": (counted, {"x": X, "m": whynan.mask(4)}),
}


@pytest.mark.parametrize(("loss", "domains"), SAFE.values(), ids=SAFE)
def test_a_loss_that_is_finite_on_every_path_is_safe(loss: Callable[..., Any], domains: dict[str, Any]) -> None:
    report = whynan.check(loss, framework="jax", modes=("eager",), **domains)
    assert report.verdict == "safe", reasons(report)


def test_what_fails_on_another_path_is_found_and_blamed() -> None:
    def loss(x):
        if (x == 0.1).any():
            return jnp.log(x - 0.1).sum()
        return x.sum()

    report = whynan.check(loss, framework="jax", modes=("eager",), x=whynan.real(3, low=-1, high=1))
    assert report.verdict == "unsafe" and any("jnp.log(x - 0.1)" in f.site.text for f in report.findings)


def test_an_array_that_is_read_as_a_whole_leaves_it_undecided() -> None:
    report = whynan.check(lambda x: (x[x > 0] ** 2).sum(), framework="jax", modes=("eager",), x=X)
    assert report.verdict == "undecided" and "numpy.asarray" in reasons(report)
