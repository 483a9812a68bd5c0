"""Recording XLA's program of a step: places through op names, phases, values of the results."""

import numpy as np
import pytest
import tensorflow as tf
from tests.frontends.tensorflow.harness import T, X, capture, evaluated, texts, unknown

from whynan.frontends.tensorflow import load
from whynan.ir.graph import BACKWARD

pytestmark = pytest.mark.slow


def masked_root(x):
    root = tf.sqrt(x)
    return tf.reduce_sum(tf.where(x > 1.0, root, x))


def test_places_and_phases():
    trace = capture(masked_root, "xla", x=X)
    assert texts(trace, "sqrt") == ["tf.sqrt(x)"]
    assert {n.site.text for n in trace.graph.nodes if n.phase == BACKWARD and n.site} >= {"tf.sqrt(x)"}
    assert all(n.spelling.startswith("hlo.") for n in trace.graph.nodes if n.op not in ("input", "const") and n.spelling)


def test_outputs_have_the_values_of_the_plain_run():
    program = load(masked_root, "loss")
    run, trace = program.run({"x": X}, ("x",), "xla"), program.capture({"x": X}, ("x",), "xla")
    assert np.array_equal(trace.values[trace.graph.outputs[0].node], run.loss)
    assert np.array_equal(trace.values[trace.graph.outputs[1].node], run.gradients["x"])


def test_the_gradient_of_a_root_differs_from_eager_mode():
    zero = np.zeros(3, np.float32)
    program = load(masked_root, "loss")
    assert np.isfinite(program.run({"x": zero}, ("x",), "eager").gradients["x"]).all()
    assert np.isnan(program.run({"x": zero}, ("x",), "xla").gradients["x"]).all()


def test_variables_are_arguments_of_the_program():
    weight = tf.Variable([1.0, 2.0, 3.0])
    trace = capture(lambda x, t: tf.reduce_sum(x * weight * t), "xla", x=X, t=T)
    assert set(trace.graph.inputs) == {"x", "t", "weight"}


@pytest.mark.parametrize("kept", [0, 1, 4])
def test_how_many_elements_a_mask_leaves_may_hang_on_the_data(kept):
    def loss(x):
        return tf.reduce_mean(tf.math.log(tf.boolean_mask(x, x > 0.5)))

    ordinary, other = np.array([0.2, 0.7, 0.9, 0.1], np.float32), np.array([0.9] * kept + [0.3] * (4 - kept), np.float32)
    program = load(loss, "loss")
    trace = program.capture({"x": ordinary}, ("x",), "xla")
    run = program.run({"x": other}, ("x",), "xla")
    found = evaluated(trace, {"x": other})
    assert unknown(trace) == []
    assert np.allclose(found[0], run.loss, equal_nan=True)
    assert np.allclose(found[1], run.gradients["x"], equal_nan=True)


def test_a_result_whose_shape_depends_on_the_data_is_unknown_by_name():
    trace = capture(lambda x: tf.exp(tf.boolean_mask(x, x > 0.5)), "xla", x=X)
    assert unknown(trace) == ["unknown:hlo.SliceToDynamic"]
