"""The lowering of aten calls: every one that the snippets make means what the framework computed."""

import numpy as np
import pytest
import torch
from tests.frontends.torch_snippets import GOLDEN, INPUTS, SNIPPETS, UNSTABLE, Seen, calls, disagreement, functional, golden_lines

from whynan.errors import OpError
from whynan.frontends.torch.lower import FAMILIES, SPELLINGS, Aten, Ref, lower
from whynan.frontends.torch.lower._table import _schema, arg, spells
from whynan.ir.dtype import BFLOAT16, FLOAT16, FLOAT32, INT64
from whynan.ir.graph import Builder

DTYPES = (torch.float64, torch.float32, torch.float16, torch.bfloat16)
CASES = [(values, dtype) for values in INPUTS for dtype in (DTYPES if values in ("ordinary", "edges") else (torch.float32, torch.float16))]


@pytest.fixture(autouse=True)
def _quiet() -> None:
    torch.set_num_threads(1)


@pytest.mark.parametrize(("values", "dtype"), CASES, ids=str)
def test_lowered_calls_mean_what_torch_computed(values: str, dtype: torch.dtype) -> None:
    """Values agree up to rounding, NaN and infinities exactly, forward and backward."""
    unstable = UNSTABLE.get(values, set()) | UNSTABLE.get(str(dtype)[6:], set())
    wrong, compared = [], 0
    for name in SNIPPETS:
        for seen in calls(name, INPUTS[values], dtype):
            if seen.name not in unstable:
                compared += sum(ours is not None for _, ours in seen.results)
                wrong.append(f"{name}: {difference}" if (difference := disagreement(seen)) else "")
    assert not any(wrong), "\n".join(filter(None, wrong))
    assert compared > 1000


def test_a_wrong_lowering_is_noticed() -> None:
    """The comparison itself: one value off by more than rounding, one NaN for a number."""
    one = np.ones(3, np.float32)
    for other in (one * 1.01, np.array([1, np.nan, 1], np.float32), np.array([1, np.inf, 1], np.float32)):
        assert disagreement(Seen("x", [], [(one, other)], [one]))
    assert not disagreement(Seen("x", [], [(one, one + 1e-7)], [one]))


def test_golden_list_of_known_ops() -> None:
    """Which ops of the programs are known is a reviewed file; `python tests/frontends/torch_snippets.py` writes it anew."""
    assert GOLDEN.read_text().splitlines() == list(golden_lines())


def test_every_spelling_is_an_op_of_torch() -> None:
    assert FAMILIES
    for name in SPELLINGS:
        assert _schema(name), name


def test_a_spelling_cannot_be_taken_twice() -> None:
    with pytest.raises(OpError, match="two lowerings"):
        spells("exp")(lambda builder, aten: ())


def test_arguments_by_position_keyword_and_default() -> None:
    x = Ref(0)
    assert arg(Aten("sum.dim_IntList", (x, [1])), "dim") == [1]
    assert arg(Aten("sum.dim_IntList", (x, [1]), {"keepdim": True}), "keepdim") is True
    assert arg(Aten("sum.dim_IntList", (x, [1])), "keepdim") is False
    with pytest.raises(KeyError):
        arg(Aten("sum.dim_IntList", (x, [1])), "nothing")


def test_an_unknown_op_keeps_its_tensors_and_names_itself() -> None:
    builder = Builder()
    x = builder.const(np.ones((2,), np.float32), FLOAT32)
    call = Aten("histc.default", (Ref(x), 3), {"other": [Ref(x), None]}, (((3,), FLOAT32), None))
    node, nothing = lower(builder, call)
    assert nothing is None
    assert node is not None
    assert (builder.nodes[node].op, builder.nodes[node].inputs, builder.shape(node)) == ("unknown:histc.default", (x, x), (3,))


def lowered(name: str, *args: object, shape: tuple[int, ...] = (2,), fmt: object = FLOAT32) -> list[str]:
    """The ops that one call on inputs of a format becomes."""
    builder = Builder()
    for _ in range(2):
        builder.add("input", (), (2,), fmt)  # type: ignore[arg-type]  # a Format, kept out of the signature for brevity
    lower(builder, Aten(name, args, {}, ((shape, fmt),)))  # type: ignore[arg-type]  # see above
    return [n.op for n in builder.nodes[2:]]


def test_a_number_that_half_cannot_hold_is_multiplied_in_float32() -> None:
    assert lowered("mul.Tensor", Ref(0), 1e-8, fmt=FLOAT16) == ["cast", "const", "mul", "cast"]
    assert lowered("mul.Tensor", Ref(0), 2.0, fmt=BFLOAT16) == ["const", "mul"]


def test_a_number_that_half_cannot_hold_is_added_as_half_holds_it() -> None:
    assert lowered("add.Tensor", Ref(0), 1e-8, fmt=FLOAT16) == ["const", "add"]


def test_a_value_times_itself_is_a_square() -> None:
    assert lowered("mul.Tensor", Ref(0), Ref(0)) == ["square"]
    assert lowered("mul.Tensor", Ref(0), Ref(1)) == ["mul"]
    assert lowered("pow.Tensor_Scalar", Ref(0), 2) == ["square"]
    assert lowered("pow.Tensor_Scalar", Ref(0), 0.5) == ["sqrt"]


def test_views_of_views_are_one_reshape() -> None:
    builder = Builder()
    x = builder.add("input", (), (6,), INT64)
    (y,) = lower(builder, Aten("view.default", (Ref(x), [2, 3]), {}, (((2, 3), INT64),)))
    assert y is not None
    (z,) = lower(builder, Aten("view.default", (Ref(y), [3, 2]), {}, (((3, 2), INT64),)))
    (w,) = lower(builder, Aten("view.default", (Ref(y), [2, 3]), {}, (((2, 3), INT64),)))
    assert z is not None
    assert builder.nodes[z].inputs == (x,)
    assert w == y


@pytest.mark.parametrize(
    ("op", "name"), [("add_.Tensor", "add.Tensor"), ("pow_.Scalar", "pow.Tensor_Scalar"), ("exp.default", "exp.default")]
)
def test_names_without_the_in_place_mark(op: str, name: str) -> None:
    assert functional(f"aten.{op}") == name
