"""Gradients lost to rounding: found where an activation saturates, told with interval and share, and never where a zero is right."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from torch.nn import functional as F

import whynan
from whynan.analysis.finding import Finding

LOGITS, LABELS = whynan.logit(8, 4), whynan.classes(4, 8)


def dead(loss: Callable[..., Any], domains: dict[str, Any], **options: Any) -> list[Finding]:
    """The warnings of dead gradients."""
    return [f for f in whynan.check(loss, domains=domains, **options).findings if f.kind == "dead-gradient"]


def log_of_softmax(x, t):
    return -torch.log(torch.softmax(x, -1) + 1e-8).gather(1, t[:, None]).mean()


def squared_error_of_sigmoid(x, t):
    return F.mse_loss(torch.sigmoid(x), t)


def squared_error_of_tanh(x, t):
    return F.mse_loss(torch.tanh(x), t)


def sigmoid_spelt_out(x, t):
    return ((1 / (1 + torch.exp(-x.clamp(-80, 80))) - t) ** 2).mean()


def bump(x):
    return (1 - torch.exp(-x * x / 2)).mean()


def mixture(z, m, y):
    lp = -0.5 * ((y[:, None] - m) / (F.softplus(z) + 0.1)) ** 2
    return -torch.logsumexp(lp, -1).mean()


VECTOR = {"x": whynan.logit(8), "t": whynan.binary(8)}
DEAD: dict[str, tuple[Callable[..., Any], dict[str, Any], str, str, str]] = {
    "softmax": (log_of_softmax, {"x": LOGITS, "t": LABELS}, "saturated-activation", "softmax", "torch.softmax(x, -1)"),
    "sigmoid": (squared_error_of_sigmoid, VECTOR, "saturated-activation", "sigmoid", "torch.sigmoid(x)"),
    "tanh": (
        squared_error_of_tanh,
        {"x": whynan.real(8), "t": whynan.real(8, low=-1, high=1)},
        "saturated-activation",
        "tanh",
        "torch.tanh(x)",
    ),
    "spelt out": (sigmoid_spelt_out, VECTOR, "saturated-activation", "reciprocal", "1 / (1 + torch.exp(-x.clamp(-80, 80)))"),
    "a part's weight": (
        mixture,
        {
            "z": whynan.real(4, 3, low=-5, high=5),
            "m": whynan.const(np.array([[0.0, 9.0, 9.0]] * 4, "float32")),
            "y": whynan.const(np.zeros(4, "float32")),
        },
        "vanished-gradient",
        "logsumexp",
        "torch.logsumexp(lp, -1)",
    ),
    "underflow": (bump, {"x": whynan.real(8, low=-50, high=50)}, "vanished-gradient", "exp", "torch.exp(-x * x / 2)"),
}


def slope(
    loss: Callable[..., Any], inputs: Any, name: str, index: tuple[int, ...], value: float | None = None, wide: bool = False
) -> float:
    """PyTorch's gradient by one element, at another value of it if one is given, in float64 with `wide`."""
    tensors = {n: torch.from_numpy(np.array(v)) for n, v in inputs.items()}
    if wide:
        tensors = {n: v.double() if v.is_floating_point() else v for n, v in tensors.items()}
    if value is not None:
        tensors[name][index] = value
    tensors[name].requires_grad_()
    loss(**tensors).backward()
    return float(tensors[name].grad[index])


def region(found: Finding) -> tuple[str, tuple[int, ...], float, float]:
    """The one interval that a finding tells: the input, its element, the ends."""
    ((element, ((low, high),)),) = found.details["regions"].items()
    name, _, index = element.partition("[")
    return name, tuple(int(i) for i in index.rstrip("]").split(",") if i), low, high


@pytest.mark.parametrize("case", DEAD)
def test_a_gradient_lost_to_rounding_is_told_at_the_expression_that_lost_it(case: str) -> None:
    loss, domains, cause, op, text = DEAD[case]
    (found,) = dead(loss, domains)
    assert (found.cause, found.op, found.phase, found.severity) == (cause, op, "backward", "warning")
    assert found.site is not None and found.site.text == text
    assert 0.01 <= found.details["share"] <= 1


@pytest.mark.parametrize("case", DEAD)
def test_the_interval_is_dead_in_the_framework_and_ends_where_it_says(case: str) -> None:
    loss, domains, *_ = DEAD[case]
    (found,) = dead(loss, domains)
    name, index, low, high = region(found)
    inputs = found.witness.inputs
    assert low <= inputs[name][index] <= high and found.witness.gradients[name][index] == 0
    for value in np.linspace(low, high, 50):
        assert slope(loss, inputs, name, index, value) == 0
    inner = low if "larger" not in found.message else high
    assert slope(loss, inputs, name, index, 0.98 * inner) != 0
    assert slope(loss, inputs, name, index, inner, wide=True) != 0


@pytest.mark.parametrize("case", DEAD)
def test_the_loss_would_fall_where_the_gradient_says_nothing(case: str) -> None:
    loss, domains, *_ = DEAD[case]
    (found,) = dead(loss, domains)
    name, index, *_ = region(found)
    tensors = {n: torch.from_numpy(np.array(v)) for n, v in found.witness.inputs.items()}
    before = float(loss(**tensors))
    falls = []
    for value in np.linspace(domains[name].low, domains[name].high, 2001):
        tensors[name][index] = value
        falls.append(before - float(loss(**tensors)))
    assert max(falls) > 1e-6


RIGHT: dict[str, tuple[Callable[..., Any], dict[str, Any]]] = {
    "relu": (lambda x: torch.relu(x).sum(), {"x": whynan.real(4, low=-300, high=300)}),
    "minus relu": (lambda x: -torch.relu(x).sum(), {"x": whynan.real(4, low=-300, high=300)}),
    "hinge": (lambda x: torch.clamp(1 - x, min=0).mean(), {"x": whynan.real(4, low=-300, high=300)}),
    "huber": (lambda x: F.huber_loss(x, torch.zeros_like(x)), {"x": whynan.real(4, low=-300, high=300)}),
    "cosine": (lambda x: 1 - F.cosine_similarity(x, torch.ones_like(x), dim=0), {"x": whynan.real(4, low=-300, high=300)}),
    "cosine of one number": (lambda x, y: (1 - F.cosine_similarity(x, y)).mean(), {"x": whynan.real(4, 1), "y": whynan.real(4, 1)}),
    "softplus": (lambda x: F.softplus(x).mean(), {"x": whynan.real(4, low=-300, high=300)}),
    "log sigmoid": (lambda x: -F.logsigmoid(x).mean(), {"x": whynan.real(4, low=-300, high=300)}),
    "decay to the minimum": (lambda x: torch.exp(-x.abs()).mean(), {"x": whynan.real(4, low=-300, high=300)}),
    "absolute": (lambda x: x.abs().mean(), {"x": whynan.real(4)}),
    "floor": (lambda x: (torch.floor(x) + x * 1e-3).pow(2).mean(), {"x": whynan.real(4)}),
    "cross entropy": (F.cross_entropy, {"input": LOGITS, "target": LABELS}),
    "with logits": (F.binary_cross_entropy_with_logits, {"input": VECTOR["x"], "target": VECTOR["t"]}),
    "triplet": (lambda a, p, n: F.triplet_margin_loss(a, p, n), {k: whynan.real(4, 3) for k in "apn"}),
    "contrastive": (
        lambda a, b, t: F.cosine_embedding_loss(a, b, t, margin=0.5),
        {"a": whynan.real(4, 3), "b": whynan.real(4, 3), "t": whynan.const(np.float32([1, -1, 1, -1]))},
    ),
    "divergence": (lambda x, t: F.kl_div(F.log_softmax(x, -1), t, reduction="batchmean"), {"x": LOGITS, "t": whynan.simplex(8, 4)}),
    "masked": (lambda x, m: (x.pow(2) * m).sum(), {"x": whynan.real(4), "m": whynan.binary(4)}),
    "info nce": (
        lambda z, y: F.cross_entropy(F.normalize(z, dim=-1) @ F.normalize(y, dim=-1).T / 0.07, torch.arange(4)),
        {"z": whynan.real(4, 3), "y": whynan.real(4, 3)},
    ),
    "saturated only where it is right": (squared_error_of_sigmoid, {"x": whynan.logit(8, low=-5, high=5), "t": whynan.binary(8)}),
}


@pytest.mark.parametrize("dtype", ["float32", "float16", "float64"])
@pytest.mark.parametrize("case", RIGHT)
def test_a_zero_gradient_that_is_right_is_no_warning(case: str, dtype: str) -> None:
    loss, domains = RIGHT[case]
    if dtype == "float16" and case in ("masked", "floor", "info nce", "triplet", "contrastive", "cosine", "cosine of one number"):
        pytest.skip("these overflow or lose epsilons in float16, which is another matter")
    assert dead(loss, domains, dtype=dtype) == []


def test_the_same_check_tells_the_same_region() -> None:
    one, other = (dead(*DEAD["softmax"][:2])[0] for _ in range(2))
    assert one.message == other.message and one.details == other.details


def test_the_region_is_in_the_json() -> None:
    report = whynan.check(squared_error_of_sigmoid, domains=VECTOR)
    (found,) = [f for f in report.to_dict()["findings"] if f["kind"] == "dead-gradient"]
    ((low, high),) = next(iter(found["details"]["regions"].values()))
    assert -100 <= low < high <= 100


def test_a_gradient_with_a_jump_at_the_edge_is_the_losss_own() -> None:
    """Float64 noise in place of a zero must not pass for a slope that was lost."""

    def loss(x):
        return torch.where(x > 0, x * 0 + 1 + 1e-30 * x, -x).mean()

    assert dead(loss, {"x": whynan.real(4, low=-10, high=10)}) == []


@pytest.mark.slow
@pytest.mark.parametrize("framework", ["jax", "tensorflow"])
def test_other_frameworks(framework: str) -> None:
    if framework == "jax":
        jax = pytest.importorskip("jax")
        softmax, log, exact = jax.nn.softmax, jax.numpy.log, lambda x, t: -(t * jax.nn.log_softmax(x)).sum(-1).mean()
    else:
        tf = pytest.importorskip("tensorflow")
        softmax, log, exact = tf.nn.softmax, tf.math.log, lambda x, t: tf.reduce_mean(tf.nn.softmax_cross_entropy_with_logits(t, x))
    domains = {"x": whynan.logit(8, 4), "t": whynan.onehot(8, 4)}

    def epsilon(x, t):
        picked = t * log(softmax(x) + 1e-8)
        return -picked.sum() if framework == "jax" else -tf.reduce_sum(picked)

    found = dead(epsilon, domains, framework=framework)
    assert [f.cause for f in found] == ["saturated-activation"] and "softmax" in found[0].op
    assert dead(exact, domains, framework=framework) == []
