"""What becomes of a number that Python code reads: where it is only compared with a constant, no more than the outcome matters.

`if loss.item() > 1:` takes one of two paths, whatever the number is; that is seen in the source. Anything else that is done with a number
may use all of it.
"""

import ast
import linecache
import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from whynan.ir.dtype import BOOL, FLOAT64, INT64
from whynan.ir.graph import Builder
from whynan.ir.where import Site

_OPERATORS: dict[type[ast.cmpop], str] = {
    ast.Lt: "lt",
    ast.LtE: "le",
    ast.Gt: "gt",
    ast.GtE: "ge",
    ast.Eq: "eq",
    ast.NotEq: "ne",
}
_HOLDS = {"eq": np.equal, "ne": np.not_equal, "lt": np.less, "le": np.less_equal, "gt": np.greater, "ge": np.greater_equal}
_LARGEST = 2**53  # whole numbers up to here are float64s

_Span = tuple[int, int, int | None, int | None]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison of a number that was read with a constant: `op` of the number and the constant, the constant first if `swapped`."""

    op: str
    constant: float
    swapped: bool

    def holds(self, number: float) -> bool:
        """The outcome for a number."""
        return bool(_HOLDS[self.op](*((self.constant, number) if self.swapped else (number, self.constant))))

    def node(self, builder: Builder, number: int) -> int | None:
        """A node of the comparison, which is exact; None where the number's format and the constant cannot be compared exactly."""
        source = builder.format(number)
        fmt = FLOAT64 if source.is_float else INT64
        if not source.is_float and self.constant != int(self.constant):
            return None
        if source.is_float and source.flush and abs(self.constant) < source.tiny:
            return None  # Python sees a subnormal number that the framework's operations take for zero
        shape = builder.shape(number)
        wide = number if source.name == fmt.name else builder.add("cast", (number,), shape, fmt)
        constant = builder.const(np.full((), self.constant).astype(fmt.numpy), fmt)
        return builder.add(self.op, (constant, wide) if self.swapped else (wide, constant), shape, BOOL)


def comparison(site: Site | None) -> Comparison | None:
    """How the number that an expression reads out of a tensor (`x.item()`, `float(x)`) is compared, if nothing else is done with it."""
    if site is None or site.detail:
        return None
    lines = tuple(linecache.getlines(site.file))
    return _comparisons(lines).get((site.line, site.column, site.end_line, site.end_column))


@lru_cache(maxsize=64)
def _comparisons(lines: tuple[str, ...]) -> dict[_Span, Comparison]:
    """By the place of the number's expression."""
    try:
        nodes = list(ast.walk(ast.parse("".join(lines))))
    except (SyntaxError, ValueError):
        return {}
    found: dict[_Span, Comparison] = {}
    for node in nodes:
        if isinstance(node, ast.Compare) and len(node.ops) == 1 and type(node.ops[0]) in _OPERATORS:
            op = _OPERATORS[type(node.ops[0])]
            for read, other, swapped in ((node.left, node.comparators[0], False), (node.comparators[0], node.left, True)):
                number = _constant(other)
                if _reads(read) and number is not None:
                    found[read.lineno, read.col_offset, read.end_lineno, read.end_col_offset] = Comparison(op, number, swapped)
    return found


def _reads(node: ast.expr) -> bool:
    if not isinstance(node, ast.Call) or node.keywords:
        return False
    function = node.func
    if isinstance(function, ast.Attribute):
        return function.attr == "item" and not node.args
    return isinstance(function, ast.Name) and function.id == "float" and len(node.args) == 1


def _constant(node: ast.expr) -> float | None:
    negative = isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub)
    value = node.operand if isinstance(node, ast.UnaryOp) and negative else node
    written = value.value if isinstance(value, ast.Constant) else None
    if not isinstance(written, int | float) or isinstance(written, bool) or (isinstance(written, int) and abs(written) > _LARGEST):
        return None
    number = float(written)
    if not math.isfinite(number):
        return None
    return -number if negative else number
