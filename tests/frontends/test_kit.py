"""The notation for lowerings: formats of mixed operands are PyTorch's."""

import itertools

import pytest
import torch

from whynan.frontends.kit import Value, promoted
from whynan.ir.dtype import FORMATS
from whynan.ir.graph import Builder

DIMS = (0, 1)
OPERANDS = [*itertools.product(FORMATS, DIMS), True, 2, 1.5]
NAMES = [f"{o[0]}-{o[1]}d" if isinstance(o, tuple) else repr(o) for o in OPERANDS]


def value(operand):
    """The operand in a graph: a node for a format and a number of dimensions, a Python number as it is."""
    if not isinstance(operand, tuple):
        return operand
    builder, (name, ndim) = Builder(), operand
    return Value(builder, builder.add("input", (), (2,) * ndim, FORMATS[name]))


def tensor(operand):
    """The operand in PyTorch."""
    return torch.empty((2,) * operand[1], dtype=getattr(torch, operand[0])) if isinstance(operand, tuple) else operand


@pytest.mark.parametrize("a", OPERANDS[: len(FORMATS) * len(DIMS)], ids=NAMES[: len(FORMATS) * len(DIMS)])
def test_mixed_operands_are_combined_in_the_format_that_pytorch_chooses(a):
    for b, name in zip(OPERANDS, NAMES, strict=True):
        wanted = str(torch.result_type(tensor(a), tensor(b))).removeprefix("torch.")
        assert promoted(value(a), value(b)).name == wanted, name
        if isinstance(b, tuple):
            assert promoted(value(b), value(a)).name == wanted, name
