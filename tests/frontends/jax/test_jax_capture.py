"""Recorded JAX losses: the graph computes what JAX computes, and each op stands at its exact expression, forward or backward."""

import sys
from dataclasses import replace
from types import ModuleType

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax import lax

from whynan.analysis.evaluate import fill
from whynan.errors import TargetError
from whynan.frontends.jax import MODES, load
from whynan.ir.frontend import Trace
from whynan.ir.graph import BACKWARD, FORWARD, Node

X = np.array([1.0, 2.0, 3.0], np.float32)

both = pytest.mark.parametrize("mode", MODES)


def capture(loss, mode="jit", wrt=("x",), **inputs) -> Trace:
    return load(loss, "loss").capture(inputs, wrt, mode)


def ops(trace: Trace, *names: str) -> list[Node]:
    return [n for n in trace.graph.nodes if n.op in names]


def text(node: Node) -> str:
    return node.site.text if node.site else ""


def agree(trace: Trace) -> None:
    """The graph, evaluated from its inputs alone, gives the values that JAX computed."""
    given = [v if n.op in ("input", "const") else None for n, v in zip(trace.graph.nodes, trace.values, strict=True)]
    found = fill(trace.graph, given)
    for output in trace.graph.outputs:
        np.testing.assert_allclose(found[output.node], trace.values[output.node], rtol=1e-5, atol=1e-7)


def test_a_graph_that_computes_something_else_is_noticed():
    trace = capture(lambda x: jnp.log(x).sum(), x=X)
    wrong = tuple(replace(n, op="exp") if n.op == "log" else n for n in trace.graph.nodes)
    with pytest.raises(AssertionError):
        agree(replace(trace, graph=replace(trace.graph, nodes=wrong)))


# ---------------------------------------------------------------- places


@both
def test_each_op_stands_at_its_expression(mode):
    def loss(x, t):
        y = jnp.log(x) + jnp.sqrt(x)
        return (y * t).sum()

    trace = capture(loss, mode, x=X, t=X)
    assert {(text(n), n.phase) for n in ops(trace, "log")} == {("jnp.log(x)", FORWARD)}
    assert {text(n) for n in ops(trace, "sqrt")} == {"jnp.sqrt(x)"}
    assert {text(n) for n in ops(trace, "add") if n.phase == FORWARD} == {"jnp.log(x) + jnp.sqrt(x)"}  # starts where the log starts
    (log,) = ops(trace, "log")
    assert log.site.file == __file__ and log.site.function.endswith("loss") and log.site.line == log.site.end_line
    agree(trace)


@both
def test_a_derivative_stands_at_its_forward_expression(mode):
    def loss(x):
        return (jnp.sqrt(x) + jnp.log(x) * 3).sum()

    trace = capture(loss, mode, x=X)
    by_source = {n.source: n for n in trace.graph.nodes if n.phase == FORWARD and n.op in ("log", "sqrt")}
    backward = [n for n in ops(trace, "div") if n.phase == BACKWARD]
    assert {text(n) for n in backward} == {"jnp.sqrt(x)", "jnp.log(x)"}
    assert all(text(by_source[n.derives]) == text(n) for n in backward)
    assert not [n for n in ops(trace, "div") if n.phase == FORWARD]


@both
def test_the_same_call_at_two_places_keeps_both_places(mode):
    def loss(x, t):
        a = jax.nn.log_softmax(x)
        b = jax.nn.log_softmax(t)
        return (a * b).sum()

    trace = capture(loss, mode, ("x", "t"), x=X, t=X + 1)
    assert {text(n) for n in ops(trace, "log")} == {"jax.nn.log_softmax(x)", "jax.nn.log_softmax(t)"}
    assert {text(n) for n in ops(trace, "div")} == {"jax.nn.log_softmax(x)", "jax.nn.log_softmax(t)"}
    assert all("log_softmax" in n.site.detail for n in ops(trace, "log"))
    agree(trace)


@both
def test_places_inside_the_users_own_jitted_functions(mode):
    @jax.jit
    def inner(v):
        return jnp.log(v) / jnp.sqrt(v)

    trace = capture(lambda x: inner(x).sum() + inner(2 * x).sum(), mode, x=X)
    assert {text(n) for n in ops(trace, "log")} == {"jnp.log(v)"}
    assert {text(n) for n in ops(trace, "sqrt") if n.phase == FORWARD} == {"jnp.sqrt(v)"}
    agree(trace)


@both
def test_a_library_function_has_the_users_expression_and_its_own_line_as_detail(mode):
    def loss(x, t):
        return optax.losses.kl_divergence(x, t).sum()

    trace = capture(loss, mode, x=X, t=X)
    (log,) = ops(trace, "log")
    assert text(log) == "optax.losses.kl_divergence(x, t)"
    assert "optax/losses" in log.site.detail and "kl_divergence" in log.site.detail


@both
@pytest.mark.parametrize(("target", "end"), [(optax.losses.kl_divergence, "optax"), (jax.nn.log_softmax, "functions.py")])
def test_a_target_out_of_a_library_has_that_librarys_lines(mode, target, end):
    inputs = {"x": X} if target is jax.nn.log_softmax else {"log_predictions": X, "targets": X}
    trace = load(target, "loss").capture(inputs, tuple(inputs), mode)
    (log,) = ops(trace, "log")
    assert end in log.site.file and "log(" in log.site.text


@pytest.mark.slow
@both
def test_every_op_of_a_loss_has_a_place(mode):
    def loss(x, t):
        p = jax.nn.softmax(x, axis=-1)
        return optax.losses.huber_loss(p, t).mean() - jnp.mean(jnp.where(t > 0.5, jnp.log(p), 0.0)) + jnp.std(x)

    trace = capture(loss, mode, x=np.ones((40, 3), np.float32), t=np.eye(3, dtype=np.float32)[[0] * 40])
    assert not [n.op for n in trace.graph.nodes if n.site is None and n.op not in ("input", "const")]


# ---------------------------------------------------------------- what is recorded


def test_jit_and_eager_are_recorded_as_the_programs_that_they_are():
    def loss(x):
        return -jnp.log(1.0 - x + 1e-8).sum()

    x = np.array([0.25, 0.5], np.float32)
    assert not [n for n in ops(capture(loss, "jit", x=x), "add") if n.phase == FORWARD]
    (add,) = [n for n in ops(capture(loss, "eager", x=x), "add") if n.phase == FORWARD]
    assert text(add) == "1.0 - x + 1e-8"


@both
def test_values_of_inputs_and_outputs_are_those_that_jax_computed(mode):
    trace = capture(lambda x, t: (x * t).mean(), mode, x=X, t=X)
    values = dict(zip(trace.graph.nodes, trace.values, strict=True))
    for name, i in trace.graph.inputs.items():
        np.testing.assert_array_equal(trace.values[i], X, err_msg=name)
    loss, gradient = trace.graph.outputs
    assert (loss.kind, loss.name, gradient.kind, gradient.name) == ("loss", "loss", "gradient", "x")
    assert trace.values[loss.node] == pytest.approx(14 / 3)
    np.testing.assert_allclose(trace.values[gradient.node], X / 3, rtol=1e-6)
    assert all(v is None or v.shape == n.shape for n, v in values.items())


def test_all_values_of_an_eager_run_are_known():
    trace = capture(lambda x: jnp.log(x * 2 + 1).sum(), "eager", x=X)
    (log,) = ops(trace, "log")
    np.testing.assert_allclose(trace.values[log.id], np.log(X * 2 + 1), rtol=1e-6)


@both
def test_a_second_recording_has_the_new_values_and_the_same_graph(mode):
    program = load(lambda x: jnp.log(x).sum(), "loss")
    first, second = (program.capture({"x": x}, ("x",), mode) for x in (X, X + 1))
    assert [(n.op, n.inputs, n.site) for n in first.graph.nodes] == [(n.op, n.inputs, n.site) for n in second.graph.nodes]
    assert second.values[second.graph.outputs[0].node] == pytest.approx(np.log(X + 1).sum(), rel=1e-6)
    assert first.values[first.graph.outputs[0].node] == pytest.approx(np.log(X).sum(), rel=1e-6)


@pytest.mark.slow
@both
def test_two_programs_of_one_loss_are_recorded_alike(mode):
    def loss(x):
        return jnp.std(jax.nn.softmax(x)) + jnp.log(x).sum()

    first, second = (capture(loss, mode, x=X).graph for _ in range(2))
    assert [(n.op, n.inputs, n.phase, n.site, n.source, n.derives) for n in first.nodes] == [
        (n.op, n.inputs, n.phase, n.site, n.source, n.derives) for n in second.nodes
    ]


@both
def test_unused_inputs_and_constants_of_any_size(mode):
    table = np.arange(200, dtype=np.float32)

    def loss(u, x):
        return (jnp.log(x)[0] * table).sum()

    trace = capture(loss, mode, ("u", "x"), u=X, x=X + 1)
    assert set(trace.graph.inputs) == {"u", "x"}
    np.testing.assert_array_equal(trace.values[trace.graph.inputs["u"]], X)
    agree(trace)


@both
def test_integers_are_cast_as_jax_does_and_subnormals_are_flushed(mode):
    trace = capture(lambda x, i: x[i].sum(), mode, x=X, i=np.array([0, 2]))
    index = trace.graph.nodes[trace.graph.inputs["i"]]
    (cast,) = [n for n in ops(trace, "cast") if n.inputs == (index.id,)]
    assert (index.format.name, cast.format.name) == ("int64", "int32")
    assert trace.graph.nodes[trace.graph.inputs["x"]].format.flush
    agree(trace)


@both
def test_several_results_are_summed_and_said(mode):
    trace = capture(lambda x: {"a": jnp.log(x), "b": x.sum()}, mode, x=X)
    assert trace.values[trace.graph.outputs[0].node] == pytest.approx(np.log(X).sum() + 6, rel=1e-6)
    assert trace.graph.notes == ("the output has 2 floating tensors: the sum of all their elements is checked",)
    agree(trace)


@pytest.mark.slow
@both
def test_control_flow_and_transformations(mode):
    def loss(x):
        first = lax.cond(x[0] > 0, jnp.log, jnp.abs, x[0])
        total, _ = lax.scan(lambda c, v: (c + jnp.log(v), None), first, x)
        norms = jax.vmap(jnp.linalg.norm)(x.reshape(3, 1)).sum()
        return total + norms + jax.checkpoint(lambda v: jnp.sin(v).sum())(x) + lax.fori_loop(0, 3, lambda i, c: c * 0.5, x).sum()

    trace = capture(loss, mode, x=X)
    assert not [n.op for n in trace.graph.nodes if n.op.startswith("unknown")]
    assert {text(n) for n in ops(trace, "log")} <= {"jnp.log(v)", "lax.cond(x[0] > 0, jnp.log, jnp.abs, x[0])"}
    agree(trace)


@both
def test_a_loop_without_an_end_in_sight_is_unknown_by_name(mode):
    def loss(x):
        return lax.stop_gradient(lax.while_loop(lambda c: c.sum() < 10, lambda c: 2 * c, x)).sum() + x.sum()

    assert [n.op for n in capture(loss, mode, x=X).graph.nodes if n.op.startswith("unknown")] == ["unknown:hlo.while"]


@both
def test_a_flax_module_is_a_loss_like_any_other(mode):
    dense = nn.Dense(1)
    weights = dense.init(jax.random.PRNGKey(0), X[None])

    def loss(x, y):
        return ((dense.apply(weights, x) - y) ** 2).mean()

    agree(capture(loss, mode, x=X[None], y=np.ones((1, 1), np.float32)))


def test_random_numbers_under_a_fixed_key_are_constants_of_an_eager_run():
    def loss(x):
        return (jnp.log(x) * jax.random.uniform(jax.random.key(0), x.shape)).sum()

    agree(capture(loss, "eager", x=X))


# ---------------------------------------------------------------- what is empty


def test_a_mean_of_no_elements_is_a_mean_though_the_compiler_has_made_it_a_constant():
    trace = capture(lambda x: jnp.mean(jnp.square(x[1:] - x[:-1])), "eager", x=X[:1])
    (mean,) = ops(trace, "mean")
    assert text(mean) == "jnp.mean(jnp.square(x[1:] - x[:-1]))" and mean.phase == FORWARD
    assert np.isnan(trace.values[trace.graph.outputs[0].node])
    agree(trace)


def test_a_loss_that_is_nan_whatever_goes_in_is_recorded():
    trace = capture(lambda x: jnp.mean(x[1:]), "jit", x=X[:1])
    assert np.isnan(trace.values[trace.graph.outputs[0].node])


# ---------------------------------------------------------------- handwritten derivatives


@jax.custom_vjp
def my_root(x):
    return jnp.sqrt(x)


def my_root_forward(x):
    return jnp.sqrt(x), x


def my_root_backward(x, g):
    return (g / (2 * jnp.sqrt(jnp.abs(x))),)


my_root.defvjp(my_root_forward, my_root_backward)


@both
def test_what_a_rule_of_the_users_computes_stands_in_the_rule(mode):
    trace = capture(lambda x: (my_root(x) * jnp.log(x)).sum(), mode, x=X)
    assert {text(n) for n in ops(trace, "abs")} == {"jnp.abs(x)"}
    assert {n.site.function for n in ops(trace, "abs")} == {"my_root_backward"}
    assert {text(n) for n in ops(trace, "sqrt") if n.phase == BACKWARD} >= {"jnp.sqrt(jnp.abs(x))"}
    assert {text(n) for n in ops(trace, "div")} >= {"jnp.log(x)"}  # a derivative of JAX's own stands at the forward expression
    assert [s.text for s in trace.graph.handwritten] == ["my_root(x)"]
    agree(trace)


@jax.custom_vjp
def my_log(x):
    return jnp.log(x)


my_log.defvjp(lambda x: (my_log(x), x), lambda x, g: (g / x,))


@jax.custom_jvp
def my_exp(x):
    return jnp.exp(x)


my_exp.defjvp(lambda primals, tangents: (my_exp(*primals), my_exp(*primals) * tangents[0]))


@pytest.mark.slow
@both
def test_the_users_own_derivatives_are_told_from_jaxs(mode):
    def loss(x):
        return (my_log(x) + jax.nn.relu(x) + jax.jit(my_exp)(x)).sum() + jax.nn.logsumexp(x)

    trace = capture(loss, mode, x=X)
    assert [s.text for s in trace.graph.handwritten] == ["my_log(x)", "jax.jit(my_exp)(x)"]
    agree(trace)


# ---------------------------------------------------------------- looks and errors


def looking(x):
    if x.sum() > 0:
        return jnp.log(x).sum()
    return x.sum()


def test_a_look_at_a_value_is_an_assumption_in_mode_eager():
    trace = capture(looking, "eager", x=X)
    (look,) = trace.graph.assumptions
    assert (look.what, look.low, look.high) == ("bool(array)", 1.0, 1.0)
    assert look.site.text == "x.sum() > 0"
    assert trace.graph.nodes[look.node].op == "gt" and trace.graph.nodes[look.node].phase == FORWARD


@pytest.mark.parametrize(
    ("loss", "what"),
    [
        (lambda x, m: jnp.log(x)[m].sum(), "numpy.asarray(array)"),
        (lambda x, m: jnp.log(x).sum() * np.asarray(m).sum(), "numpy.asarray(array)"),
        (lambda x, m: jnp.log(x).sum() * m.any().item(), "bool(array)"),
        (lambda x, m: jnp.log(x).sum() * float(m[0]), "bool(array)"),
        (lambda x, m: jnp.log(x)[jnp.nonzero(m)[0]].sum(), "int(array)"),
    ],
)
def test_eager_code_may_look_at_what_is_not_differentiated(loss, what):
    mask = np.array([True, False, True])
    trace = capture(loss, "eager", x=X, m=mask)
    assert [a.what for a in trace.graph.assumptions] == [what]
    assert trace.values[trace.graph.outputs[0].node] == pytest.approx(float(loss(jnp.asarray(X), jnp.asarray(mask))), rel=1e-6)


@both
def test_what_jax_only_asks_itself_is_no_look(mode):
    trace = capture(lambda x, n: jnp.array(jnp.asarray(x) ** n + jnp.clip(x, 0, 1)).sum(), mode, x=X, n=np.float32(2))
    assert trace.graph.assumptions == ()


def test_a_look_at_a_value_is_an_error_in_mode_jit():
    with pytest.raises(TargetError) as caught:
        capture(looking, "jit", x=X)
    message = str(caught.value)
    assert "TracerBoolConversionError: Attempted boolean conversion of traced array with shape bool[]" in message
    assert f"{__file__}:{looking.__code__.co_firstlineno + 1}: if x.sum() > 0:" in message
    assert "it depends on x" in message and "jnp.where" in message


def test_an_index_of_booleans_is_an_error_in_mode_jit():
    with pytest.raises(TargetError, match="NonConcreteBooleanIndexError: Array boolean indices must be concrete") as caught:
        capture(lambda x: x[x > 1].sum(), "jit", x=X)
    assert "jnp.where" in caught.value.hint


@both
def test_numpy_in_a_traced_loss_is_an_error(mode):
    with pytest.raises(TargetError, match="TracerArrayConversionError") as caught:
        capture(lambda x: np.log(x).sum(), mode, x=X)
    assert "jnp for numpy" in caught.value.hint


@both
@pytest.mark.parametrize(
    ("loss", "message"),
    [
        (lambda x: jnp.argmax(x), "the loss returned an array of int32, in which there is no floating array"),
        (lambda x: "text", "the loss returned a str"),
        (lambda x: jnp.float32(3), "the loss does not depend on any of its inputs"),
        (lambda x: jnp.dot(x, jnp.ones(7)), "TypeError: dot_general requires"),
        (lambda x: missing, "NameError: name 'missing' is not defined"),  # noqa: F821
    ],
)
def test_what_cannot_be_recorded_is_said(mode, loss, message):
    with pytest.raises(TargetError, match=message):
        capture(loss, mode, x=X)


def test_a_dtype_without_a_format_is_refused():
    with pytest.raises(TargetError, match="no number format for c"):
        capture(lambda x, c: (x + c.real).sum(), x=X, c=X.astype(np.complex64))


def test_functions_of_one_name_in_files_of_two_modules_keep_their_files(tmp_path):
    def module(name: str, body: str) -> ModuleType:
        file = tmp_path / f"{name}.py"
        file.write_text(f"import jax.numpy as jnp\n\n\ndef loss(x):\n    return {body}\n")
        made = ModuleType(name)
        exec(compile(file.read_text(), str(file), "exec"), vars(made))
        sys.modules.pop(name, None)
        return made

    for name, text_ in (("one", "jnp.log(x)"), ("two", "jnp.sqrt(x)")):
        trace = capture(module(name, f"{text_}.sum()").loss, x=X)
        sites = {n.site for n in ops(trace, "log", "sqrt") if n.phase == FORWARD}
        assert {(s.file, s.line, s.text) for s in sites} == {(str(tmp_path / f"{name}.py"), 5, text_)}


def test_the_small_constants_that_the_source_adds_are_known_though_the_program_has_lost_them():
    eps = jnp.float32(1e-7)

    def loss(x):
        return -jnp.log(1.0 - x + 1e-8).sum() + jnp.sqrt(jnp.add(x, eps) * 2 + 1.0).sum() + optax.safe_increment(3)

    added = {(a.value, a.site.text) for a in capture(loss, "jit", x=X / 4).graph.added}
    assert {(round(v, 12), t) for v, t in added} == {(1e-8, "1.0 - x + 1e-8"), (1e-7, "jnp.add(x, eps)")}
    assert capture(loss, "eager", x=X / 4).graph.added == ()


def test_a_constant_that_rounds_to_zero_is_known_as_it_is_written():
    def loss(x):
        return (jnp.log(x + 1e-8) + jnp.maximum(x, 2e-9) + (x + 0.0)).sum()

    (added, floor) = capture(loss, "jit", x=X.astype(np.float16)).graph.added
    assert (added.value, added.site.text, added.format.name) == (1e-8, "x + 1e-8", "float16")
    assert (floor.value, floor.site.text) == (2e-9, "jnp.maximum(x, 2e-9)")


@both
def test_limits_that_rounding_has_changed_are_known_as_they_are_written(mode):
    def loss(x):
        return jnp.log(1 - jnp.clip(x, 1e-8, 1 - 1e-8)).sum()

    trace = capture(loss, mode, x=X / 4)
    written = {value for n in trace.graph.nodes for key, value in n.attrs.items() if key in ("written", "low_written", "high_written")}
    assert 1 - 1e-8 in written
