"""Conditions below a reduction: what is proven in both worlds, which look-alikes are not, and that mixing rows is noticed."""

import numpy as np
import pytest
from tests.analysis.small import Small, ends, interval, proven

from whynan.analysis import worlds
from whynan.analysis.evaluate import evaluate_many
from whynan.analysis.view import View
from whynan.ir.dtype import BOOL

WIDE = interval(-10, 10, 2)


def safe_norm(s: Small, *, again: int = -1, first: int = -1, other: bool = False, swapped: bool = False, eps: float = 1e-6) -> int:
    """1 / sqrt(sum(where(sum(x^2) < eps, 1, x)^2)), over the same axis both times unless told otherwise."""
    x = s.input("x", 3, 4)
    size = s.reduce("sum", s.op("square", s.input("y", 3, 4) if other else x), first)
    small = s.op("lt", size, s.const(eps))
    one = s.const(1.0)
    safe = s.op("where", small, x, one) if swapped else s.op("where", small, one, x)
    return s.op("rsqrt", s.reduce("sum", s.op("square", safe), again))


def test_a_norm_made_safe_by_a_condition_on_the_row_is_proven() -> None:
    s = Small()
    root = safe_norm(s)
    proof = proven(s, root, x=WIDE)
    assert proof.finite and ends(proof.bounds[root])[1] < 1001


@pytest.mark.parametrize("how", [{"again": -2}, {"other": True}, {"swapped": True}, {"eps": 0.0}])
def test_look_alikes_are_not(how: dict[str, object]) -> None:
    s = Small()
    root = safe_norm(s, **how)
    assert not proven(s, root, x=WIDE, **({"y": WIDE} if how.get("other") else {})).finite


def test_one_condition_for_a_whole_value() -> None:
    s = Small()
    x = s.input("x", 3, 4)
    size = s.reduce("sum", s.op("square", x), -2, -1)
    safe = s.op("where", s.op("gt", size, s.const(1e-9)), x, s.const(1.0))
    assert proven(s, s.op("log", s.reduce("sum", s.op("square", safe), -2, -1)), x=WIDE).finite


def test_what_follows_outside_of_the_rows_is_bounded_anew() -> None:
    s = Small()
    root = safe_norm(s)
    assert proven(s, s.reduce("mean", root, -2), x=WIDE).finite


def test_the_scope_ends_where_rows_meet() -> None:
    s = Small()
    x = s.input("x", 3)
    c = s.op("gt", x, s.const(0.0))
    y = s.op("where", c, x, s.const(1.0))
    column, row = s.reshape(y, 3, 1), s.reshape(y, 1, 3)
    pairs = s.op("mul", column, row)
    total = s.reduce("sum", y, -1)
    view = View(s.graph(s.op("add", pairs, total)))
    labels = worlds.scope(view, {c: (0,)})
    assert labels[y] == (0,) and labels[column] == (0, -1) and labels[row] == (-1, 0)
    assert pairs not in labels and total not in labels


def test_a_transposed_condition_carries_its_labels() -> None:
    s = Small()
    x = s.input("x", 3, 2)
    c = s.op("gt", x, s.const(0.0))
    turned = s.op("permute", c, shape=(2, 3), fmt=BOOL, axes=(-1, -2))
    same = s.op("where", turned, s.input("z", 2, 3), s.const(1.0))
    mixed = s.op("logical_and", c, s.op("gt", s.input("v", 2), s.const(0.0)))
    view = View(s.graph(s.op("add", same, s.op("permute", mixed, shape=(2, 3), fmt=BOOL, axes=(-1, -2)), fmt=None)))
    labels = worlds.scope(view, {c: (0, 1)})
    assert labels[turned] == (1, 0) and labels[same] == (1, 0) and labels[mixed] == (0, 1)


def spread_of_choice(s: Small) -> int:
    """max(w) - min(w) with w = where(sum(x^2) > 1, 1, -1) by rows: 0 where all rows agree, else 2."""
    x = s.input("x", 3, 4)
    c = s.op("gt", s.reduce("sum", s.op("square", x), -1), s.const(1.0))
    w = s.op("where", c, s.const(1.0), s.const(-1.0))
    d = s.op("sub", s.reduce("amax", w, -2), s.reduce("amin", w, -2))
    return s.op("rsqrt", s.op("sub", s.const(1.5), d))


def _holds(s: Small, root: int) -> bool:
    proof = proven(s, root, x=WIDE)
    x = np.zeros((1, 3, 4), np.float32)
    x[0, 0] = 5.0
    value = evaluate_many(s.graph(root), range(root + 1), {"x": x})[root]
    return not proof.finite or bool(np.isfinite(value).all())


def test_rows_that_differ_are_not_forgotten() -> None:
    s = Small()
    assert _holds(s, spread_of_choice(s))


def test_a_scope_that_mixes_rows_would_be_noticed(monkeypatch: pytest.MonkeyPatch) -> None:
    plain = worlds._labels

    def mixing(view, node, inputs, labels):  # type: ignore[no-untyped-def]
        return (-1,) * len(node.shape) if "dims" in node.attrs else plain(view, node, inputs, labels)

    monkeypatch.setattr(worlds, "_labels", mixing)
    s = Small()
    assert not _holds(s, spread_of_choice(s))


def test_nothing_is_kept_of_a_world_in_the_other() -> None:
    """The first pass's relations are asked again in the second: what holds in one world must not stay known."""
    s = Small()
    x = s.input("x", 3, 4)
    size = s.reduce("sum", s.op("square", x), -1)
    safe = s.op("where", s.op("lt", size, s.const(1e-6)), s.const(1.0), x)
    good = s.op("rsqrt", s.reduce("sum", s.op("square", safe), -1))
    bad = s.op("rsqrt", size)
    assert not proven(s, s.op("add", good, bad), x=WIDE).finite
