"""Indices that lie beyond what they index: the framework refuses them, so that one candidate's must not disturb the others."""

import numpy as np
import pytest

from whynan.ir.dtype import FLOAT32, INT64
from whynan.ops._opdef import Call, run

X = np.arange(6, dtype=np.float32).reshape(2, 3)  # two candidates of three elements
BEYOND = np.array([[0, 1], [2, 7]])  # the second candidate's last index does not exist


def reading(op: str, **attrs: object) -> Call:
    return Call(op, attrs, ((3,), (2,)), (FLOAT32, INT64), (2,), FLOAT32)


@pytest.mark.parametrize("call", [reading("gather", dim=-1), reading("take_flat"), reading("index", axes=(-1,))])
def test_a_read_beyond_the_end_reads_the_last_element(call: Call) -> None:
    assert run(call, [X, BEYOND]).tolist() == [[0.0, 1.0], [5.0, 5.0]]


def test_a_write_beyond_the_end_stays_in_its_own_candidate() -> None:
    call = Call("scatter_add", {"dim": -1}, ((3,), (2,), (2,)), (FLOAT32, INT64, FLOAT32), (3,), FLOAT32)
    ones = np.ones((2, 2), np.float32)
    beyond = np.array([[0, 7], [0, 1]])
    assert run(call, [X, beyond, ones]).tolist() == [[1.0, 1.0, 3.0], [4.0, 5.0, 5.0]]
    assert run(call, [X, np.array([[0, 1], [0, 1 + 4]]), ones]).tolist() == [[1.0, 2.0, 2.0], [4.0, 4.0, 6.0]]
