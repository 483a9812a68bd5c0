"""A graph as text, one line per node: for error messages and debugging, stable from run to run.

    %0 = input "x" : float32[3]
    %1 = const 0.5 : float32[]
    %2 = add(%0, %1) : float32[3]
    %3 = sum(%2, dims=(-1,)) : float32[1]
    return loss = %3
"""

from collections.abc import Mapping
from typing import Any

import numpy as np

from whynan.ir.graph import BACKWARD, Graph, Node

MOST_VALUES = 12  # values of a constant that are written out


def text(graph: Graph) -> str:
    """The whole graph: nodes in order, assumptions, outputs."""
    names = {node: name for name, node in graph.inputs.items()}
    lines = [node_text(node, names.get(node.id, "")) for node in graph.nodes]
    lines += [f"assume {a.low:g} <= %{a.node} <= {a.high:g} for {a.what}" for a in graph.assumptions]
    lines += ["return " + ", ".join(f"{o.name} = %{o.node}" for o in graph.outputs)] if graph.outputs else []
    return "\n".join(lines)


def node_text(node: Node, name: str = "") -> str:
    """One node; `name` is that of the input it holds, if it is one."""
    shape = ", ".join(map(str, node.shape))
    line = f"%{node.id} = {_computation(node, name)} : {node.format}[{shape}]"
    return f"{line}  # backward" if node.phase == BACKWARD else line


def _computation(node: Node, name: str) -> str:
    if node.op == "const":
        return f"const {value_text(node.attrs['value'])}"
    if node.op == "input":
        return f'input "{name}"' if name else "input"
    return f"{node.op}({', '.join([*(f'%{i}' for i in node.inputs), *_attributes(node.attrs)])})"


def _attributes(attrs: Mapping[str, Any]) -> list[str]:
    return [f"{key}={value_text(attrs[key])}" for key in sorted(attrs)]


def value_text(value: Any) -> str:
    """An attribute or an array: floats so that they read back as the same float64, long arrays by shape and range only."""
    if isinstance(value, np.ndarray):
        return _array_text(value)
    if isinstance(value, tuple | list):
        inner = ", ".join(map(value_text, value))
        return f"({inner},)" if len(value) == 1 else f"({inner})"
    if isinstance(value, np.generic):
        return value_text(_plain(np.asarray(value)))
    return repr(value)


def _array_text(value: np.ndarray[Any, Any]) -> str:
    if value.size > MOST_VALUES:
        wide = value.astype(np.float64)
        return f"array of shape {value.shape}, {np.min(wide):.6g} to {np.max(wide):.6g}"
    return str(_plain(value))


def _plain(value: np.ndarray[Any, Any]) -> Any:
    """Nested lists of Python numbers; bfloat16 through float64, which holds all its values."""
    return (value if value.dtype.kind in "iubf" else value.astype(np.float64)).tolist()
