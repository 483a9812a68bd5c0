"""TensorFlow has an XLA of its own: the same lowerings against what it gives, where the two differ and where they do not."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

tf = pytest.importorskip("tensorflow")

from whynan.analysis.evaluate import evaluate  # noqa: E402
from whynan.analysis.propagate import propagate  # noqa: E402
from whynan.domain.interval import contains, of_array  # noqa: E402
from whynan.frontends.hlo.literals import constants  # noqa: E402
from whynan.frontends.hlo.parse import parse  # noqa: E402
from whynan.frontends.hlo.record import Spot, record  # noqa: E402
from whynan.frontends.trace import Recording, finished  # noqa: E402
from whynan.ir.dtype import FLOAT32, flushed  # noqa: E402
from whynan.ir.graph import Graph, Output  # noqa: E402

BIG = np.linspace(-3, 3, 20, dtype=np.float32) ** 3
SPECIAL = np.array([[1.0, np.nan, 2.0, -3.0], [np.inf, 0.0, -0.0, 1e-40], [88.8, -1e20, 3e38, -np.inf], [0.5, 0.25, 0.75, 1.0]], np.float32)


def std_loss(x: Any) -> Any:
    p = tf.sigmoid(x)
    return -tf.reduce_mean(tf.math.log(1.0 - p + 1e-8)) + tf.reduce_sum(tf.math.reduce_std(x, axis=0))


def with_gradient(loss: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def step(x: Any) -> Any:
        with tf.GradientTape() as tape:
            tape.watch(x)
            value = loss(x)
        return value, tape.gradient(value, x)

    return step


CASES: dict[str, Callable[[Any], Any]] = {
    "extremes": lambda x: (tf.reduce_max(x, 1), tf.reduce_min(x, 0), tf.maximum(x, 0.0), tf.clip_by_value(x, -1.0, 1.0)),
    "functions": lambda x: (tf.exp(x), tf.math.log(x), tf.tanh(x), tf.sqrt(x), tf.math.log1p(x), tf.math.rsqrt(x)),
    "a loss": with_gradient(std_loss),
    "softmax": with_gradient(lambda x: tf.reduce_sum(tf.nn.softmax_cross_entropy_with_logits(tf.nn.softmax(x), x))),
    "a product and a sum": lambda x: x * x - 1.5 * x,
    "a matrix product": lambda x: tf.linalg.matmul(x, x, transpose_b=True),
    "a large constant": lambda x: tf.reshape(tf.concat([x, x[:1]], 0), [20]) * BIG,
    "positions": lambda x: (tf.argmax(x, 1), tf.gather(x, [2, 0], axis=1)),
}


def compiled(function: Callable[[Any], Any], x: np.ndarray) -> tuple[Graph, list[np.ndarray]]:
    """The graph of the program that XLA makes, and what the program gives."""
    program = tf.function(function, jit_compile=True, autograph=False)
    ir = program.experimental_get_compiler_ir(tf.constant(x))
    module = parse(ir(stage="optimized_hlo"), constants(ir(stage="optimized_hlo_serialized")))
    recording = Recording()
    node = recording.builder.add("input", (), x.shape, flushed(FLOAT32))
    results = record(recording, module, [node], lambda metadata: Spot(None, metadata.op_name))
    outputs = [Output("loss", f"r{i}", n) for i, n in enumerate(results)]
    return finished(recording, {"x": node}, outputs).graph, [v.numpy() for v in tf.nest.flatten(program(tf.constant(x)))]


@pytest.mark.slow
@pytest.mark.parametrize("name", CASES)
@pytest.mark.parametrize("special", [False, True], ids=["ordinary", "special"])
def test_the_graph_computes_what_xla_computes(name: str, special: bool) -> None:
    x = SPECIAL if special else np.random.default_rng(0).standard_normal((4, 4)).astype(np.float32)
    graph, real = compiled(CASES[name], x)
    assert not [n.op for n in graph.nodes if n.op.startswith("unknown")]
    values = evaluate(graph, {"x": x})
    bounds = propagate(graph, {"x": of_array(x)}).bounds
    for output, expected in zip(graph.outputs, real, strict=True):
        zeros = np.where(np.abs(expected) < FLOAT32.tiny, np.copysign(0, expected), expected)
        inside = contains(bounds[output.node], zeros)
        assert inside.all(), f"{expected[~np.broadcast_to(inside, expected.shape)]} lie outside of the bounds"
        got = values[output.node]
        assert got is not None
        if not special:
            np.testing.assert_allclose(got, expected, rtol=2e-5, atol=2e-6)


@pytest.mark.slow
def test_a_maximum_leaves_nan_out() -> None:
    """JAX's XLA gives NaN here: should TensorFlow's do so one day, the lowering must be told."""
    graph, real = compiled(lambda x: tf.reduce_max(x, 1), SPECIAL)
    assert real[0][0] == 2
    value = evaluate(graph, {"x": SPECIAL})[graph.outputs[0].node]
    assert value is not None
    assert value.reshape(-1)[0] == 2
