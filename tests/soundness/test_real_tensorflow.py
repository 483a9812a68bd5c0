"""Real TensorFlow losses: every value of every op, eagerly and in the optimised graph, and every result of XLA lies within its bounds."""

import numpy as np
import pytest

pytest.importorskip("tensorflow")

from tests.soundness.adversarial.collection import cases, gallery, suite
from tests.soundness.real import compare

from whynan.analysis.evaluate import evaluate
from whynan.domain import sample
from whynan.domain.spec import retyped
from whynan.errors import TargetError
from whynan.frontends import load

CASES = {c.name: c for c in (*cases("tensorflow"), *suite("tensorflow"))}
QUICK = ("tricky_tensorflow.clip_at_a_subnormal", "tricky_tensorflow.sine_of_the_angle", "suite.root_where")
EAGER = tuple(n for n in CASES if n.startswith("tricky"))[::2]
FUNCTION = tuple(n for n in CASES if n.startswith("tricky"))[1::2]
HALF = ("tricky_tensorflow.masked_log", "tricky_tensorflow.squashed_with_epsilon", "suite.brier", "suite.gaussian_nll_bounded")
XLA = ("tricky_tensorflow.fused_cancellation", "tricky_tensorflow.guarded_log_sum_exp", "suite.masked_softmax", "suite.dice")


def check(name: str, mode: str, draws: int, dtype: str = "float32") -> None:
    case = CASES[name]
    domains = {n: retyped(d, dtype) for n, d in case.domains.items()}
    try:
        found = compare(case.loss, domains, "tensorflow", mode, draws)
    except TargetError as error:  # TensorFlow does not always tell which graph it runs: there is no proof then
        pytest.skip(error.message)
    assert not found.wrong, found.wrong
    assert found.compared + found.other_path >= draws / 2


@pytest.mark.parametrize("name", QUICK)
def test_values_lie_within_their_bounds(name: str) -> None:
    check(name, "eager", 8)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "mode"), [*((n, "eager") for n in EAGER), *((n, "function") for n in FUNCTION)])
def test_many_values_lie_within_their_bounds(name: str, mode: str) -> None:
    check(name, mode, 5)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("name", HALF)
def test_other_formats(name: str, dtype: str) -> None:
    check(name, "eager", 5, dtype)


@pytest.mark.slow
@pytest.mark.parametrize("name", XLA)
def test_results_of_xla_lie_within_their_bounds(name: str) -> None:
    check(name, "xla", 15)


def test_the_gallery_is_found() -> None:
    assert len(list(gallery("tensorflow"))) > 20


@pytest.mark.parametrize("mode", ["eager", "function"])
def test_a_gather_whose_index_is_all_batch(mode: str) -> None:
    """`batch_dims` may be the rank of the index; it was taken modulo that rank, and other elements were picked."""
    case = CASES["tricky_tensorflow.picked"]
    program, rng = load(case.loss, "picked", "tensorflow"), np.random.default_rng(0)
    trace = program.capture({n: sample.ordinary(d, rng) for n, d in case.domains.items()}, ("x",), mode)
    inputs = {n: v for n, i in trace.graph.inputs.items() if (v := trace.values[i]) is not None}
    for output in trace.graph.outputs:
        real, own = trace.values[output.node], evaluate(trace.graph, inputs)[output.node]
        assert real is not None and own is not None
        np.testing.assert_allclose(own, real, rtol=1e-5, atol=1e-7)
