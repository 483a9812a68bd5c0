"""What branch and prune left open, in words: which ranges of which values, and how many boxes were looked at."""

from collections.abc import Mapping

from whynan.analysis.branch import OpenRange, Pruned
from whynan.analysis.view import Vertex, View

MOST_NAMED = 3
LONGEST = 40  # characters of an expression that names a value
WHOLE = 0.995  # of a range: all of it, which is named only where nothing was narrowed at all


def what_is_left(view: View, found: Pruned) -> str:
    """What to put behind a reason: "; left open for x in [1.2e-08, 3e-08] (0.01 % of its range), after 4,096 boxes"."""
    inputs = {i: name for name, i in view.graph.inputs.items()}
    named = sorted(_named(view, inputs, found.open), key=lambda pair: pair[1].share)
    narrowed = [(name, r) for name, r in named if r.share < WHOLE] or named[:1]
    parts = [f"{name} in [{r.low:.3g}, {r.high:.3g}] ({_share(r.share)} of its range)" for name, r in narrowed[:MOST_NAMED]]
    where = f"left open for {' and '.join(parts)}" if parts else "left open"
    return f"; {where}, after {found.boxes:,} {'box' if found.boxes == 1 else 'boxes'}"


def _named(view: View, inputs: Mapping[int, str], ranges: Mapping[Vertex, OpenRange]) -> list[tuple[str, OpenRange]]:
    """The leaves that have a name (an input's, or the expression that computes them), each name once, with the widest range."""
    out: dict[str, OpenRange] = {}
    for v, r in ranges.items():
        site = view.node(v).site
        name = inputs.get(v[0]) or (site.text if site is not None and "\n" not in site.text and len(site.text) <= LONGEST else "")
        if name and r.low <= r.high and (name not in out or out[name].share < r.share):
            out[name] = r
    return list(out.items())


def _share(share: float) -> str:
    if share >= WHOLE:
        return "all"
    percent = 100 * share
    return f"{percent:.2g} %" if percent >= 0.01 else "less than 0.01 %"
