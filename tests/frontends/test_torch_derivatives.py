"""Derivatives that torch computes in another way while it is recorded: what is recorded is what runs."""

import numpy as np
import pytest
import torch

import whynan
from whynan import real
from whynan.analysis.evaluate import evaluate
from whynan.frontends.torch.derivatives import _FORMS
from whynan.frontends.torch.program import load
from whynan.frontends.torch.recorder import WATCHED_OTHERWISE

ROWS = np.array(
    [
        [1.5, -2.0, 3.0, 0.25],
        [0.0, 2.0, -1.0, 4.0],
        [0.0, 0.0, 5.0, 1.0],
        [2.0, -3.0, 0.0, 1.5],
        [0.5, 0.0, 3.0, 0.0],
        [1e20, 1e20, 1e-30, 2.0],
        [1e-30, 1e-20, 1e-5, 3.0],
    ],
    np.float32,
)


def product(x):
    return 1 / (1 + x.prod())


def products(x):
    return (1 / (1 + x.view(2, 2).prod(1))).sum()


def kept(x):
    return (1 / (1 + x.view(2, 2).prod(0, keepdim=True))).sum()


def running(x):
    return (1 / (2 + torch.cumprod(x, 0))).sum()


def running_rows(x):
    return (x.view(2, 2).cumprod(-1) * torch.tensor([2.0, 3.0])).sum()


@pytest.mark.parametrize("loss", [product, products, kept, running, running_rows])
@pytest.mark.parametrize("row", range(len(ROWS)))
def test_what_is_recorded_is_what_runs(loss, row):
    x, program = ROWS[row], load(loss, "loss")
    trace = program.capture({"x": x}, ("x",))
    real_gradient = program.run({"x": x}, ("x",)).gradients["x"]
    output = next(o.node for o in trace.graph.outputs if o.kind == "gradient")
    assert not [n.op for n in trace.graph.nodes if n.op.startswith("unknown")]
    assert np.array_equal(trace.values[output], real_gradient, equal_nan=True)
    if float(np.abs(x, dtype=float).max()) < 1e19:  # torch goes on in float64 after a product that is too large
        assert np.array_equal(evaluate(trace.graph, {"x": x})[output], real_gradient, equal_nan=True)


def test_the_forms_are_those_that_the_recorder_watches_for():
    assert set(_FORMS) == WATCHED_OTHERWISE


@pytest.mark.parametrize("loss", [product, running])
def test_a_product_that_overflows_is_no_proof(loss):
    report = whynan.check(loss, x=real(4, low=1e10, high=1e12))
    assert report.verdict == "unsafe" and report.findings[0].phase == "backward"
    assert "prod" in report.findings[0].site.text


@pytest.mark.parametrize("loss", [product, products, running])
def test_small_products_are_proven(loss):
    assert whynan.check(loss, x=real(4, low=0.5, high=2)).verdict == "safe"


def test_volume_rendering_is_proven():
    def loss(density, colour):
        alpha = 1 - torch.exp(-torch.relu(density))
        through = torch.cumprod(1 - alpha + 1e-10, -1)
        return (alpha * through * colour).sum()

    assert whynan.check(loss, density=real(2, 4, low=-10, high=10), colour=real(2, 4, low=0, high=1)).verdict == "safe"


def test_a_product_inside_a_gradient_penalty_is_unknown():
    def loss(x):
        (slope,) = torch.autograd.grad(x.prod(), x, create_graph=True)
        return (slope**2).sum()

    report = whynan.check(loss, x=real(3, low=0.5, high=2))
    assert report.verdict == "undecided" and any("unknown" in o.op for o in report.undecided)
