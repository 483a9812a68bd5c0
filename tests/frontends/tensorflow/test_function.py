"""Recording what a tf.function runs: AutoGraph's code mapped back, the graph after Grappler, branches, loops, called functions."""

import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.eager import context
from tests.frontends.tensorflow.harness import T, X, agrees, capture, nodes, texts, unknown

from whynan.errors import TargetError
from whynan.frontends.tensorflow import graph, load
from whynan.ir.graph import BACKWARD, FORWARD

pytestmark = pytest.mark.slow


def cross_entropy(x, t):
    p = tf.sigmoid(x)
    return -tf.reduce_mean(t * tf.math.log(p) + (1 - t) * tf.math.log(1.0 - p + 1e-8))


def test_every_op_stands_at_its_own_expression_behind_autograph():
    trace = agrees(cross_entropy, "function", x=X, t=T)
    assert texts(trace, "log") == ["tf.math.log(p)", "tf.math.log(1.0 - p + 1e-8)"]
    assert texts(trace, "sigmoid") == ["tf.sigmoid(x)"]
    assert all(n.site is not None for n in trace.graph.nodes if n.op not in ("input", "const"))


def test_grappler_removes_an_epsilon_that_eager_mode_keeps():
    def additions(mode):
        return [n for n in nodes(capture(cross_entropy, mode, x=X, t=T), "add") if "1e-8" in n.site.text and "log" not in n.site.text]

    assert len(additions("eager")) == 1
    assert additions("function") == []


def test_a_rewritten_op_keeps_its_expression():
    trace = agrees(lambda x, t: tf.reduce_sum(x + (-t)), "function", x=X, t=T)
    assert texts(trace, "sub") + texts(trace, "add") == ["x + (-t)"]


def test_gradients_know_their_forward_op():
    trace = capture(cross_entropy, "function", x=X, t=T)
    logs = {n.source: n.site.text for n in nodes(trace, "log")}
    slopes = [n for n in trace.graph.nodes if n.spelling == "Reciprocal"]
    assert {n.phase for n in slopes} == {BACKWARD}
    assert {(logs[n.derives], n.site.text) for n in slopes} == {(text, text) for text in logs.values()}


def test_equal_expressions_on_one_line_are_told_apart():
    def loss(x):
        return tf.reduce_sum(tf.exp(x)[:2]) + tf.reduce_max(tf.exp(x + 1) * tf.exp(x + 1))

    trace = capture(loss, "function", x=X)
    columns = {n.site.column for n in trace.graph.nodes if n.site and n.site.text == "tf.exp(x + 1)" and n.op == "exp"}
    assert columns  # one is enough: Grappler computes equal values once
    assert texts(trace, "exp") == ["tf.exp(x)", "tf.exp(x + 1)"]


def test_an_augmented_assignment_is_its_own_expression():
    def loss(x):
        x *= tf.exp(x)
        return tf.reduce_sum(x)

    assert texts(agrees(loss, "function", x=X), "mul") == ["x *= tf.exp(x)"]


# ---------------------------------------------------------------- branches


def branching(x):
    if tf.reduce_mean(x) > 0.4:
        y = tf.math.log(x)
    else:
        y = tf.sqrt(x)
        y = y * 2.0
    return tf.reduce_sum(y)


@pytest.mark.parametrize("shift", [0.0, 1.0])
def test_both_branches_are_recorded_and_chosen_between(shift):
    trace = agrees(branching, "function", x=X + np.float32(shift) - np.float32(0.05))
    assert texts(trace, "log") == ["tf.math.log(x)"]
    assert texts(trace, "sqrt") == ["tf.sqrt(x)"]
    assert [n.site.text for n in nodes(trace, "where")] == ["tf.reduce_mean(x) > 0.4"]
    assert [n.site.text for n in nodes(trace, "where", BACKWARD) if n.spelling == "Merge"] == ["tf.reduce_mean(x) > 0.4"]
    assert unknown(trace) == []
    assert trace.graph.assumptions == ()


def test_a_conditional_expression_and_a_nested_branch():
    def inner(z):
        return tf.exp(z) if tf.reduce_max(z) > 1.0 else -z

    def loss(x):
        if tf.reduce_sum(x) > 3:
            if tf.reduce_min(x) > 0:
                return tf.reduce_sum(inner(x))
            return tf.reduce_sum(x * 3)
        return tf.reduce_sum(x * x)

    trace = agrees(loss, "function", x=X)
    assert unknown(trace) == []
    assert texts(trace, "exp") == ["tf.exp(z)"]


def test_branches_of_different_shapes_are_an_assumption():
    def loss(x):
        y = tf.cond(tf.reduce_sum(x) > 0, lambda: x[:2], lambda: x[:3])
        return tf.reduce_sum(y)

    assert "the branch of a tf.cond" in {a.what for a in capture(loss, "function", x=X).graph.assumptions}


def test_the_same_op_in_both_branches_stands_at_two_places():
    def loss(x):
        if tf.reduce_sum(x) > 0:
            y = tf.math.log(x + 1.0)
        else:
            x = x + 2.0
            y = tf.math.log(x)
        return tf.reduce_sum(y)

    trace = agrees(loss, "function", x=X)
    assert set(texts(trace, "log") + texts(trace, "log1p")) == {"tf.math.log(x + 1.0)", "tf.math.log(x)"}
    assert {n.site.text for n in trace.graph.nodes if n.spelling == "Reciprocal"} == {"tf.math.log(x + 1.0)", "tf.math.log(x)"}


def test_one_of_many_branches_is_an_assumption():
    def loss(x):
        which = tf.cast(tf.reduce_sum(x) > 0, tf.int32) + tf.cast(tf.reduce_sum(x) > 100, tf.int32)
        return tf.switch_case(which, [lambda: tf.reduce_sum(x), lambda: tf.reduce_sum(x * x), lambda: tf.reduce_max(x)])

    trace = agrees(loss, "function", x=X)
    assert {(a.what, a.low) for a in trace.graph.assumptions} == {("the branch of a tf.switch_case", 1.0)}
    assert texts(trace, "square") + texts(trace, "mul") == ["x * x"]


# ---------------------------------------------------------------- loops


def test_a_loop_is_unrolled_with_its_gradient():
    def loss(x):
        y = tf.zeros_like(x)
        for i in tf.range(3):
            y = y + tf.exp(-x) * tf.cast(i, tf.float32)
        return tf.reduce_sum(y * y)

    trace = agrees(loss, "function", x=X)
    assert unknown(trace) == []
    assert trace.graph.assumptions == ()
    assert len(nodes(trace, "exp")) == 3
    assert texts(trace, "exp") == ["tf.exp(-x)"]


def test_how_often_a_loop_runs_may_hang_on_the_input():
    def loss(x):
        while tf.reduce_sum(x) > 1.0:
            x = x / 2
        return tf.reduce_sum(tf.math.log(x))

    trace = agrees(loss, "function", x=X)
    assert {a.what for a in trace.graph.assumptions} == {"how often a tf.while_loop runs"}
    assert [a.low for a in trace.graph.assumptions] == [1.0] * (len(trace.graph.assumptions) - 1) + [0.0]


def test_a_loop_that_runs_too_often_is_unknown_by_name():
    def loss(x):
        for _ in tf.range(300):
            x = tf.sin(x)
        return tf.reduce_sum(x)

    assert unknown(capture(loss, "function", x=X)) == ["unknown:tf.While"]


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: tf.reduce_sum(tf.map_fn(lambda row: tf.reduce_logsumexp(row), x)),
        lambda x: tf.reduce_sum(tf.scan(lambda a, b: a * b + 0.1, x)),
    ],
    ids=["map_fn", "scan"],
)
def test_lists_are_followed_element_by_element(loss):
    trace = agrees(loss, "function", x=X)
    assert unknown(trace) == []


# ---------------------------------------------------------------- functions and variables


def test_called_functions_are_inlined():
    @tf.function
    def inner(a):
        return tf.math.log(a) * a

    def loss(x):
        return tf.reduce_sum(inner(x) + inner(x * 2))

    trace = agrees(loss, "function", x=X)
    assert texts(trace, "log") == ["tf.math.log(a)"]
    assert len(nodes(trace, "log")) == 2
    assert unknown(trace) == []
    assert {n.phase for n in trace.graph.nodes if n.spelling == "Reciprocal"} == {BACKWARD}


def test_a_tf_function_as_the_target():
    @tf.function
    def loss(x):
        return tf.reduce_mean(tf.square(x))

    trace = agrees(loss, "function", x=X)
    assert texts(trace, "square") == ["tf.square(x)"]
    assert not any("tf.function" in note for note in trace.graph.notes)


def test_captured_constants_and_variables():
    weight = tf.Variable([1.0, 2.0, 3.0])
    offset = tf.constant([[0.5]])

    def loss(x):
        return tf.reduce_sum(x * weight + offset)

    trace = agrees(loss, "function", x=X)
    assert set(trace.graph.inputs) == {"x", "weight"}


def test_one_trace_serves_all_inputs_of_a_shape():
    traced = []

    def loss(x):
        traced.append(x)
        return tf.reduce_sum(x)

    program = load(loss, "loss")
    for k in range(5):
        assert program.run({"x": X + k}, ("x",), "function").loss == pytest.approx((X + k).sum(), rel=1e-5)
        program.capture({"x": X + k}, ("x",), "function")
    assert len(traced) == 1
    program.run({"x": X[:2]}, ("x",), "function")
    assert len(traced) == 2


def test_forward_nodes_come_from_the_loss():
    trace = capture(cross_entropy, "function", x=X, t=T)
    assert {n.phase for n in trace.graph.nodes} == {FORWARD, BACKWARD}
    loss = trace.graph.outputs[0].node
    assert trace.graph.nodes[loss].phase == FORWARD


# ---------------------------------------------------------------- the graph that is believed


def halved(x):
    return tf.reduce_sum(tf.exp(x) * 0.5)


def planted(monkeypatch, *names):
    """From now on these functions of `graph` give the graph of another loss, which takes and gives the same kinds of tensors."""
    real = {name: getattr(graph, name) for name in names}
    program = load(lambda x: tf.reduce_sum(tf.exp(x) * 0.25), "other")
    program.run({"x": X}, ("x",), "function")
    (other,) = program._compiled.values()
    monkeypatch.setattr(graph, "_executed", lambda compiled, tensors: (real["_executed"](compiled, tensors)[0], graph._rewritten(other)))
    if "_rewritten" in names:
        wrong = graph._rewritten(other)
        monkeypatch.setattr(graph, "_rewritten", lambda compiled: wrong)


def constants(trace):
    return {float(n.attrs["value"].flat[0]) for n in trace.graph.nodes if n.op == "const" and n.format.is_float}


def test_a_graph_of_another_function_is_not_believed(monkeypatch):
    planted(monkeypatch, "_executed")
    trace = agrees(halved, "function", x=X)
    assert 0.5 in constants(trace)
    assert 0.25 not in constants(trace)


def test_without_a_graph_that_gives_the_real_results_the_loss_is_refused(monkeypatch):
    planted(monkeypatch, "_executed", "_rewritten")
    with pytest.raises(TargetError, match="does not tell which graph it runs"):
        capture(halved, "function", x=X)


def test_graphs_of_earlier_losses_are_forgotten():
    def first(x):
        return tf.reduce_mean(doubled(x, wrong=False))

    def second(x):
        return tf.reduce_mean(doubled(x, wrong=True))

    def doubled(x, *, wrong):
        @tf.custom_gradient
        def softplus(x):
            return tf.nn.softplus(x), (lambda g: 2 * g * tf.sigmoid(x)) if wrong else (lambda g: g * tf.exp(x) / (1 + tf.exp(x)))

        return softplus(x)

    agrees(first, "function", x=X)
    agrees(second, "function", x=X.astype(np.float64))
    agrees(halved, "function", x=X)
    agrees(halved, "function", x=X.astype(np.float16))


def test_which_graphs_are_a_functions_own():
    def reported(factor):
        program = load(lambda x: tf.reduce_sum(tf.exp(x) * factor), "loss")
        program.run({"x": X}, ("x",), "function")
        (compiled,) = program._compiled.values()
        ctx, x = context.context(), tf.constant(X)
        ctx.enable_graph_collection()
        try:
            ctx.export_run_metadata()
            ctx.clear_kernel_cache()
            compiled.traced(x)
            (found,) = ctx.export_run_metadata().function_graphs
        finally:
            ctx.disable_graph_collection()
        return compiled.traced, found

    half, of_half = reported(0.5)
    third, of_third = reported(1 / 3)
    assert graph._is_of(half, of_half)
    assert graph._is_of(third, of_third)
    assert not graph._is_of(half, of_third)
    assert not graph._is_of(third, of_half)


def test_nothing_is_collected_after_a_recording():
    capture(halved, "function", x=X)
    context.context().export_run_metadata()
    context.context().clear_kernel_cache()
    tf.function(lambda x: tf.exp(x) + 1.0, autograph=False)(tf.constant(X))
    assert not context.context().export_run_metadata().function_graphs


@pytest.mark.parametrize("other", [1.01, 0.0, np.nan, np.inf])
def test_results_are_compared_up_to_the_order_of_summation(other):
    real = tf.constant([1.0, 2.0])
    assert graph._alike_results(tf.constant([np.nextafter(np.float32(1), np.float32(2)), 2.0]), real)
    assert not graph._alike_results(tf.constant([other, 2.0]), real)
    assert not graph._alike_results(tf.cast(real, tf.float64), real)
    assert graph._alike_results(tf.constant([np.nan, np.inf]), tf.constant([np.nan, np.inf]))


def test_a_loss_that_changes_a_variable_is_compared_from_the_same_state():
    class Counted(tf.keras.losses.Loss):
        def __init__(self):
            super().__init__()
            self.calls = tf.Variable(1.0, trainable=False)

        def call(self, y_true, y_pred):
            self.calls.assign_add(1.0)
            return tf.reduce_mean(tf.square(y_true - y_pred)) * self.calls

    agrees(Counted(), "function", y_true=T, y_pred=X)


# ---------------------------------------------------------------- small constants that the source adds


def added(trace):
    return [(a.value, a.site.text, a.format.name) for a in trace.graph.added]


@pytest.mark.parametrize("mode", ["function", "xla"])
def test_small_constants_of_the_source_are_known(mode):
    outside = tf.constant(2e-4)

    @tf.function
    def safe_log(z, eps):
        return tf.math.log(z + eps)

    def loss(x):
        p = tf.maximum(tf.sigmoid(x), 1e-5)
        q = 1.0 - p + 1e-8
        return tf.reduce_sum(safe_log(q, tf.constant(3e-6)) + (p + outside) - tf.cast(tf.constant(5e-7, tf.float64), tf.float32) + 0.5)

    found = added(capture(loss, mode, x=X))
    assert sorted(value for value, _, _ in found) == pytest.approx([1e-8, 5e-7, 3e-6, 1e-5, 2e-4])
    texts_of = {round(-np.log10(value), 1): text for value, text, _ in found}
    assert texts_of[8.0] == "1.0 - p + 1e-8"
    assert texts_of[5.5] == "z + eps"
    assert {name for *_, name in found} == {"float32"}


def test_a_constant_that_rounds_to_zero_counts_as_written():
    def loss(x):
        return tf.reduce_sum(tf.math.log(x + 1e-8))

    assert added(capture(loss, "function", x=X.astype(np.float16))) == [(1e-8, "x + 1e-8", "float16")]
    assert added(capture(loss, "eager", x=X)) == []


@pytest.mark.parametrize("mode", ["eager", "function"])
def test_a_number_of_keras_that_rounding_has_changed_is_known(mode):
    def loss(y_true, y_pred):
        return tf.keras.losses.binary_crossentropy(y_true, y_pred)

    def written(dtype):
        trace = capture(loss, mode, y_true=T.astype(dtype), y_pred=T.astype(dtype))
        return [n.attrs["written"] for n in trace.graph.nodes if n.op == "const" and n.attrs["value"] == 1 and "written" in n.attrs]

    assert set(written(np.float16)) == {1 - tf.keras.config.epsilon()}
    assert written(np.float32) == []
