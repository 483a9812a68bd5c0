"""The soundness tests find what they are there for: each planted defect makes them fail."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from tests.soundness import fuzz
from tests.soundness.graphs import draw_case
from tests.soundness.test_real_torch import test_real_values_lie_within_their_bounds as check_real_values
from tests.soundness.torch_losses import EXAMPLES
from tests.soundness.violations import Violation, minimised, violations

from whynan.analysis import attained, boxes, branch, cauchy, propagate, relations, tighten, view
from whynan.domain.interval import Bounds, make, meet, settle
from whynan.ops import _opdef

MOST = 1500


def first_violation(compiled: bool = False) -> Violation | None:
    """The first violation among some graphs."""
    for k in range(MOST):
        wrong = next(violations(draw_case(np.random.default_rng([1, k]), compiled), ("refined", "split")), None)
        if wrong is not None:
            return wrong
    return None


def assert_found(compiled: bool = False) -> Violation:
    wrong = first_violation(compiled)
    assert wrong is not None
    small = minimised(wrong)
    assert len(small.case.graph.nodes) <= len(wrong.case.graph.nodes)
    return small


@pytest.fixture
def plant_op(monkeypatch: pytest.MonkeyPatch) -> Any:
    """Replaces facts of an op's record."""
    return lambda name, **facts: monkeypatch.setitem(_opdef._OPS, name, replace(_opdef.OPS[name], **facts))


def test_an_exponential_that_never_overflows(plant_op: Any) -> None:
    sound = _opdef.OPS["exp"].transfer
    plant_op("exp", transfer=lambda call, a: _finite(call, sound(call, a)), rounding="exact")
    small = assert_found()
    assert "exp" in {n.op for n in small.case.graph.nodes}


def _finite(call: Any, b: Bounds) -> Bounds:
    return make(np.minimum(b.lo, call.format.max), np.minimum(b.hi, call.format.max), nan=b.may_nan, neg_zero=False)


def test_a_division_without_negative_zeros(plant_op: Any) -> None:
    sound = _opdef.OPS["div"].transfer
    plant_op("div", transfer=lambda call, a, b: sound(call, a, replace(b, flags=b.flags & np.uint8(~4 & 255))))
    assert "div" in {n.op for n in assert_found().case.graph.nodes}


def test_an_analysis_that_raises(plant_op: Any) -> None:
    def raising(call: Any, a: Bounds) -> Bounds:
        raise ZeroDivisionError("planted")

    plant_op("sqrt", transfer=raising)
    small = assert_found()
    assert "ZeroDivisionError: planted" in str(small)
    assert len(small.case.graph.nodes) <= 3


def test_a_norm_that_is_never_rounded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(relations, "_norm_slack", lambda *anything: relations.EXACT)
    small = assert_found()
    assert {n.op for n in small.case.graph.nodes} & {"norm", "sqrt"}


def test_a_maximum_over_any_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(seen: view.View, a: view.Vertex, b: view.Vertex) -> view.Vertex | None:
        found = seen.reduced(b, base=-2)
        return None if found is None or found[0][0] != a[0] else a

    monkeypatch.setattr(relations, "_element", careless)
    assert_found()


def test_an_attained_value_that_ignores_axes(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = attained.Attained._reduced

    def careless(self: attained.Attained, node: Any) -> Bounds | None:
        every = frozenset(range(-len(self.view.nodes[node.inputs[0]].shape), 0))
        return sound(self, replace(node, attrs={**node.attrs, "dims": tuple(every)}) if "dims" in node.attrs else node)

    monkeypatch.setattr(attained.Attained, "_reduced", careless)
    assert_found()


def test_a_view_that_forgets_transpositions(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = view._source_axes

    def careless(node: Any, source: Any, axes: view.Axes) -> view.Axes | None:
        return axes if node.op == "permute" and node.shape == source.shape else sound(node, source, axes)

    monkeypatch.setattr(view, "_source_axes", careless)
    assert_found()


def test_a_difference_of_equal_infinities(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = tighten._same_operand

    def careless(node: Any, result: Bounds, operand: Bounds) -> Bounds:
        if node.op == "sub":
            return make(np.zeros(operand.shape), np.zeros(operand.shape), neg_zero=False, fraction=False)
        return sound(node, result, operand)

    monkeypatch.setattr(tighten, "_same_operand", careless)
    assert_found()


def test_a_split_that_loses_the_last_part(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = branch.split

    def careless(box: branch.Box, v: view.Vertex, fmt: Any, parts: int) -> branch.Box:
        return {u: Bounds(b.lo[:-1], b.hi[:-1], b.flags[:-1]) if len(b.lo) > 1 else b for u, b in sound(box, v, fmt, parts).items()}

    monkeypatch.setattr(branch, "split", careless)
    assert_found()


def test_a_cut_that_loses_the_point_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(branch, "critical", lambda *anything: [0.0])
    sound = boxes.narrow

    def careless(b: Bounds, lo: np.ndarray, hi: np.ndarray, fmt: Any) -> Bounds:
        narrowed = sound(b, lo, hi, fmt)
        return make(narrowed.lo, narrowed.hi, nan=narrowed.may_nan, pos_zero=False, neg_zero=False, fraction=~narrowed.integral, fmt=fmt)

    monkeypatch.setattr(boxes, "narrow", careless)
    assert_found()


def test_the_command_reports_a_violation(plant_op: Any, capsys: pytest.CaptureFixture[str]) -> None:
    plant_op("sub", transfer=lambda call, a, b: make(np.zeros(()), np.zeros(())))
    assert fuzz.main(["--graphs", "100", "--seed", "1", "--jobs", "1"]) == 1
    out = capsys.readouterr().out
    assert "proven within" in out
    assert " = sub(" in out


def test_real_runs_show_an_unsound_op(plant_op: Any) -> None:
    softmax = next(e for e in EXAMPLES if e.name == "softmax_naive")
    check_real_values(softmax, "float32")
    sound = _opdef.OPS["exp"].transfer
    plant_op("exp", transfer=lambda call, a: _finite(call, sound(call, a)), rounding="exact")
    with pytest.raises(pytest.fail.Exception, match="proven within"):
        check_real_values(softmax, "float32")


def test_a_relation_that_mistakes_the_axis_of_a_maximum(monkeypatch: pytest.MonkeyPatch) -> None:
    """A value minus a maximum of it along another axis may be positive."""
    monkeypatch.setattr(relations.Relations, "at_most", lambda self, a, b: relations.EXACT if self.view.op(b) == "amax" else None)
    assert "amax" in {n.op for n in assert_found().case.graph.nodes}


def test_a_fused_sum_that_is_rounded_twice(plant_op: Any) -> None:
    sum_of, product_of = (_opdef.OPS[name] for name in ("add", "mul"))

    def careless(call: Any, a: Bounds, b: Bounds, c: Bounds) -> Bounds:
        return sum_of.transfer(call, settle(product_of.transfer(call, a, b), call.format), c)

    plant_op("fma", transfer=careless)
    assert "fma" in {n.op for n in assert_found(compiled=True).case.graph.nodes}


def test_a_norm_under_a_root(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(cauchy, "_radicand", lambda seen, v: seen.inputs(v)[0] if seen.op(v) == "sqrt" else None)
    assert "norm" in {n.op for n in assert_found(compiled=True).case.graph.nodes}


def test_subnormals_that_are_kept(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(tighten, "entering", lambda b, fmt: b)
    assert_found(compiled=True)


def test_an_order_that_is_mistaken(monkeypatch: pytest.MonkeyPatch) -> None:
    sound = relations._in_order
    monkeypatch.setattr(relations, "_in_order", lambda facts, a, b, depth: sound(facts, relations.Term(a.kind, b), a.vertex, depth))
    assert "sort_values" in {n.op for n in assert_found(compiled=True).case.graph.nodes}


def test_a_choice_that_is_no_choice(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(state: Any, node: Any) -> None:
        if node.op == "where" and state.view.nodes[node.inputs[1]].shape == node.shape:
            state.view.choose(node.id, node.inputs[1])

    monkeypatch.setattr(propagate, "choose", careless)
    assert_found(compiled=True)


def test_rows_of_one_along_any_axis(monkeypatch: pytest.MonkeyPatch) -> None:
    def careless(state: Any, node: Any, result: Bounds) -> Bounds:
        found = state.view.reduced(state.view.root(node.id), -2)
        inside = found is not None and found[0][0] in state.simplexes
        return meet(result, make(np.full(result.shape, 0.999), np.full(result.shape, 1.001))) if inside else result

    monkeypatch.setattr(tighten, "_row_sum", careless)
    assert_found(compiled=True)
