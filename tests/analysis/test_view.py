"""What the element-by-element view shows: rearrangements disappear, different places stay apart, equal computations are one."""

import numpy as np
from tests.analysis.small import Small, ends, view_of

from whynan.analysis.view import align
from whynan.domain.interval import make
from whynan.ir.dtype import FLOAT16, FLOAT32, FLOAT64, INT64


def test_a_column_and_a_row_of_one_value_are_two_vertices() -> None:
    s = Small()
    x = s.input("x", 3)
    pairs = s.op("sub", s.reshape(x, 3, 1), s.reshape(x, 1, 3))
    view = view_of(s, pairs)
    column, row = view.inputs(view.root(pairs))
    assert column == (x, (0,)) and row == (x, (1,))


def test_equal_reshapes_show_the_same_vertex() -> None:
    s = Small()
    x = s.input("x", 3)
    difference = s.op("sub", s.reshape(x, 3, 1), s.reshape(x, 3, 1))
    view = view_of(s, difference)
    left, right = view.inputs(view.root(difference))
    assert left == right == (x, (0,))


def test_a_transposition_swaps_the_places() -> None:
    s = Small()
    x = s.input("x", 4, 4)
    both = s.op("add", x, s.op("permute", x, shape=(4, 4), axes=(-1, -2)))
    view = view_of(s, both)
    assert view.inputs(view.root(both)) == ((x, (0, 1)), (x, (1, 0)))


def test_two_transpositions_undo_each_other() -> None:
    s = Small()
    x = s.input("x", 2, 3, 4)
    there = s.op("permute", x, shape=(4, 2, 3), axes=(-1, -3, -2))
    back = s.op("permute", there, shape=(2, 3, 4), axes=(-2, -1, -3))
    both = s.op("add", x, back)
    view = view_of(s, both)
    assert view.inputs(view.root(both)) == ((x, (0, 1, 2)), (x, (0, 1, 2)))


def test_a_broadcast_is_seen_through() -> None:
    s = Small()
    x, row = s.input("x", 2, 3), s.input("row", 3)
    both = s.op("add", x, s.op("expand", row, shape=(2, 3)))
    view = view_of(s, both)
    assert view.inputs(view.root(both))[1] == (row, (1,))


def test_a_reshape_that_joins_dimensions_is_a_value_of_its_own() -> None:
    s = Small()
    x = s.input("x", 2, 3)
    flat = s.reshape(x, 6)
    y = s.op("exp", flat)
    view = view_of(s, y)
    assert view.inputs(view.root(y)) == ((flat, (0,)),)


def test_a_reshape_that_exchanges_sizes_is_a_value_of_its_own() -> None:
    s = Small()
    x = s.input("x", 2, 3)
    moved = s.reshape(x, 3, 2)
    y = s.op("exp", moved)
    view = view_of(s, y)
    assert view.inputs(view.root(y)) == ((moved, (0, 1)),)


def test_widening_casts_are_seen_through_and_narrowing_ones_are_not() -> None:
    s = Small()
    x = s.input("x", 3)
    wide = s.op("cast", x, fmt=FLOAT64)
    narrow = s.op("cast", x, fmt=FLOAT16)
    up, down = s.op("exp", wide), s.op("exp", narrow)
    view = view_of(s, up, down)
    assert view.inputs(view.root(up)) == ((x, (0,)),)
    assert view.inputs(view.root(down)) == ((narrow, (0,)),)


def test_a_cast_of_integers_is_a_value_of_its_own() -> None:
    s = Small()
    n = s.input("n", 3, fmt=INT64)
    x = s.op("cast", n, fmt=FLOAT32)
    y = s.op("exp", x)
    view = view_of(s, y)
    assert view.inputs(view.root(y)) == ((x, (0,)),)


def test_equal_computations_have_one_representative() -> None:
    s = Small()
    x = s.input("x", 3)
    first, second = s.op("exp", x), s.op("exp", x)
    above, again = s.op("neg", first), s.op("neg", second)
    view = view_of(s, s.op("sub", above, again))
    assert view.representative[second] == first and view.representative[again] == above


def test_equal_constants_have_one_representative_and_signed_zeros_differ() -> None:
    s = Small()
    one, other, plus, minus = s.const(0.5), s.const(0.5), s.const(0.0), s.const(-0.0)
    view = view_of(s, one, other, plus, minus)
    assert view.representative[other] == one
    assert view.representative[minus] == minus


def test_different_attributes_formats_and_orders_are_different_values() -> None:
    s = Small()
    x, y = s.input("x", 2, 2), s.input("y", 2, 2)
    nodes = [
        s.op("clamp", x, low=0.0, high=None),
        s.op("clamp", x, low=0.5, high=None),
        s.op("sub", x, y),
        s.op("sub", y, x),
        s.op("cast", x, fmt=FLOAT64),
        s.op("cast", x, fmt=FLOAT16),
        s.reduce("sum", x, -1),
        s.reduce("amax", x, -1),
    ]
    view = view_of(s, *nodes)
    assert [view.representative[i] for i in nodes] == nodes


def test_random_inputs_and_unknown_operations_are_never_merged() -> None:
    s = Small()
    a, b = (s.op("random", shape=(3,), fmt=FLOAT32, low=0.0, high=1.0) for _ in range(2))
    x, y = s.input("x", 3), s.input("y", 3)
    u, w = s.op("unknown.thing", x), s.op("unknown.thing", x)
    view = view_of(s, a, b, x, y, u, w)
    assert [view.representative[i] for i in (a, b, x, y, u, w)] == [a, b, x, y, u, w]


def test_what_reaches_no_output_is_not_live_but_a_representative_is() -> None:
    s = Small()
    x = s.input("x", 3)
    first, dead, second = s.op("exp", x), s.op("log", x), s.op("exp", x)
    view = view_of(s, second)
    assert [view.live[i] for i in (x, first, dead, second)] == [True, True, False, True]


def test_a_reduced_axis_gets_a_running_name() -> None:
    s = Small()
    x = s.input("x", 2, 3)
    top = s.reduce("amax", x, -1)
    view = view_of(s, top)
    inner, names = view.reduced((top, (0, -1)), base=-2) or ((-1, ()), ())
    assert inner == (x, (0, -3)) and names == (-3,)
    assert view.length(inner, -3) == 3 and view.length(inner, 0) == 2 and view.length(inner, -9) == 1


def test_an_elementwise_operation_is_no_reduction() -> None:
    s = Small()
    x = s.input("x", 2)
    view = view_of(s, s.op("exp", x))
    assert view.reduced((1, (0,)), base=-2) is None


def test_bounds_are_laid_along_the_roots_dimensions() -> None:
    b = make(np.array([0.0, 1.0, 2.0]), np.array([0.0, 1.0, 2.0]))
    assert align(b, (0,), 2).shape == (3, 1)
    assert align(b, (1,), 2).shape == (1, 3)
    square = make(np.array([[1.0, 2.0], [3.0, 4.0]]), np.array([[1.0, 2.0], [3.0, 4.0]]))
    assert align(square, (1, 0), 2).lo.tolist() == [[1.0, 3.0], [2.0, 4.0]]
    assert ends(align(square, (0, 1), 3)) == (1.0, 4.0) and align(square, (0, 1), 3).shape == (2, 2, 1)
