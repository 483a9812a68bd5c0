"""Products of a number and its own logarithm: x log x is at least -1/e, whatever the bounds of its two factors say."""

from collections.abc import Callable
from dataclasses import replace

from whynan.analysis.view import Vertex, View
from whynan.domain.interval import Bounds, make
from whynan.ir.graph import Node
from whynan.ops._opdef import bound


def entropy(view: View, node: Node, of: Callable[[Vertex], Bounds | None]) -> Bounds | None:
    """What x log x or its negative lies between, from what `of` says of x; None for other products, and where x may be no positive number.

    It is -x log x as the operation `entr` computes it: one logarithm and one product, rounded each.
    """
    if node.op != "mul":
        return None
    found = _factors(view, node)
    x = None if found is None else of(found[0])
    if found is None or x is None or x.nonfinite.any() or not bool((x.lo >= node.format.tiny).all()):
        return None
    _, sign, ulps = found
    b = bound(replace(view.calls[node.id], op="entr", attrs={"ulps": ulps} if ulps else {}), [x])
    return make(b.lo, b.hi, nan=True) if sign < 0 else make(-b.hi, -b.lo, nan=True)


def _factors(view: View, node: Node) -> tuple[Vertex, int, int] | None:
    """The x of a product x log x, its sign, and by how many units a framework's kernels err beyond what is usual."""
    one, other = (view.unsigned(v) for v in view.inputs(view.root(node.id)))
    for (x, left), (log, right) in ((one, other), (other, one)):
        if view.op(log) == "log" and view.inputs(log)[0] == x and view.node(log).format.name == node.format.name:
            return x, left * right, sum(int(n.attrs.get("ulps", 0)) for n in (node, view.node(log)))
    return None
