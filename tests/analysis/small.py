"""Small graphs without a framework: a builder that works out shapes, and what the analyses need around a graph."""

from collections.abc import Mapping
from typing import Any

import numpy as np

from whynan.analysis.propagate import Proof, propagate
from whynan.analysis.relations import Relations
from whynan.analysis.view import View
from whynan.domain.interval import Bounds, between
from whynan.ir.dtype import BOOL, FLOAT32, Format
from whynan.ir.graph import Builder, Graph, Output, Place

COMPARISONS = ("eq", "ne", "lt", "le", "gt", "ge", "logical_and", "logical_not", "isfinite")


class Small:
    """Adds nodes by name; a node's shape is that of its inputs broadcast unless it is given."""

    def __init__(self) -> None:
        self.builder = Builder()
        self.inputs: dict[str, int] = {}

    def input(self, name: str, *shape: int, fmt: Format = FLOAT32) -> int:
        """An input of the graph."""
        self.inputs[name] = self.builder.add("input", (), shape, fmt)
        return self.inputs[name]

    def const(self, value: Any, fmt: Format = FLOAT32) -> int:
        """A constant of the format."""
        return self.builder.const(np.asarray(value, fmt.numpy), fmt)

    def op(self, name: str, *inputs: int, shape: tuple[int, ...] | None = None, fmt: Format | None = None, **attrs: Any) -> int:
        """An elementwise operation, or any other one whose shape is given."""
        shape = np.broadcast_shapes(*(self.builder.shape(i) for i in inputs)) if shape is None else shape
        fmt = (BOOL if name in COMPARISONS else self.builder.format(inputs[-1])) if fmt is None else fmt
        return self.builder.add(name, inputs, shape, fmt, **attrs)

    def reduce(self, name: str, x: int, *dims: int, **attrs: Any) -> int:
        """A reduction that keeps the reduced axes."""
        shape = list(self.builder.shape(x))
        for d in dims:
            shape[d] = 1
        return self.builder.add(name, (x,), tuple(shape), self.builder.format(x), dims=dims, **attrs)

    def reshape(self, x: int, *shape: int) -> int:
        """The same elements in another shape."""
        return self.builder.add("reshape", (x,), shape, self.builder.format(x))

    def place(self, **where: Any) -> None:
        """What the nodes that follow belong to."""
        self.builder.place = Place(**where)

    def graph(self, loss: int, **gradients: int) -> Graph:
        """The graph that computes a loss, and gradients by input name."""
        outputs = [Output("loss", "loss", loss), *(Output("gradient", n, i) for n, i in gradients.items())]
        return Graph(tuple(self.builder.nodes), self.inputs, tuple(outputs))


def view_of(small: Small, *outputs: int) -> View:
    """The view of a graph with these outputs."""
    return View(Graph(tuple(small.builder.nodes), small.inputs, tuple(Output("loss", "loss", i) for i in outputs)))


def interval(low: float, high: float, ndim: int = 1, fmt: Format = FLOAT32, **flags: Any) -> Bounds:
    """One interval for all elements of an input."""
    return between(low, high, fmt, ndim, **flags)


def proven(small: Small, node: int, budget: int = 60_000, **domains: Bounds) -> Proof:
    """The abstract run of the graph that computes one node."""
    return propagate(small.graph(node), domains, budget)


def ends(b: Bounds) -> tuple[float, float]:
    """The lowest and the highest number that bounds allow."""
    return float(b.lo.min()), float(b.hi.max())


def facts_of(small: Small, outputs: tuple[int, ...], **domains: Bounds) -> Relations:
    """Relations over the plain bounds of a graph."""
    view = view_of(small, *outputs)
    return Relations(view, list(propagate(view.graph, domains, refine=False).bounds))


def full(**inputs: Any) -> Mapping[str, Any]:
    """Inputs as float32 arrays."""
    return {name: np.asarray(x, np.float32) for name, x in inputs.items()}
