"""What the graph foresees of candidates agrees with what the real function does on them."""

import numpy as np
import pytest

import whynan
from whynan.analysis.forecast import forecaster
from whynan.analysis.search import search
from whynan.domain import sample
from whynan.ir.dtype import FLOAT32
from whynan.ir.graph import Builder, Graph, Output

torch = pytest.importorskip("torch")


def cross_entropy(p, t):
    return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()


DOMAINS = {"p": whynan.prob(3), "t": whynan.binary(3)}


def candidates(count):
    rng = np.random.default_rng(0)
    return [{n: (sample.mosaic if k % 2 else sample.draw)(d, rng) for n, d in DOMAINS.items()} for k in range(count)]


def program():
    from whynan.frontends.torch import load

    return load(cross_entropy, "cross_entropy")


def test_it_foresees_failures_and_the_steepest_gradient():
    loss, inputs = program(), candidates(200)
    foreseen = forecaster(loss.capture(inputs[0], ("p",)).graph)(inputs)
    runs = [loss.run(i, ("p",)) for i in inputs]
    fails = [not (np.isfinite(r.loss) and np.isfinite(r.gradients["p"]).all()) for r in runs]
    assert 10 < sum(fails) < 190
    assert foreseen.fails.tolist() == fails
    finite = [k for k, bad in enumerate(fails) if not bad]
    assert np.allclose([foreseen.steepness[k] for k in finite], [np.abs(runs[k].gradients["p"]).max() for k in finite], rtol=1e-5)


def test_a_search_with_foresight_runs_less_and_finds_as_much():
    loss = program()
    graph = loss.capture(candidates(1)[0], ("p",)).graph
    blind = search(lambda i: loss.run(i, ("p",)), DOMAINS)
    wise = search(lambda i: loss.run(i, ("p",)), DOMAINS, forecast=forecaster(graph))
    assert {f.signature for f in wise.failures} == {f.signature for f in blind.failures} != set()
    assert wise.evaluations + wise.screened == blind.evaluations
    assert wise.evaluations < 0.8 * blind.evaluations


def test_an_operation_that_is_unknown_cannot_be_foreseen():
    b = Builder()
    x = b.add("input", (), (3,), FLOAT32, name="x")
    y = b.add("unknown:mystery", (x,), (3,), FLOAT32)
    assert forecaster(Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", y),))) is None
    assert forecaster(Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", x),))) is not None
