"""Branch and prune: boxes per second through one cone, all in one NumPy pass beside one box at a time."""

import numpy as np
from timing import seconds, table

from whynan.domain.interval import Bounds, make
from whynan.ir.dtype import BOOL, FLOAT32
from whynan.ir.graph import Builder, Graph, call_of
from whynan.ops._opdef import bound

COUNT = 2048


def main() -> None:
    """Print both speeds and their ratio."""
    graph = _cone()
    edges = np.linspace(0.0, 1.0, COUNT + 1, dtype=np.float32).astype(np.float64).reshape(-1, 1)
    boxes = make(edges[:-1], edges[1:], neg_zero=False)
    single = [Bounds(boxes.lo[k : k + 1], boxes.hi[k : k + 1], boxes.flags[k : k + 1]) for k in range(COUNT)]
    together = seconds(lambda: _bounded(graph, boxes))
    apart = seconds(lambda: [_bounded(graph, box) for box in single[:256]], 1) * COUNT / 256
    rows = [("one pass", f"{COUNT / together:,.0f}", f"x{apart / together:.0f}"), ("one at a time", f"{COUNT / apart:,.0f}", "x1")]
    table(f"{COUNT} boxes through {len(graph.nodes) - 1} operations", ("boxes", "boxes/s", "speed"), rows)


def _cone() -> Graph:
    """where(p > eps, log(p) * (1 - p), 0), element by element."""
    b = Builder()
    p = b.add("input", (), (1,), FLOAT32)
    eps, one, zero = (b.const(np.asarray(v, np.float32), FLOAT32) for v in (1e-6, 1.0, 0.0))
    safe = b.add("gt", (p, eps), (1,), BOOL)
    term = b.add("mul", (b.add("log", (p,), (1,), FLOAT32), b.add("sub", (one, p), (1,), FLOAT32)), (1,), FLOAT32)
    b.add("where", (safe, term, zero), (1,), FLOAT32)
    return Graph(tuple(b.nodes), {"p": p}, ())


def _bounded(graph: Graph, p: Bounds) -> Bounds:
    values: list[Bounds] = []
    for node in graph.nodes:
        if node.op == "input":
            values.append(p)
        elif node.op == "const":
            number = float(node.attrs["value"])
            values.append(make(np.full((1, 1), number), np.full((1, 1), number), neg_zero=False))
        else:
            values.append(bound(call_of(graph, node), [values[i] for i in node.inputs]))
    return values[-1]
