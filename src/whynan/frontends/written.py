"""The number that stands in the source behind a constant whose rounding has changed it: `1 - 1e-8` is 1 in float32."""

import ast
import operator
from collections.abc import Callable, Iterator, Mapping
from functools import lru_cache
from typing import Any

import numpy as np

from whynan.ir.dtype import Array, Format
from whynan.ir.graph import Node

_OPERATORS: Mapping[type[ast.operator], Callable[[Any, Any], Any]] = {
    ast.Add: operator.add,
    ast.Sub: operator.sub,
    ast.Mult: operator.mul,
    ast.Div: operator.truediv,
}


def numbers_behind(node: Node) -> dict[str, float]:
    """The attributes that say what the source has where rounding has changed it: of a constant, and of the limits of a clamp."""
    if node.site is None or node.op not in ("const", "clamp"):
        return {}
    given = {"written": node.attrs.get("value"), "low_written": node.attrs.get("low"), "high_written": node.attrs.get("high")}
    known = {key: value for key, value in given.items() if value is not None and key not in node.attrs}
    found = {key: written_number(node.site.text, np.asarray(value), node.format) for key, value in known.items()}
    return {key: number for key, number in found.items() if number is not None}


def written_number(text: str, value: Array, fmt: Format) -> float | None:
    """The number in an expression that rounds to the one value of a constant without being it; None if there is none."""
    if not fmt.is_float or value.size != 1:
        return None
    present = float(value.reshape(())[()])
    for number in _numbers(text):
        with np.errstate(over="ignore"):
            rounded = float(np.asarray(number).astype(fmt.numpy))
        if rounded == present and number != present:
            return number
    return None


@lru_cache(maxsize=1024)
def _numbers(text: str) -> tuple[float, ...]:
    """The numbers of an expression, those first that are computed from others."""
    try:
        tree = ast.parse(text.strip(), mode="eval")
    except (SyntaxError, ValueError):
        return ()
    return tuple(_computed(tree.body))


def _computed(node: ast.AST) -> Iterator[float]:
    found = _number(node) if isinstance(node, ast.expr) else None
    if found is not None:
        yield found
    for child in ast.iter_child_nodes(node):
        yield from _computed(child)


def _number(node: ast.expr) -> float | None:
    """The value of an expression of numbers alone."""
    if isinstance(node, ast.Constant) and isinstance(node.value, (int, float)) and not isinstance(node.value, bool):
        return float(node.value) if abs(node.value) < 1e300 else None
    if isinstance(node, ast.UnaryOp) and isinstance(node.op, ast.USub):
        inner = _number(node.operand)
        return None if inner is None else -inner
    if isinstance(node, ast.BinOp) and type(node.op) in _OPERATORS:
        left, right = _number(node.left), _number(node.right)
        if left is None or right is None or (isinstance(node.op, ast.Div) and right == 0):
            return None
        return float(_OPERATORS[type(node.op)](left, right))
    return None
