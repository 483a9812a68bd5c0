"""What is known of a fix, in words: where the value changes, what becomes of the gradients."""

from collections.abc import Sequence
from typing import Any

import numpy as np

from whynan.analysis.compare import Difference
from whynan.analysis.finding import Report
from whynan.fixes import Proposal
from whynan.patches.change import Evidence


def evidence_of(report: Report, compared: Difference, proposals: Sequence[Proposal], cost: float) -> Evidence:
    """The evidence of a change from its check, its comparison with the original, and its relative cost."""
    changed = ""
    if compared.changed:
        point, new = max(compared.changed, key=lambda pair: abs(pair[1] - _true(pair[0])))
        changed = (
            f"the value changes on {len(compared.changed)} of {compared.compared} inputs, at most from {_true(point):.6g} to {new:.6g}"
            + "".join(f"; {p.changes}" for p in proposals if p.changes)
        )
    elif compared.missed:
        point, new = max(compared.missed, key=lambda pair: abs(pair[1] - _true(pair[0])))
        changed = (
            f"where the original fails the value is another one than in real arithmetic on {len(compared.missed)} inputs "
            f"(there to {new:.6g}, the true value is {_true(point):.6g})"
        )
    elif compared.away:
        point, new = max(compared.away, key=lambda pair: abs(pair[1] - _true(pair[0])))
        changed = (
            "the value changes only where the original fails, or so close to there that rounding alone moves it as much"
            f" (there to {new:.6g}, the true value is {_true(point):.6g})"
        )
    elif any(p.changes for p in proposals):
        changed = f"the value changes on none of {compared.compared} inputs on which the original is finite; by design, " + "; ".join(
            p.changes for p in proposals if p.changes
        )
    return Evidence(report.verdict, compared.compared, compared.mended, compared.largest, changed, _gradient(compared), round(cost, 2))


def _gradient(compared: Difference) -> str:
    """What happens to the gradients, in words."""
    said = []
    if compared.bent:
        names = ", ".join(sorted({name for _, name in compared.bent}))
        said.append(f"the gradient by {names} changes on {len({id(p) for p, _ in compared.bent})} inputs where the original's is right")
    if compared.dead:
        said.append(f"the gradient by {', '.join(compared.dead)} becomes 0 on some inputs where it was not")
    if compared.lost:
        said.append(f"the gradient by {', '.join(compared.lost)} is 0 on some inputs where the original fails and the true one is not 0")
    return "; ".join(said) or "gradient alive"


def _true(point: Any) -> float:
    return float(point.exact) if point.exact is not None and np.isfinite(point.exact) else float(np.sum(point.run.loss.astype(np.float64)))
