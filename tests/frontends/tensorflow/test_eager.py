"""Recording in eager mode: sites, phases, which forward op a gradient belongs to, looks at values, hand-written gradients."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
from tests.frontends.tensorflow.harness import T, X, agrees, capture, nodes, texts, unknown

from whynan.frontends.tensorflow import load
from whynan.ir.graph import BACKWARD, FORWARD


def cross_entropy(x, t):
    p = tf.sigmoid(x)
    return -tf.reduce_mean(t * tf.math.log(p) + (1 - t) * tf.math.log(1.0 - p + 1e-8))


def test_every_op_stands_at_its_own_expression():
    trace = agrees(cross_entropy, x=X, t=T)
    assert texts(trace, "log") == ["tf.math.log(p)", "tf.math.log(1.0 - p + 1e-8)"]
    assert texts(trace, "sub") == ["1 - t", "1.0 - p"]
    assert texts(trace, "sigmoid") == ["tf.sigmoid(x)"]
    assert all(n.site is not None for n in trace.graph.nodes if n.op not in ("input", "const"))


def test_a_gradient_belongs_to_the_op_it_differentiates():
    trace = capture(cross_entropy, x=X, t=T)
    logs = {n.source: n.site.text for n in nodes(trace, "log")}
    slopes = [n for n in trace.graph.nodes if n.spelling == "Reciprocal"]
    assert {n.phase for n in slopes} == {BACKWARD}
    assert {(logs[n.derives], n.site.text) for n in slopes} == {(text, text) for text in logs.values()}


def test_a_gradient_without_tensors_to_know_it_by_finds_its_op():
    trace = capture(lambda x: tf.reduce_sum(tf.exp(-x) - tf.exp(-(x * 2))), x=X)
    forward = {n.source: n.site.text for n in nodes(trace, "neg", FORWARD)}
    back = [n for n in nodes(trace, "neg", BACKWARD) if n.derives in forward]
    assert sorted(forward[n.derives] for n in back) == ["-(x * 2)", "-x"]
    assert all(n.site.text == forward[n.derives] for n in back)


def test_library_code_is_named_below_the_users_expression():
    trace = agrees(lambda x: tf.reduce_sum(tf.nn.l2_normalize(x, axis=1)), x=X)
    (node,) = nodes(trace, "rsqrt")
    assert node.site.text == "tf.nn.l2_normalize(x, axis=1)"
    assert "in l2_normalize" in node.site.detail


def test_a_library_loss_alone_shows_the_librarys_own_line():
    trace = agrees(keras.losses.Huber(), y_true=T, y_pred=X)
    assert "ops.square(error)" in texts(trace, "square")
    assert all("keras" in n.site.file for n in trace.graph.nodes if n.site)


def test_constants_keep_the_number_that_was_written():
    trace = capture(lambda x: tf.reduce_sum(tf.math.log(tf.clip_by_value(x, 1e-8, 1 - 1e-8))), x=X)
    written = {n.attrs["written"] for n in trace.graph.nodes if n.op == "const" and "written" in n.attrs}
    written |= {v for n in trace.graph.nodes for name, v in n.attrs.items() if name in ("low_written", "high_written")}
    assert {1e-8, 1 - 1e-8} <= written


def test_float32_is_flushed_and_float16_is_not():
    for dtype, flush in ((np.float32, True), (np.float64, True), (np.float16, False)):
        trace = capture(lambda x: tf.reduce_sum(x * x), x=X.astype(dtype))
        assert {n.format.flush for n in trace.graph.nodes if n.format.is_float} == {flush}


# ---------------------------------------------------------------- looks


def branching(x):
    if tf.reduce_sum(x) > 0:
        return tf.reduce_sum(x)
    return tf.reduce_sum(x * x)


def scaled(x):
    return tf.reduce_sum(x) * float(tf.reduce_max(x))


def listed(x):
    return tf.reduce_sum(x) * max(x[0].numpy())


def counted(x):
    return tf.reduce_sum(x) * int(tf.reduce_max(x) * 10)


@pytest.mark.parametrize(
    ("loss", "what", "text"),
    [
        (branching, "bool(tensor)", "tf.reduce_sum(x) > 0"),
        (scaled, "float(tensor)", "float(tf.reduce_max(x))"),
        (listed, ".numpy()", "x[0].numpy()"),
        (counted, "int(tensor)", "int(tf.reduce_max(x) * 10)"),
    ],
)
def test_a_look_at_a_value_is_an_assumption(loss, what, text):
    (assumption,) = capture(loss, x=X).graph.assumptions
    assert (assumption.what, assumption.site.text) == (what, text)


def test_an_integer_look_holds_for_all_numbers_cut_to_the_same_integer():
    (assumption,) = capture(counted, x=X).graph.assumptions
    assert assumption.low == 11.0
    assert 11.99 < assumption.high < 12.0


def test_a_look_at_what_does_not_vary_is_no_assumption():
    def loss(x):
        return tf.reduce_sum(x) if tf.constant(1.0) > 0 else tf.reduce_sum(x * x)

    assert capture(loss, x=X).graph.assumptions == ()


def test_numpy_inside_is_noted():
    (note,) = capture(lambda x: tf.reduce_sum(x * np.log(x)), x=X).graph.notes
    assert "no gradient flows through it" in note
    assert capture(lambda x: tf.reduce_sum(x * np.pi), x=X).graph.notes == ()


def test_numpy_inside_shows_in_two_recordings():
    def loss(x):
        return tf.reduce_sum(x * np.log(x))

    def constants(x):
        return [n.attrs["value"] for n in capture(loss, x=x).graph.nodes if n.op == "const" and n.attrs["value"].size > 1]

    one, two = constants(X), constants(X + 1)
    assert not np.array_equal(one[0], two[0])


# ---------------------------------------------------------------- gradients of the user's


@tf.custom_gradient
def doubled(x):
    def grad(dy):
        return dy * 2.0 / x

    return x * 1.5, grad


def by_hand(x):
    return tf.reduce_sum(tf.exp(doubled(x)))


@pytest.mark.parametrize("mode", ["eager", "function"])
def test_a_handwritten_gradient_stands_at_its_own_lines(mode):
    trace = agrees(by_hand, mode, x=X)
    assert [s.text for s in trace.graph.handwritten] == ["doubled(x)"]
    (division,) = nodes(trace, "div", BACKWARD)
    assert division.site.text == "dy * 2.0 / x"
    (forward,) = [n for n in nodes(trace, "mul") if n.site.text == "x * 1.5"]
    assert division.derives == forward.source


def test_a_librarys_custom_gradient_is_not_the_users():
    assert capture(lambda x: tf.reduce_sum(tf.nn.swish(x)), x=X).graph.handwritten == ()


def test_a_tape_inside_the_loss():
    def penalty(x):
        with tf.GradientTape() as tape:
            tape.watch(x)
            y = tf.reduce_sum(tf.exp(x))
        return tf.reduce_mean(tf.sqrt(tf.reduce_sum(tf.square(tape.gradient(y, x)), axis=1)))

    trace = agrees(penalty, x=X)
    assert [n.phase for n in trace.graph.nodes if n.op == "sqrt"] == [FORWARD]
    assert texts(trace, "exp") == ["tf.exp(x)"]


# ---------------------------------------------------------------- kinds of targets and values


def test_a_tf_function_is_seen_inside():
    @tf.function
    def inner(x):
        return tf.math.log(x)

    def loss(x):
        return tf.reduce_sum(inner(x))

    assert texts(agrees(loss, x=X), "log") == ["tf.math.log(x)"]
    trace = capture(inner, x=X)
    assert any("tf.function" in note for note in trace.graph.notes)


def test_partials_and_methods():
    class Holder:
        def loss(self, x, scale):
            return tf.reduce_sum(x * scale)

    agrees(functools.partial(Holder().loss, scale=2.0), x=X)
    agrees(Holder().loss, x=X, scale=T)


def test_gathered_gradients_are_dense():
    rows = np.array([0, 2, 2], np.int32)
    trace = agrees(lambda x, i: tf.reduce_sum(tf.gather(x, i) ** 2), x=X, i=rows)
    assert unknown(trace) == []


def test_several_results_are_summed():
    trace = capture(lambda x: {"a": tf.reduce_sum(x), "b": x * 2, "n": 3}, x=X)
    assert trace.graph.notes == ("the output has 2 floating tensors: the sum of all their elements is checked",)


def test_python_values_are_passed_on():
    def loss(x, axis):
        return tf.reduce_sum(tf.reduce_max(x, axis=axis))

    trace = load(loss, "loss").capture({"x": X, "axis": 1}, ("x",), "eager")
    assert list(trace.graph.inputs) == ["x"]


def test_random_numbers_are_the_same_in_every_run_and_noted():
    program = load(lambda x: tf.reduce_sum(x * tf.random.uniform(x.shape)), "loss", 7)
    state = tf.random.get_global_generator().state.numpy()
    for mode in ("eager", "function"):
        first, second = (program.run({"x": X}, ("x",), mode) for _ in range(2))
        assert np.array_equal(first.loss, second.loss)
        trace = program.capture({"x": X}, ("x",), mode)
        assert any("random" in note for note in trace.graph.notes)
        assert np.array_equal(trace.values[trace.graph.outputs[0].node], first.loss)
        assert nodes(trace, "random")
    assert np.array_equal(tf.random.get_global_generator().state.numpy(), state)


def test_strings_and_other_tensors_without_numbers_do_not_stop_a_recording():
    def loss(x):
        tf.strings.as_string(x)
        return tf.reduce_sum(tf.strings.to_number(tf.strings.as_string(x)) * x)

    trace = capture(loss, x=X)
    assert any(op.startswith("unknown:tf.") for op in unknown(trace))
