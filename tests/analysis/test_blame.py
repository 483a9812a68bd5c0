"""From a failing run to its origin: the way back through choices, the chain, the words, and which output is explained."""

from typing import Any

import numpy as np
import pytest
import torch
from tests.analysis.small import Small, full

from whynan.analysis.blame import blame, number, summary
from whynan.analysis.evaluate import evaluate
from whynan.frontends.torch import load
from whynan.ir.dtype import BOOL
from whynan.ir.frontend import Trace
from whynan.ir.graph import BACKWARD, FORWARD, Graph, Node, Output


def run(small: Small, loss: int, gradients: dict[str, int] | None = None, **inputs: Any) -> Trace:
    """A graph with its values on one input."""
    graph = small.graph(loss, **(gradients or {}))
    given = {n: x if isinstance(x, np.ndarray) else np.asarray(x, np.float32) for n, x in inputs.items()}
    return Trace(graph, tuple(evaluate(graph, given)))


def test_nothing_is_blamed_where_all_is_finite() -> None:
    s = Small()
    assert blame(run(s, s.op("exp", s.input("x", 2)), x=[0.0, 1.0])) is None


def test_the_origin_is_the_operation_that_made_it_out_of_finite_numbers() -> None:
    s = Small()
    x = s.input("x", 2)
    log = s.op("log", x)
    loss = s.reduce("sum", s.op("neg", s.op("mul", log, s.const(2.0))), -1)
    why = blame(run(s, loss, x=[1.0, 0.0]))
    assert why is not None and why.node == log and why.output == "loss"
    assert [step.op for step in why.chain] == ["log", "mul", "neg", "sum"]


def test_the_loss_is_explained_before_the_gradients() -> None:
    s = Small()
    x = s.input("x", 1)
    log = s.op("log", x)
    s.place(phase=BACKWARD)
    slope = s.op("reciprocal", x)
    why = blame(run(s, log, {"x": slope}, x=[0.0]))
    assert why is not None and (why.output, why.phase, why.node) == ("loss", FORWARD, log)


def test_where_the_loss_is_finite_a_failing_gradient_is_followed_within_the_backward_half() -> None:
    s = Small()
    x = s.input("x", 1)
    s.place(source=1)
    log = s.op("log", x)
    s.place(source=2)
    loss = s.op("where", s.op("gt", x, s.const(0.0)), log, s.const(0.0))
    s.place(phase=BACKWARD, derives=1)
    slope = s.op("mul", s.const(0.0), s.op("reciprocal", x))
    why = blame(run(s, loss, {"x": slope}, x=[0.0]))
    assert why is not None and why.output == "x" and why.phase == BACKWARD
    assert why.op == "log" and "derivative of log" in why.message


def test_where_is_followed_into_the_branch_that_was_taken() -> None:
    s = Small()
    x, y, c = s.input("x", 2), s.input("y", 2), s.input("c", 2, fmt=BOOL)
    left, right = s.op("log", x), s.op("log", y)
    loss = s.op("where", c, left, right)
    trace = run(s, loss, x=[0.0, 1.0], y=[0.0, 0.0], c=np.array([False, True]))
    why = blame(trace)
    assert why is not None and why.node == right  # the other one fails too, but where it is not chosen


def test_a_chain_too_long_for_a_reader_keeps_its_ends() -> None:
    s = Small()
    x = s.input("x", 1)
    y = s.op("log", x)
    for _ in range(20):
        y = s.op("neg", y)
    loss = s.op("exp", s.op("abs", y))
    why = blame(run(s, loss, x=[0.0]))
    assert why is not None and len(why.chain) == 8
    assert why.chain[0].op == "log" and why.chain[-1].op == "exp"


def test_plumbing_is_left_out_of_the_chain_unless_it_is_the_origin() -> None:
    s = Small()
    x = s.input("x", 4)
    y = s.reshape(s.op("log", x), 2, 2)
    loss = s.reduce("sum", s.op("expand", s.reshape(y, 4), shape=(3, 4)), -1, -2)
    why = blame(run(s, loss, x=[1.0, 0.0, 1.0, 1.0]))
    assert why is not None and [step.op for step in why.chain] == ["log", "sum"]


def test_the_message_tells_the_operands_of_the_failing_element() -> None:
    s = Small()
    x, y = s.input("x", 3), s.input("y", 3)
    why = blame(run(s, s.op("div", x, y), x=[1.0, 7.5, 0.0], y=[1.0, 0.0, 2.0]))
    assert why is not None
    assert why.message == "div(7.5, 0) gives inf: a number other than 0 divided by 0 is infinite."


def test_the_message_names_the_epsilon_that_was_lost() -> None:
    def loss(p):
        return -torch.log(1 - p + 1e-50).sum()

    why = blame(load(loss, "loss").capture({"p": np.ones(2, np.float32)}, ("p",), "eager"))
    assert why is not None and why.cause == "epsilon-rounds-away"
    assert "1e-50 rounds to 0 in float32" in why.message


def test_a_reduction_is_summarised() -> None:
    s = Small()
    x = s.input("x", 3)
    why = blame(run(s, s.reduce("sum", x, -1), x=[3e38, 3e38, 1.0]))
    assert why is not None and why.cause == "sum-overflow" and "gives inf" in why.message


def test_a_value_that_was_never_seen_does_not_stop_the_walk() -> None:
    s = Small()
    x = s.input("x", 2)
    loss = s.op("log", s.op("unknown.thing", x))
    graph = s.graph(loss)
    trace = Trace(graph, (np.zeros(2, np.float32), None, np.array([-np.inf, 0.0], np.float32)))
    why = blame(trace)
    assert why is not None and why.node == loss and "?" in why.message


def test_an_unknown_operation_that_fails_is_named_with_the_general_cause() -> None:
    s = Small()
    u = s.op("unknown.thing", s.input("x", 2))
    trace = Trace(s.graph(u), (np.zeros(2, np.float32), np.array([np.nan, 0.0], np.float32)))
    why = blame(trace)
    assert why is not None and (why.op, why.cause) == ("unknown.thing", "other-domain-error")


@pytest.mark.parametrize(("x", "text"), [(0.5, "0.5"), (1e-8, "1e-08"), (3.0, "3"), (np.nan, "NaN"), (-np.inf, "-inf")])
def test_numbers_are_short(x: float, text: str) -> None:
    assert number(x) == text


@pytest.mark.parametrize(
    ("x", "text"),
    [
        ([], "no elements"),
        ([2.0, 2.0], "2"),
        ([1.0, 3.0], "1 to 3"),
        ([np.nan, 1.0, np.inf, np.inf], "1 NaN and 2 inf of 4 elements"),
        ([np.nan], "NaN"),
        ([np.inf, np.inf], "inf"),
    ],
)
def test_arrays_are_summed_up(x: list[float], text: str) -> None:
    assert summary(np.asarray(x, np.float32)) == text


def test_an_output_without_a_loss_is_explained_too() -> None:
    s = Small()
    x = s.input("x", 1)
    y = s.op("log", x)
    nodes: tuple[Node, ...] = tuple(s.builder.nodes)
    graph = Graph(nodes, s.inputs, (Output("gradient", "x", y),))
    why = blame(Trace(graph, tuple(evaluate(graph, full(x=[0.0])))))
    assert why is not None and why.output == "x"


def test_a_program_deeper_than_the_stack_is_explained() -> None:
    def recurrence(x: torch.Tensor) -> torch.Tensor:
        h = x
        for _ in range(600):
            h = h * h + x
        return h.sum()

    program = load(recurrence, "recurrence")
    found = blame(program.capture({"x": np.full(2, 4.0, np.float32)}, ("x",), "eager"))
    assert found is not None and found.cause == "square-overflow"


def test_an_infinity_that_the_loss_hides_is_the_cause_where_its_derivative_multiplies_with_it():
    s = Small()
    p = s.input("p", 2)
    s.place(source=0)
    log = s.op("log", p)
    s.place(source=1)
    product = s.op("where", s.op("eq", p, s.const(0.0)), s.const(0.0), s.op("mul", log, p))
    s.place(phase=BACKWARD, source=2, derives=1)
    slope = s.op("mul", log, s.const(-1.0))
    graph = s.graph(product, p=slope)
    given = [np.zeros(2, np.float32) if n.op == "input" else None for n in graph.nodes]
    why = blame(Trace(graph, tuple(given)))
    assert why is not None and (why.cause, why.phase) == ("log-of-zero", BACKWARD)


def test_a_mask_that_selects_more_without_rounding_is_no_obstacle() -> None:
    """1e-30 squared is 0 in float32, and no 0 in float64: the run without rounding is another one."""
    s = Small()
    x = s.input("x", 3)
    square = s.op("square", x)
    chosen = s.op("masked_select", x, s.op("gt", square, s.const(0.0)), shape=(2,), fmt=s.builder.format(x))
    loss = s.op("div", s.reduce("sum", chosen, -1), s.const(0.0))
    why = blame(run(s, loss, x=[1e-30, 1.0, 2.0]))
    assert why is not None and why.node == loss and why.cause == "div-by-zero"
