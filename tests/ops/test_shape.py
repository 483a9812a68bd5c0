"""Moving elements, indexing and masks: groups stay compact, known places are followed exactly."""

from typing import Any

import numpy as np
import pytest

import whynan.ops  # noqa: F401  (registers the ops)
from whynan.domain.interval import Bounds, between, make, of_array
from whynan.errors import OpError
from whynan.ir.dtype import BOOL, FLOAT32, INT64, Format
from whynan.ir.graph import Call, Shape
from whynan.ops._groups import regrouped
from whynan.ops._opdef import bound, run

BIG = 10**6


def result(op: str, shapes: tuple[Shape, ...], shape: Shape, *bs: Bounds, formats: tuple[Format, ...] = (), **attrs: Any) -> Bounds:
    return bound(Call(op, attrs, shapes, formats or (FLOAT32,) * len(shapes), shape, FLOAT32), bs)


UNIFORM = between(0, 1, FLOAT32, 2)


@pytest.mark.parametrize(
    ("op", "shape", "attrs"),
    [
        ("reshape", (BIG * 1000,), {}),
        ("permute", (BIG, 1000), {"axes": (-1, -2)}),
        ("slice", (1000, 5), {"dim": -1, "start": 3, "step": 2}),
        ("flip", (1000, BIG), {"dims": (-1,)}),
        ("roll", (1000, BIG), {"dims": (-1,), "shifts": (3,)}),
        ("tile", (1000, 2 * BIG), {"reps": (1, 2)}),
        ("unfold", (1000, BIG - 4, 5), {"dim": -1, "size": 5, "step": 1}),
        ("as_strided", (10, 10), {"size": (10, 10), "stride": (1, 1), "offset": 0}),
    ],
)
def test_a_uniform_value_stays_one_interval(op: str, shape: Shape, attrs: dict[str, Any]) -> None:
    b = result(op, ((1000, BIG),), shape, UNIFORM, **attrs)
    assert b.shape == (1,) * len(shape)
    assert (float(b.lo.item()), float(b.hi.item())) == (0.0, 1.0)


def test_reshape_keeps_groups_that_it_does_not_split() -> None:
    b = make(np.array([[0.0], [1.0], [2.0]]), np.array([[1.0], [2.0], [3.0]]))
    assert regrouped(b, (3, 8), (3, 2, 4)).shape == (3, 1, 1)
    assert regrouped(b, (3, 8), (3, 8, 1)).shape == (3, 1, 1)
    assert regrouped(b, (3, 8), (24,)).hi.tolist() == [1.0] * 8 + [2.0] * 8 + [3.0] * 8


def test_reshape_of_a_large_value_joins_what_it_cannot_keep() -> None:
    b = make(np.arange(3.0)[:, None], np.arange(3.0)[:, None])
    joined = regrouped(b, (3, BIG), (3 * BIG,))
    assert joined.shape == (1,)
    assert (joined.lo[0], joined.hi[0]) == (0.0, 2.0)


def test_concat_of_unlike_values_and_of_like_ones() -> None:
    other = between(5, 6, FLOAT32, 1)
    one = between(0, 1, FLOAT32, 1)
    b = result("concat", ((2,), (3,)), (5,), one, other, dim=-1)
    assert b.lo.tolist() == [0.0, 0.0, 5.0, 5.0, 5.0]
    assert result("concat", ((2,), (BIG,)), (BIG + 2,), one, one, dim=-1).shape == (1,)
    far = result("concat", ((2,), (BIG,)), (BIG + 2,), one, other, dim=-1)
    assert (far.lo[0], far.hi[0]) == (0.0, 6.0)


def test_pad_puts_its_value_only_outside() -> None:
    b = result("pad", ((2,),), (4,), between(1, 2, FLOAT32, 1), pads=((1, 1),), value=0.0)
    assert b.lo.tolist() == [0.0, 1.0, 1.0, 0.0]
    assert b.hi.tolist() == [0.0, 2.0, 2.0, 0.0]


def test_one_hot_of_a_known_and_of_an_unknown_class() -> None:
    call = Call("one_hot", {"classes": 4}, ((1,),), (INT64,), (1, 4), INT64)
    assert bound(call, [of_array(np.array([2]))]).lo.tolist() == [[0.0, 0.0, 1.0, 0.0]]
    assert bound(call, [between(1, 2, INT64, 1)]).hi.tolist() == [[0.0, 1.0, 1.0, 0.0]]


def test_gather_by_a_known_index_and_within_an_unknown_ones_range() -> None:
    x = of_array(np.array([[1.0, 2.0, 9.0], [4.0, 5.0, 6.0]]))
    formats = (FLOAT32, INT64)
    known = result("gather", ((2, 3), (2, 1)), (2, 1), x, of_array(np.array([[2], [0]])), formats=formats, dim=-1)
    assert known.lo.tolist() == known.hi.tolist() == [[9.0], [4.0]]
    some = result("gather", ((2, 3), (2, 1)), (2, 1), x, between(0, 1, INT64, 2), formats=formats, dim=-1)
    assert (some.lo.tolist(), some.hi.tolist()) == ([[1.0], [4.0]], [[2.0], [5.0]])


def test_index_with_one_known_and_one_unknown_axis() -> None:
    x = of_array(np.array([[1.0, 2.0], [4.0, 5.0]]))
    b = result(
        "index",
        ((2, 2), (2,), (2,)),
        (2,),
        x,
        of_array(np.arange(2)),
        between(0, 1, INT64, 1),
        formats=(FLOAT32, INT64, INT64),
        axes=(-2, -1),
    )
    assert (b.lo.tolist(), b.hi.tolist()) == ([1.0, 4.0], [2.0, 5.0])


def test_accumulating_at_known_and_at_unknown_places() -> None:
    zeros, ones = of_array(np.zeros(3)), of_array(np.ones(2))
    formats = (FLOAT32, FLOAT32, INT64)
    shapes = ((3,), (2,), (2,))
    known = result("index_put", shapes, (3,), zeros, ones, of_array(np.array([1, 1])), formats=formats, axes=(-1,), accumulate=True)
    assert known.lo.tolist() == known.hi.tolist() == [0.0, 2.0, 0.0]
    some = result("index_put", shapes, (3,), zeros, ones, between(0, 2, INT64, 1), formats=formats, axes=(-1,), accumulate=True)
    assert (some.lo.min(), some.hi.max()) == (0.0, 2.0)
    put = result("index_put", shapes, (3,), zeros, ones, between(0, 2, INT64, 1), formats=formats, axes=(-1,), accumulate=False)
    assert (put.lo.min(), put.hi.max()) == (0.0, 1.0)


def test_a_row_index_that_never_repeats_adds_once() -> None:
    """The gradient of x[arange(n), classes]: at most one value reaches each place."""
    n = 64
    b = result(
        "index_put",
        ((n, 10), (n,), (n,), (n,)),
        (n, 10),
        of_array(np.zeros((1, 1))),
        between(-1, 1, FLOAT32, 1),
        of_array(np.arange(n)),
        between(0, 9, INT64, 1),
        formats=(FLOAT32, FLOAT32, INT64, INT64),
        axes=(-2, -1),
        accumulate=True,
    )
    assert (b.lo.min(), b.hi.max()) == (-1.0, 1.0)


def test_masks_of_another_size_cannot_be_run() -> None:
    call = Call("masked_select", {}, ((3,), (3,)), (FLOAT32, BOOL), (2,), FLOAT32)
    mask = np.array([True, False, True])
    assert run(call, [np.arange(3, dtype=np.float32), mask]).tolist() == [0.0, 2.0]
    with pytest.raises(OpError, match="another number"):
        run(call, [np.arange(3, dtype=np.float32), ~mask])
