"""Real values of graphs: right where floats are wrong, and silent where no real value can be told."""

from collections.abc import Callable

import mpmath
import numpy as np
import pytest

from whynan.analysis.precise import Precise, precise
from whynan.ir.dtype import FLOAT32, FLOAT64, Array, Format
from whynan.ir.graph import Builder, Graph, Output


def graph_of(build: Callable[[Builder, int], int], fmt: Format = FLOAT32, shape: tuple[int, ...] = ()) -> Graph:
    b = Builder()
    x = b.add("input", (), shape, fmt)
    y = build(b, x)
    return Graph(tuple(b.nodes), {"x": x}, (Output("loss", "loss", y),))


def constant(b: Builder, value: float, fmt: Format = FLOAT32) -> int:
    return b.const(np.asarray(value, fmt.numpy), fmt)


def value_of(graph: Graph, x: Array) -> float:
    found = precise(graph, {"x": x})
    assert found is not None
    value = found.float64(graph.outputs[0].node)
    assert value is not None
    return float(value)


def one_minus_cos(b: Builder, x: int) -> int:
    return b.add("sub", (constant(b, 1.0), b.add("cos", (x,), (), FLOAT32)), (), FLOAT32)


@pytest.mark.parametrize("x", [1.0, 1e-3, 1e-9, 1e-20, 1e-38])
def test_the_digits_of_a_cancelling_difference(x: float) -> None:
    exact = 2 * mpmath.mp.sin(mpmath.mpf(float(np.float32(x))) / 2) ** 2
    assert value_of(graph_of(one_minus_cos), np.float32(x)) == pytest.approx(float(exact), rel=1e-15, abs=0)


@pytest.mark.parametrize("tiny", [1e-45, 1e-30, 1e-8])
def test_what_every_usual_precision_rounds_away(tiny: float) -> None:
    """(1 + x) - 1 is x, however small x is."""

    def build(b: Builder, x: int) -> int:
        one = constant(b, 1.0)
        return b.add("sub", (b.add("add", (one, x), (), FLOAT32), one), (), FLOAT32)

    assert value_of(graph_of(build), np.float32(tiny)) == float(np.float32(tiny))


def test_the_same_in_float64() -> None:
    def build(b: Builder, x: int) -> int:
        one = constant(b, 1.0, FLOAT64)
        return b.add("sub", (b.add("add", (one, x), (), FLOAT64), one), (), FLOAT64)

    assert value_of(graph_of(build, FLOAT64), np.float64(1e-300)) == 1e-300


def test_a_difference_that_is_truly_zero_is_zero() -> None:
    def build(b: Builder, x: int) -> int:
        sin, cos = b.add("sin", (x,), (), FLOAT32), b.add("cos", (x,), (), FLOAT32)
        total = b.add("add", (b.add("square", (sin,), (), FLOAT32), b.add("square", (cos,), (), FLOAT32)), (), FLOAT32)
        return b.add("sub", (total, constant(b, 1.0)), (), FLOAT32)

    assert abs(value_of(graph_of(build), np.float32(0.3))) < 1e-45


def test_constants_are_those_of_the_graph() -> None:
    def build(b: Builder, x: int) -> int:
        return b.add("mul", (x, constant(b, 0.1)), (), FLOAT32)

    assert value_of(graph_of(build), np.float32(1.0)) == float(np.float32(0.1)) != 0.1


def test_nothing_overflows() -> None:
    def build(b: Builder, x: int) -> int:
        return b.add("log", (b.add("exp", (x,), (), FLOAT32),), (), FLOAT32)

    assert value_of(graph_of(build), np.float32(1e4)) == 1e4


def test_the_distance_is_taken_before_rounding() -> None:
    graph = graph_of(lambda b, x: b.add("exp", (x,), (), FLOAT64), FLOAT64)
    found = precise(graph, {"x": np.float64(1.0)}, digits=40)
    assert found is not None
    node = graph.outputs[0].node
    apart = found.distance(node, np.asarray(np.e))
    assert apart is not None
    assert float(apart) == pytest.approx(float(abs(mpmath.mpf(np.e) - mpmath.MPContext().e)), abs=2e-16)
    assert float(found.errors[node]) < 1e-40


def test_an_unknown_operation_has_no_value() -> None:
    graph = graph_of(lambda b, x: b.add("unknown:thing", (x,), (), FLOAT32))
    found = precise(graph, {"x": np.float32(1.0)})
    assert isinstance(found, Precise)
    assert found.float64(graph.outputs[0].node) is None


def test_random_values_are_those_given() -> None:
    graph = graph_of(lambda b, x: b.add("mul", (x, b.add("random", (), (), FLOAT32)), (), FLOAT32))
    found = precise(graph, {"x": np.float32(2.0)}, given={1: np.asarray(np.float32(0.25))})
    assert found is not None
    assert found.float64(2) == 0.5


def test_a_graph_too_large_for_it_is_declined() -> None:
    graph = graph_of(lambda b, x: b.add("exp", (x,), (300, 300), FLOAT32), shape=(300, 300))
    assert precise(graph, {"x": np.ones((300, 300), np.float32)}) is None
