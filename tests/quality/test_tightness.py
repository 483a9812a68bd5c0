"""How close proven bounds are to what values really reach: over whole losses of PyTorch, forward and backward."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import whynan
from whynan.analysis.propagate import Proof, propagate
from whynan.domain import sample
from whynan.domain.abstract import bounds_of
from whynan.domain.spec import Domain
from whynan.frontends.torch import load
from whynan.ir.frontend import Trace

Domains = Mapping[str, Domain]


def proven(loss: Callable[..., Any], domains: Domains) -> tuple[Trace, Proof]:
    """A loss recorded at an ordinary input and bounded over its domain."""
    rng = np.random.default_rng(0)
    wrt = tuple(n for n, d in domains.items() if d.grad)
    trace = load(loss, "loss").capture({n: sample.ordinary(d, rng) for n, d in domains.items()}, wrt, "eager")
    return trace, propagate(trace.graph, {n: bounds_of(domains[n]) for n in trace.graph.inputs})


def output(trace: Trace, proof: Proof, name: str) -> tuple[float, float]:
    """The proven ends of the loss or of a gradient."""
    node = next(o.node for o in trace.graph.outputs if o.name == name)
    return float(proof.bounds[node].lo.min()), float(proof.bounds[node].hi.max())


SIGNED, UNIT = whynan.real(2, 3, low=-3, high=3), whynan.prob(2, 3)

# the loss, its domains, the output, what the output can really reach
TIGHT = {
    "mse": (lambda x, y: F.mse_loss(x, y), {"x": SIGNED, "y": SIGNED}, "loss", (0.0, 36.0)),
    "mse, gradient": (lambda x, y: F.mse_loss(x, y), {"x": SIGNED, "y": SIGNED}, "x", (-2.0, 2.0)),
    "l1": (lambda x, y: F.l1_loss(x, y), {"x": SIGNED, "y": SIGNED}, "loss", (0.0, 6.0)),
    "l1, gradient": (lambda x, y: F.l1_loss(x, y), {"x": SIGNED, "y": SIGNED}, "x", (-1 / 6, 1 / 6)),
    "hinge": (lambda x: F.relu(1 - x).mean(), {"x": SIGNED}, "loss", (0.0, 4.0)),
    "tanh": (lambda x: torch.tanh(x).sum(), {"x": SIGNED}, "loss", (-6 * np.tanh(3), 6 * np.tanh(3))),
    "sigmoid, gradient": (lambda x: torch.sigmoid(x).sum(), {"x": SIGNED}, "x", (0.0451767, 0.25)),
    "log of p + 0.1": (lambda p: -torch.log(p + 0.1).mean(), {"p": UNIT}, "loss", (-np.log(1.1), np.log(10))),
    "log of p + 0.1, gradient": (lambda p: -torch.log(p + 0.1).mean(), {"p": UNIT}, "p", (-10 / 6, -1 / 6.6)),
    "softmax": (lambda x: F.softmax(x, dim=-1).amax(), {"x": SIGNED}, "loss", (1 / 3, 1 / (1 + 2 * np.exp(-6)))),
    "log-softmax": (lambda x: -F.log_softmax(x, dim=-1).amin(), {"x": SIGNED}, "loss", (np.log(3), 6 + np.log(2 + np.exp(-6)))),
    "smooth l1": (lambda x, y: F.smooth_l1_loss(x, y), {"x": SIGNED, "y": SIGNED}, "loss", (0.0, 5.5)),
    "dice": (
        lambda p, t: 1 - (2 * (p * t).sum() + 1) / (p.sum() + t.sum() + 1),
        {"p": UNIT, "t": whynan.binary(2, 3)},
        "loss",
        (0.0, 6 / 7),
    ),
}
# how many times as wide as what is reached the bounds may be, where finiteness asked for no more
SLACK = {"log-softmax": 2.1, "dice": 15.1, "sigmoid, gradient": 4.5, "softmax": 1.01, "smooth l1": 3.4}


@pytest.mark.parametrize("name", TIGHT)
def test_bounds_hold_what_is_reached_and_little_more(name: str) -> None:
    loss, domains, which, (low, high) = TIGHT[name]
    trace, proof = proven(loss, domains)
    lo, hi = output(trace, proof, which)
    reach = 1e-5 * (high - low)
    assert lo <= low + reach and high - reach <= hi
    assert hi - lo <= SLACK.get(name, 1.001) * (high - low), f"[{lo}, {hi}] for [{low}, {high}]"


STABLE: dict[str, tuple[Callable[..., Any], Domains]] = {
    "bce with logits": (lambda x, t: F.binary_cross_entropy_with_logits(x, t), {"x": whynan.logit(8), "t": whynan.binary(8)}),
    "cross entropy": (lambda x, t: F.cross_entropy(x, t), {"x": whynan.logit(4, 6), "t": whynan.classes(6, 4)}),
    "kl of log-softmax": (
        lambda x, q: F.kl_div(F.log_softmax(x, dim=-1), q, reduction="batchmean"),
        {"x": whynan.logit(4, 6), "q": whynan.simplex(4, 6, grad=False)},
    ),
    "cosine": (lambda x, y: 1 - F.cosine_similarity(x, y).mean(), {"x": whynan.real(3, 4), "y": whynan.real(3, 4)}),
    "layer norm": (lambda x: F.layer_norm(x, (6,)).square().mean(), {"x": whynan.real(3, 6)}),
    "focal with logits": (
        lambda x, t: ((1 - torch.exp(-F.binary_cross_entropy_with_logits(x, t, reduction="none"))) ** 2).mean(),
        {"x": whynan.logit(8), "t": whynan.binary(8)},
    ),
    "gaussian nll": (
        lambda x, y, v: F.gaussian_nll_loss(x, y, v),
        {
            "x": whynan.real(5, low=-10, high=10),
            "y": whynan.real(5, low=-10, high=10, grad=False),
            "v": whynan.positive(5, low=1e-3, high=10),
        },
    ),
    "huber": (lambda x, y: F.huber_loss(x, y), {"x": whynan.real(5), "y": whynan.real(5)}),
    "log-cosh": (
        lambda x, y: ((x - y).abs() + F.softplus(-2 * (x - y).abs()) - np.log(2)).mean(),
        {"x": whynan.real(5), "y": whynan.real(5)},
    ),
    "poisson nll": (
        lambda x, t: F.poisson_nll_loss(x, t),
        {"x": whynan.real(5, low=-20, high=20), "t": whynan.nonnegative(5, high=100, grad=False)},
    ),
}


@pytest.mark.parametrize("name", STABLE)
def test_losses_written_with_care_are_proven(name: str) -> None:
    trace, proof = proven(*STABLE[name])
    assert proof.finite, {trace.graph.nodes[i].op: reason for i, reason in proof.open.items()}


@pytest.mark.parametrize("n", [4, 4096])
def test_the_proof_costs_the_same_for_any_size(n: int) -> None:
    """Uniform tensors are one interval, however large."""
    _, proof = proven(lambda p: -torch.log(p + 1e-7).mean(), {"p": whynan.prob(n)})
    assert proof.finite and all(b.lo.size <= 1 for b in proof.bounds)
