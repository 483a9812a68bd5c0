"""The concrete run: real formats, the same without rounding, many inputs at once, what cannot be computed."""

import numpy as np
import pytest
from tests.analysis.small import Small, full

from whynan.analysis.evaluate import ancestors, evaluate, evaluate_many, fill, finite
from whynan.errors import OpError
from whynan.ir.dtype import BFLOAT16, FLOAT16, FLOAT32


def test_values_have_the_formats_of_their_nodes() -> None:
    s = Small()
    x = s.input("x", 2)
    half = s.op("cast", x, fmt=FLOAT16)
    values = evaluate(s.graph(s.op("add", half, s.const(1e-8, FLOAT16))), full(x=[1.0, 0.1]))
    assert [v.dtype for v in values if v is not None] == [np.float32, np.float16, np.float16, np.float16]
    assert values[3].tolist() == [1.0, float(np.float16(0.1))]


def test_without_rounding_an_epsilon_stays() -> None:
    s = Small()
    g = s.graph(s.op("add", s.input("x"), s.const(np.float32(1e-8))))
    narrow, wide = evaluate(g, full(x=1.0))[-1], evaluate(g, full(x=1.0), wide=True)[-1]
    assert narrow == 1.0 and wide is not None and wide.dtype == np.float64 and wide > 1.0


def test_an_unknown_operation_and_what_reads_it_have_no_value() -> None:
    s = Small()
    x = s.input("x", 2)
    u = s.op("unknown.thing", x)
    above, beside = s.op("exp", u), s.op("exp", x)
    values = evaluate(s.graph(s.op("add", above, beside)), full(x=[0.0, 0.0]))
    assert values[u] is None and values[above] is None and values[-1] is None
    assert values[beside].tolist() == [1.0, 1.0]


def test_a_random_number_is_not_made_up() -> None:
    s = Small()
    r = s.op("random", shape=(2,), fmt=FLOAT32, low=0.0, high=1.0)
    assert evaluate(s.graph(r), {})[r] is None


def test_values_that_were_seen_are_kept_and_used() -> None:
    s = Small()
    x = s.input("x", 2)
    u = s.op("unknown.thing", x)
    above = s.op("exp", u)
    seen = fill(s.graph(above), [np.zeros(2, np.float32), np.ones(2, np.float32), None])
    assert seen[u].tolist() == [1.0, 1.0] and seen[above].tolist() == pytest.approx([np.e, np.e])


def test_a_constant_kept_as_one_element_has_its_full_shape() -> None:
    s = Small()
    c = s.builder.const(np.full((2, 3), 7.0, np.float32), FLOAT32)
    value = evaluate(s.graph(c), {})[c]
    assert s.builder.nodes[c].attrs["value"].size == 1 and value.shape == (2, 3) and (value == 7).all()


def test_many_inputs_at_once_are_the_same_as_one_by_one() -> None:
    s = Small()
    x, y = s.input("x", 3, 4), s.input("y", 4)
    quotient = s.op("div", x, s.op("add", y, s.const(2.0)))
    loss = s.reduce("sum", s.op("log", s.op("square", quotient)), -1)
    rng = np.random.default_rng(0)
    xs, ys = rng.normal(size=(5, 3, 4)).astype(np.float32), rng.random((5, 4)).astype(np.float32)
    graph = s.graph(loss)
    together = evaluate_many(graph, sorted(ancestors(graph, loss)), {"x": xs, "y": ys})[loss]
    alone = [evaluate(graph, {"x": a, "y": b})[loss] for a, b in zip(xs, ys, strict=True)]
    assert together.shape == (5, 3, 1)
    np.testing.assert_allclose(together, np.stack(alone), rtol=1e-6)


def test_many_inputs_through_an_unknown_operation_raise() -> None:
    s = Small()
    u = s.op("unknown.thing", s.input("x", 2))
    with pytest.raises(OpError):
        evaluate_many(s.graph(u), [0, u], {"x": np.zeros((3, 2), np.float32)})


def test_ancestors_are_a_node_and_all_that_it_reads() -> None:
    s = Small()
    x, y = s.input("x", 2), s.input("y", 2)
    a = s.op("exp", x)
    b = s.op("log", y)
    c = s.op("add", a, a)
    assert ancestors(s.graph(s.op("add", b, c)), c) == {x, a, c}


def test_finite_looks_at_every_element_in_every_format() -> None:
    assert finite(np.array([1, 2])) and finite(np.zeros(0, np.float32))
    assert not finite(np.array([0.0, np.inf])) and not finite(np.array([0.0, np.nan]).astype(BFLOAT16.numpy))
