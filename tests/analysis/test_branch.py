"""Branch and prune on one element: which cones there are, what splitting decides, what it costs, what it leaves."""

from collections.abc import Callable

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

from whynan.analysis.branch import Pruned, prune
from whynan.analysis.cones import MAX_LEAVES, cones_of
from whynan.analysis.order import changed
from whynan.analysis.propagate import propagate
from whynan.analysis.relations import Relations
from whynan.analysis.revise import Revision
from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds, entering, meet
from whynan.ir.dtype import FLOAT16, FLOAT32, INT64, from_ordinal, ordinal
from whynan.ops._opdef import bound


def split(
    s: Small, root: int, *, budget: int = 4096, which: int = -1, bad: Callable[[Bounds], np.ndarray] | None = None, **x: Bounds
) -> Pruned:
    """Prune one cone of a node (the whole one unless `which` says otherwise) over the plain bounds."""
    view = View(s.graph(root))
    bounds = list(propagate(view.graph, x, refine=False).bounds)
    facts = Relations(view, bounds)
    cone = cones_of(view, view.root(root))[which]
    return prune(view, facts, cone, bad or (lambda b: b.nonfinite), budget)


UNIT = interval(0, 1)


def test_the_cone_of_an_elementwise_chain_ends_at_inputs_and_constants() -> None:
    s = Small()
    x = s.input("x", 4)
    one = s.const(1.0)
    root = s.op("log", s.op("sub", one, x))
    cones = cones_of(View(s.graph(root)), (root, (0,)))
    assert set(cones[-1].leaves) == {(x, (0,)), (one, ())} and cones[-1].root == (root, (0,))
    assert cones[-1].inner == ((root - 1, (0,)), (root, (0,)))


def test_a_cone_ends_at_a_reduction() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    total = s.reduce("sum", x, -1)
    root = s.op("div", x, total)
    assert set(cones_of(View(s.graph(root)), (root, (0, 1)))[-1].leaves) == {(x, (0, 1)), (total, (0, -1))}


def test_there_is_a_narrow_cone_where_all_depends_on_one_difference() -> None:
    s = Small()
    a, b = s.input("a", 4), s.input("b", 4)
    d = s.op("sub", a, b)
    root = s.op("sqrt", s.op("mul", d, d))
    narrow, whole = cones_of(View(s.graph(root)), (root, (0,)))
    assert narrow.leaves == ((d, (0,)),) and set(whole.leaves) == {(a, (0,)), (b, (0,))}


def test_a_guard_is_about_the_value_that_it_compares() -> None:
    s = Small()
    a, b = s.input("a", 4), s.input("b", 4)
    d = s.op("sub", s.op("div", s.op("mul", a, s.op("sub", s.const(1.0), a)), b), s.const(1.0))
    guarded = s.op("where", s.op("lt", s.op("abs", d), s.const(1e-6)), s.const(1e-6), d)
    root = s.op("lgamma", s.op("mul", a, guarded))
    assert {(a, (0,)), (d, (0,))} in [{v for v in c.leaves if v[0] in (a, b, d)} for c in cones_of(View(s.graph(root)), (root, (0,)))]
    proof = proven(s, root, a=interval(0.2, 0.7, 1), b=interval(0.05, 0.3, 1))
    assert proof.finite


def test_a_quotient_may_be_in_danger_by_its_divisor_alone() -> None:
    s = Small()
    x, y = s.input("x", 4), s.input("y", 4)
    d = s.op("mul", x, y)
    guarded = s.op("where", s.op("lt", s.op("abs", d), s.const(1e-3)), s.const(1e-3), d)
    root = s.op("div", s.op("add", s.op("mul", x, s.input("a", 4)), s.op("mul", y, s.input("b", 4))), guarded)
    around = interval(-1, 1, 1)
    assert proven(s, root, x=around, y=around, a=around, b=around).finite


def test_numbers_do_not_count_as_leaves() -> None:
    s = Small()
    x = s.input("x", 4)
    terms = [s.op("div", s.const(float(k + 1)), s.op("add", x, s.const(float(k)))) for k in range(MAX_LEAVES)]
    total = s.const(1.0)
    for term in terms:
        total = s.op("add", total, term)
    root = s.op("log", total)
    leaves = cones_of(View(s.graph(root)), (root, (0,)))[-1].leaves
    assert [v for v in leaves if s.builder.nodes[v[0]].op != "const"] == [(x, (0,))]


def test_what_is_never_selected_is_not_looked_at() -> None:
    s = Small()
    x = s.input("x", 4)
    pole = s.op("div", s.const(1.0), s.op("sub", x, s.const(5.0)))
    small = s.op("lt", s.op("add", s.op("abs", x), s.const(1.0)), s.const(0.5))
    for sides, looked in (((pole, x), False), ((x, pole), True)):
        proof = proven(s, s.op("where", small, *sides), x=interval(1, 20, 1))
        assert (proof.boxes > 0) == looked and proof.finite != looked


def test_rows_and_columns_of_one_input_are_two_leaves() -> None:
    s = Small()
    x = s.input("x", 4)
    root = s.op("add", s.reshape(x, 4, 1), s.op("exp", s.reshape(x, 1, 4)))
    assert set(cones_of(View(s.graph(root)), (root, (0, 1)))[-1].leaves) == {(x, (0,)), (x, (1,))}


def test_a_wide_expression_keeps_to_the_limit_of_leaves() -> None:
    s = Small()
    total = s.input("x0", 4)
    for k in range(1, 40):
        total = s.op("add", total, s.op("exp", s.input(f"x{k}", 4)))
    for cone in cones_of(View(s.graph(total)), (total, (0,))):
        assert len(cone.leaves) <= MAX_LEAVES + 1


def test_the_value_that_occurs_twice_is_split_until_both_occurrences_agree() -> None:
    s = Small()
    x = s.input("x", 4)
    root = s.op("reciprocal", s.op("add", s.op("square", x), s.op("square", s.op("sub", s.const(1.0), x))))
    found = split(s, root, x=interval(-10, 10))
    assert found.decided and found.left == () and found.bounds.finite and ends(found.bounds)[0] > 0


def test_where_takes_one_branch_in_each_box() -> None:
    s = Small()
    x = s.input("x", 4)
    root = s.op("where", s.op("gt", x, s.const(0.25)), s.op("log", s.op("sub", x, s.const(0.2))), s.const(-7.0))
    found = split(s, root, x=UNIT)
    low, high = ends(found.bounds)
    assert found.decided and low == -7.0 and -0.3 < high < 0.0


def test_zeros_of_both_signs_and_subnormals_are_boxes_of_their_own() -> None:
    s = Small()
    x = s.input("x", 4)
    root = s.op("where", s.op("eq", x, s.const(0.0)), s.const(0.0), s.op("log", s.op("abs", x)))
    found = split(s, root, x=interval(-1, 1))
    assert found.decided and -104 < ends(found.bounds)[0] < -103


def test_a_quotient_masked_where_the_divisor_is_zero_is_decided() -> None:
    s = Small()
    x = s.input("x", 4)
    zero = s.op("eq", x, s.const(0.0))
    root = s.op("where", zero, s.const(0.0), s.op("div", x, s.op("where", zero, s.const(1.0), x)))
    found = split(s, root, x=interval(-1e4, 1e4))
    assert found.decided and ends(found.bounds)[1] < np.inf


def test_the_derivative_of_a_norm_masked_at_zero_is_decided_by_the_relation() -> None:
    """x / norm where the norm is 0 gives 0: |x| <= norm bounds the quotient elsewhere."""
    s = Small()
    x = s.input("x", 3, 4)
    norm = s.reduce("norm", x, -1, ord=2.0)
    root = s.op("where", s.op("eq", norm, s.const(0.0)), s.const(0.0), s.op("div", x, norm))
    found = split(s, root, x=interval(-1e4, 1e4, 2))
    assert found.decided and found.bounds.finite


def test_without_the_mask_it_is_left_open_at_zero() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    norm = s.reduce("norm", x, -1, ord=2.0)
    found = split(s, s.op("div", x, norm), x=interval(-1e4, 1e4, 2))
    assert not found.decided and found.left and found.bounds.may_nan.any()


def test_an_unrelated_divisor_is_not_helped() -> None:
    s = Small()
    x, y = s.input("x", 3, 4), s.input("y", 3, 4)
    norm = s.reduce("norm", y, -1, ord=2.0)
    root = s.op("where", s.op("eq", norm, s.const(0.0)), s.const(0.0), s.op("div", x, norm))
    wide = interval(-1e4, 1e4, 2)
    assert not split(s, root, x=wide, y=wide).decided


def test_boxes_with_nan_are_kept() -> None:
    s = Small()
    x = s.input("x", 4)
    root = s.op("exp", s.op("neg", s.op("abs", x)))
    found = split(s, root, x=interval(-1, 1, nan=True))
    assert not found.decided and found.bounds.may_nan.all()


def test_nan_is_masked_away_by_a_test_for_it() -> None:
    s = Small()
    x = s.input("x", 4)
    root = s.op("where", s.op("isfinite", x), x, s.const(0.0))
    found = split(s, root, x=interval(-1, np.inf, nan=True))
    assert found.decided and found.bounds.finite


def test_a_comparison_with_nan_is_false() -> None:
    s = Small()
    x = s.input("x", 4)
    kept = split(s, s.op("where", s.op("le", x, s.const(1.0)), x, s.const(5.0)), x=interval(-1, 1, nan=True))
    assert kept.decided and ends(kept.bounds) == (-1.0, 5.0)
    leaked = split(s, s.op("where", s.op("gt", x, s.const(1.0)), s.const(5.0), x), x=interval(-1, 1, nan=True))
    assert not leaked.decided and leaked.bounds.may_nan.any()


@pytest.mark.parametrize("op", ["log", "reciprocal", "rsqrt"])
def test_a_real_danger_is_given_up_quickly(op: str) -> None:
    s = Small()
    x = s.input("x", 4)
    found = split(s, s.op(op, x), x=UNIT)
    assert not found.decided and found.boxes <= 12
    assert any(r[(x, (0,))] == (0.0, 0.0) or r[(x, (0,))][0] == 0.0 for r in found.left)


def test_a_danger_at_one_float_is_found_by_the_constants_of_the_cone() -> None:
    s = Small()
    x = s.input("x", 4)
    found = split(s, s.op("reciprocal", s.op("sub", x, s.const(0.3))), x=UNIT)
    edge = float(np.float32(0.3))
    assert not found.decided and found.boxes <= 30
    assert any(r[(x, (0,))] == (edge, edge) for r in found.left)


def test_the_budget_is_respected() -> None:
    s = Small()
    x, y = s.input("x", 4), s.input("y", 4)
    root = s.op("log", s.op("add", s.op("square", s.op("sub", x, y)), s.op("sub", s.op("exp", x), s.op("exp", y))))
    few, more = split(s, root, budget=50, x=UNIT, y=UNIT), split(s, root, budget=1000, x=UNIT, y=UNIT)
    assert few.boxes <= more.boxes and few.boxes < 50 + 4 * 16 * 64


def test_any_property_can_be_asked_for() -> None:
    """Not only finiteness: here that x - x^2 stays below 0.26 on [0, 1], which intervals alone put at 1."""
    s = Small()
    x = s.input("x", 4)
    root = s.op("sub", x, s.op("square", x))
    found = split(s, root, bad=lambda b: b.hi > 0.26, x=UNIT)
    assert found.decided and 0.25 <= ends(found.bounds)[1] <= 0.26
    impossible = split(s, root, bad=lambda b: b.hi > 0.2, x=UNIT)
    assert not impossible.decided


def test_whole_numbers_are_split_as_whole_numbers() -> None:
    s = Small()
    n = s.input("n", 4, fmt=INT64)
    x = s.op("cast", n, fmt=FLOAT16)
    root = s.op("reciprocal", s.op("sub", x, s.const(2.5, FLOAT16)))
    found = split(s, root, n=interval(0, 5, 1, INT64))
    assert found.decided and ends(found.bounds) == (-2.0, 2.0)


def test_bounds_of_single_elements_are_split_side_by_side() -> None:
    s = Small()
    x = s.input("x", 2)
    b = Bounds(np.array([1.0, -1.0]), np.array([2.0, 1.0]), np.array([8, 14], np.uint8))
    found = split(s, s.op("reciprocal", x), x=b)
    assert found.bounds.nonfinite.tolist() == [False, True]


def test_an_empty_leaf_means_that_nothing_is_computed() -> None:
    s = Small()
    x = s.input("x", 4)
    root = s.op("where", s.op("gt", x, s.const(5.0)), s.op("log", s.op("sub", x, s.const(5.0))), s.const(0.0))
    found = split(s, root, x=UNIT)
    assert found.decided and ends(found.bounds) == (0.0, 0.0)


def test_neighbouring_floats_are_told_apart_wherever_they_stand() -> None:
    """Splitting ends at single values, also where a part's border falls between the two."""
    s = Small()
    x, edge = s.input("x", 4), s.input("edge")
    root = s.op("where", s.op("eq", x, edge), s.const(0.0), s.op("reciprocal", s.op("sub", x, edge)))
    for k in range(17):
        low = float(from_ordinal(FLOAT32, ordinal(FLOAT32, 1.0) + k))
        found = split(s, root, x=interval(low, float(np.nextafter(np.float32(low), np.float32(2)))), edge=interval(low, low, 0))
        assert found.decided and found.boxes <= 8


def test_what_is_kept_between_passes_changes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    s = Small()
    x, y = s.input("x", 4), s.input("y", 4)
    difference = s.op("sub", x, s.op("mul", y, y))
    root = s.op("log", s.op("add", s.op("abs", difference), s.op("relu", y)))
    inputs = {"x": interval(-2, 2), "y": interval(-1, 3)}
    kept = split(s, root, budget=600, **inputs)
    monkeypatch.setattr(Revision, "_bound", lambda self, v, given: bound(self.view.calls[v[0]], given))
    monkeypatch.setattr(Revision, "_narrower", _narrower_anew)
    monkeypatch.setattr(Revision, "_entering", lambda self, v, b: entering(b, self.formats[v]))
    anew = split(s, root, budget=600, **inputs)
    assert (kept.decided, kept.boxes, kept.passes, kept.left, kept.open) == (anew.decided, anew.boxes, anew.passes, anew.left, anew.open)
    assert not changed(kept.bounds, anew.bounds) and kept.passes > 2


def _narrower_anew(self: Revision, v: Vertex, b: Bounds, required: Bounds) -> Bounds | None:
    met = meet(b, required, self.formats[v])
    return met if changed(b, met) else None


def test_a_value_that_is_rounded_to_whole_numbers_is_each_of_them() -> None:
    """A library's error leaves floor(exp(x)) open even at a point, but it is a whole number."""
    for shift, safe in ((0.5, True), (1.0, False)):
        s = Small()
        root = s.op("reciprocal", s.op("sub", s.op("floor", s.op("exp", s.input("x", 4))), s.const(shift)))
        assert split(s, root, x=interval(-1, 1)).decided is safe


def test_a_sum_of_many_terms_of_one_value_has_that_value_as_its_only_leaf() -> None:
    """Lanczos' sum, as compilers write out the logarithm of the gamma function."""
    s = Small()
    x = s.input("x", 4)
    z = s.op("where", s.op("lt", x, s.const(0.5)), s.op("neg", x), s.op("sub", x, s.const(1.0)), fmt=FLOAT32)
    terms = [s.op("div", s.const(7.0 - k), s.op("add", z, s.const(k + 1.0))) for k in range(14)]
    total = s.const(1.0)
    for t in terms:
        total = s.op("add", total, t)
    root = s.op("log", s.op("add", s.op("sub", x, s.op("floor", x)), s.op("mul", total, total)))
    varying = [{v for v in cone.leaves if s.builder.nodes[v[0]].op != "const"} for cone in cones_of(View(s.graph(root)), (root, (0,)))]
    assert {(x, (0,))} in varying
