"""Recordings of a loss by what Python code saw when it looked at values, and the outcomes that none of them has."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np

from whynan.analysis.arrays import asking, value_of
from whynan.analysis.coverage import PATH
from whynan.analysis.finding import Open
from whynan.analysis.looks import Look
from whynan.analysis.propagate import Proof
from whynan.analysis.view import View
from whynan.ir.dtype import Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import FORWARD, Assumption, Graph

Inputs = Mapping[str, Array]


@dataclass(slots=True, eq=False)
class Recorded:
    """A recording with its looks. `plain` is its proof without what the path implies, `final` that with it, made when they are needed.

    Where the code was `led` along the path, the inputs need not take it.
    """

    trace: Trace
    inputs: Inputs
    looks: tuple[Look, ...]
    plain: Proof | None = None
    final: Proof | None = None
    view: View | None = None
    led: bool = False
    partnered: bool = False  # whether a second recording of the path was the same
    also: Sequence[Inputs] = ()  # other inputs that are expected to take the path

    @property
    def graph(self) -> Graph:
        """The graph of the recording."""
        return self.trace.graph


@dataclass(frozen=True, slots=True, eq=False)
class Gap:
    """Outcomes of a recording's look number `at` that no recording has: they lie in [low, high], or are an array."""

    member: Recorded
    at: int
    low: float
    high: float
    array: Array | None = None

    @property
    def wanted(self) -> tuple[Graph, Assumption]:
        """The look with the outcome that is missing, in the graph of the recording."""
        graph, look = self.member.graph, self.member.graph.assumptions[self.at]
        if self.array is not None:
            return asking(graph, look, self.array)
        return graph, replace(look, low=self.low, high=self.high)

    @property
    def name(self) -> object:
        """What tells the gap from others."""
        return self.member.looks[: self.at], self.low, self.high, None if self.array is None else self.array.tobytes()


def closes(r: Recorded, gap: Gap) -> bool:
    """Whether a recording has the missing outcome."""
    before = gap.member.looks[: gap.at]
    if r.looks[: gap.at] != before or len(r.looks) <= gap.at:
        return False
    if gap.array is not None:
        return np.array_equal(value_of(r.graph, r.graph.assumptions[gap.at]), gap.array)
    low, high = r.looks[gap.at].outcome
    return low <= gap.high and gap.low <= high


def complaint(look: Assumption, which: str) -> Open:
    """What stays open where a look may go another way; `which` goes on about that way."""
    return Open(PATH, look.site, FORWARD, f"{look.what} looks at a value here: on other inputs the code may take another path{which}")


def text_of(gap: Gap) -> str:
    """The missing outcome in words."""
    if gap.array is not None:
        return str(gap.array.astype(int).tolist())
    node = gap.member.graph.nodes[gap.wanted[1].node]
    if node.format.kind == "bool":
        return "true" if gap.low else "false"
    return f"{gap.low:g}" if gap.low == gap.high else f"a number in [{gap.low:g}, {gap.high:g}]"
