"""What grows while the nodes of a graph are bounded."""

from collections.abc import Mapping
from dataclasses import dataclass, field

from whynan.analysis.attained import Attained
from whynan.analysis.exact.limits import Exact
from whynan.analysis.relations import Relations
from whynan.analysis.view import View
from whynan.domain.interval import Bounds

BOXES = 60_000  # that branch and prune may evaluate in all, unless told otherwise

Ranges = Mapping[int, tuple[float, float]]  # node id -> a range of values


@dataclass(slots=True)
class State:
    """What grows while the nodes are bounded."""

    view: View
    bounds: list[Bounds | None]
    facts: Relations
    attained: Attained
    exact: Exact
    budget: int
    simplexes: frozenset[int] = frozenset()  # input nodes whose rows sum to 1
    boxes: int = 0
    charged: int = 0
    sharpened: dict[tuple[int, str], Bounds | None] = field(default_factory=dict)  # what exact arithmetic says, by node and way
    ahead: dict[int, Bounds] = field(default_factory=dict)  # plain bounds of nodes whose turn is still to come
    apart: dict[int, float] = field(default_factory=dict)  # how far from zero what is not zero lies, by node (`apart`)
    wasted: int = 0  # boxes that decided nothing
    hints: list[Ranges] = field(default_factory=list)
    left: dict[int, str] = field(default_factory=dict)  # what branch and prune left open of a node, in words


def bounds_at(state: State, i: int) -> Bounds:
    """The bounds of a node whose turn has been."""
    found = state.bounds[i]
    assert found is not None
    return found


def may_be_nonfinite(state: State, i: int) -> bool:
    """Whether an element of the node may be NaN or infinite, as far as is known."""
    b = state.bounds[i]
    return b is None or bool(b.nonfinite.any())
