"""Looks of Python code at values: each becomes an assumption of the recording.

A recording can also lead the code along a path that its inputs do not take: the code is told other outcomes than those that it would see.
A mask that counts elements is replaced by one with so many, a truth by another. What the values are then means nothing, but the
operations are those of every input that takes this path, as they depend on shapes and looks alone.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from whynan.frontends.compared import comparison
from whynan.frontends.torch.calls import Schema
from whynan.frontends.torch.lower import Ref
from whynan.frontends.torch.storage import Memory
from whynan.frontends.torch.tensors import to_array
from whynan.frontends.trace import Recording, unchanged
from whynan.ir.dtype import BOOL, INT64, Format, next_down, next_up
from whynan.ir.graph import Assumption

# torch functions that read one number
_LOOKS = {
    "__bool__": "bool(tensor)",
    "__float__": "float(tensor)",
    "__int__": "int(tensor)",
    "__index__": "int(tensor)",
    "item": ".item()",
}
_COUNTING = ("masked_select", "nonzero", "index", "index_put", "_index_put_impl")  # whose masks are looked at before they run


@dataclass(frozen=True, slots=True)
class Call:
    """One aten call, with `Ref`s for tensors. `inputs` are their nodes; `plain` says that whynan has formats for all of them."""

    schema: Schema
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    inputs: tuple[int, ...]
    plain: bool

    def get(self, name: str) -> Any:
        """The argument of that name, None if it was not given."""
        if name in self.kwargs:
            return self.kwargs[name]
        position = self.schema.positions.index(name)
        return self.args[position] if position < len(self.args) else None


class Looks:
    """The looks of one recording. `varies` says whether a node's value depends on an input; `told` is as in `Recorder`."""

    def __init__(self, recording: Recording, memory: Memory, varies: Callable[[int], bool], told: Sequence[float]) -> None:
        self.builder, self.assumptions = recording.builder, recording.assumptions
        self._memory, self._varies, self._told = memory, varies, told
        self._counted: set[int] = set()  # masks whose number of true elements is assumed already
        self._masks: dict[int, torch.Tensor] = {}  # by node, those that the code is given instead

    def before(self, call: Call, args: tuple[Any, ...]) -> tuple[Any, ...]:
        """Note what the sizes of an op's results will depend on; returns the arguments to run it with."""
        base = call.schema.base
        if base == "masked_select":
            self._at_count(call.get("mask").node, args[call.schema.positions.index("mask")], "masked_select")
        elif base == "nonzero":
            self._at_count(call.args[0].node, args[0], "nonzero")
        elif base in _COUNTING:
            self._at_masks(call, args)
        return self._replaced(args) if self._masks else args

    def after(self, call: Call, args: tuple[Any, ...], result: Any, function: tuple[Any, tuple[Any, ...], Mapping[str, Any]]) -> Any:
        """Note what an op shows of values, called by a torch function with its arguments; returns the result that the code is to see."""
        base = call.schema.base
        if base == "_local_scalar_dense":
            return self._at_number(call.args[0].node, result, function)
        if base == "equal" and args[0].shape == args[1].shape:
            a, b = call.inputs
            same = self.builder.add("eq", (a, b), self.builder.shape(a), BOOL)
            everything = self.builder.add("all", (same,), (1,) * len(args[0].shape), BOOL, dims=_all_dims(args[0].ndim))
            self._assume(everything, float(result), float(result), "torch.equal")
        elif base == "allclose":
            for t in tensors_in(args):
                self.at_elements(t, "torch.allclose")
        elif base == "_ctc_loss":  # only the width of a table depends on values: on the longest target's length
            for t in tensors_in(args[call.schema.positions.index("target_lengths")]):
                self.at_elements(t, base)
        elif call.schema.shaped_by_data and base not in _COUNTING:
            for t in tensors_in(args):
                self.at_elements(t, base)
        return result

    def at_elements(self, t: torch.Tensor, what: str) -> None:
        """Each element keeps its value: what Python does with them is not known."""
        node, value = self._memory.find(t), to_array(t)
        if value is None or not value.size or not self._varies(node):
            return
        self._assume(*unchanged(self.builder, node, value), what)

    def _at_masks(self, call: Call, args: tuple[Any, ...]) -> None:
        """`x[mask]` has as many elements as the mask has true ones; `x[mask] = y` needs that only if y has one for each."""
        for ref, t in zip(call.args[1], args[1], strict=True):
            is_mask = isinstance(ref, Ref) and t.dtype in (torch.bool, torch.uint8)
            if is_mask and (call.schema.base == "index" or args[2].ndim > args[0].ndim - t.ndim):
                self._at_count(ref.node, t, "boolean index")

    def _at_count(self, node: int, t: torch.Tensor, what: str) -> None:
        if not self._varies(node) or node in self._counted:
            return
        self._counted.add(node)
        b, shape = self.builder, self.builder.shape(node)
        count = b.add("cast", (self._nonzero(node),), shape, INT64)
        if shape:
            count = b.add("sum", (count,), (1,) * len(shape), INT64, dims=_all_dims(len(shape)))
        seen = float(torch.count_nonzero(t))
        told = self._next(count, seen)
        if told != seen:
            self._masks[node] = _with_true(t, int(told))
        self._assume(count, told, told, what)

    def _at_number(self, node: int, seen: Any, under_way: tuple[Any, tuple[Any, ...], Mapping[str, Any]]) -> Any:
        function, args, kwargs = under_way
        name = getattr(function, "__name__", "")
        what = _LOOKS.get(name, f"a check inside {name}" if name else "a look at a value")
        fmt = self.builder.format(node)
        low = high = float(seen)
        if name == "one_hot":
            classes = kwargs.get("num_classes", args[1] if len(args) > 1 else -1)
            # with the number of classes given, one_hot only checks that the indices lie below it
            low, high = (0.0, float(classes - 1)) if classes > 0 else (low, high)
        elif name == "__bool__" and self._varies(node):
            low = high = self._next(node := self._nonzero(node), float(bool(seen)))
            seen = type(seen)(low)
        elif name == "__int__" and fmt.is_float:
            low, high = _truncated_alike(fmt, low)
        elif name in ("item", "__float__") and (compared := comparison(self.builder.place.site)) is not None and self._varies(node):
            outcome = compared.node(self.builder, node)
            if outcome is not None:
                node, low, high = outcome, *(float(compared.holds(low)),) * 2
        self._assume(node, low, high, what)
        return seen

    def _next(self, node: int, seen: float) -> float:
        """The outcome of the look that comes next, at that node: what the code is told, else what is seen."""
        number = len(self.assumptions)
        return self._told[number] if number < len(self._told) and self._varies(node) else seen

    def _nonzero(self, node: int) -> int:
        b, fmt = self.builder, self.builder.format(node)
        return node if fmt is BOOL else b.add("ne", (node, b.const(np.zeros((), fmt.numpy), fmt)), b.shape(node), BOOL)

    def _assume(self, node: int, low: float, high: float, what: str) -> None:
        if self._varies(node):
            self.assumptions.append(Assumption(node, low, high, what, self.builder.place.site))

    def _replaced(self, argument: Any) -> Any:
        """The argument with the masks that the code is given instead."""
        if isinstance(argument, torch.Tensor):
            return self._masks.get(self._memory.find(argument), argument)
        if isinstance(argument, (tuple, list)):
            return type(argument)([self._replaced(a) for a in argument])
        return argument


def tensors_in(values: Any) -> Iterator[torch.Tensor]:
    """The tensors in nested tuples and lists."""
    if isinstance(values, torch.Tensor):
        yield values
    elif isinstance(values, (tuple, list)):
        for value in values:
            yield from tensors_in(value)


def _with_true(mask: torch.Tensor, count: int) -> torch.Tensor:
    """A mask with so many true elements, those that are true first."""
    order = torch.argsort((mask.reshape(-1) == 0).to(torch.uint8), stable=True)
    made = torch.zeros_like(mask).reshape(-1)
    made[order[:count]] = 1
    return made.reshape(mask.shape)


def _all_dims(rank: int) -> tuple[int, ...]:
    return tuple(range(-rank, 0))


def _truncated_alike(fmt: Format, x: float) -> tuple[float, float]:
    """The smallest and the largest number of the format that int() takes to the same integer as x (which is finite)."""
    whole = float(np.trunc(x))
    below, above = float(next_up(fmt, whole - 1)), float(next_down(fmt, whole + 1))
    return whole if whole > 0 else min(below, whole), whole if whole < 0 else max(above, whole)
