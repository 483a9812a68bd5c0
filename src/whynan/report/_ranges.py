"""Safe ranges in sentences: up to which magnitude of an input all is proven finite, and what happens beyond."""

from decimal import ROUND_CEILING, ROUND_FLOOR, Decimal

import numpy as np

from whynan.analysis.finding import Report, SafeRange, Witness
from whynan.report._text import bad_kind

_CLOSE = 1.02  # a proven and a failing end that differ by no more (two numbers of bfloat16 do by 1 %) meet for a reader


def envelope_text(report: Report) -> list[str]:
    """Up to which magnitude of one input everything is proven finite and what happens beyond, a line per input and dtype."""
    if not report.safe_ranges:
        return [f"for |{name}| <= {limit:g} in {dtype}" for name, limits in report.envelope.items() for dtype, limit in limits.items()]
    by_line: dict[str, list[str]] = {}
    for r in report.safe_ranges:
        by_line.setdefault(_safe_range(r), []).append(r.mode)
    every = len({r.mode for r in report.safe_ranges})
    return [line if len(modes) == every else f"{line} ({', '.join(modes)})" for line, modes in by_line.items()]


def _safe_range(r: SafeRange) -> str:
    """One safe range in a sentence. What is rounded is rounded so that it stays true: the proven end down, the failing one up."""
    sizes = ", ".join(f"|{name}|" for name in r.inputs)
    fails = f"at {sizes} = {_short(r.failing, ROUND_CEILING)} {_outcome(r.witness)}" if r.failing is not None and r.witness else ""
    if r.proven is None:
        return f"for no range of {', '.join(r.inputs)} in {r.dtype}: {f'already {fails}' if fails else r.reason}"
    if r.whole:
        return f"for every finite {', '.join(r.inputs)} in {r.dtype}"
    text = f"for {sizes} <= {_short(r.proven, ROUND_FLOOR)} in {r.dtype}; "
    if not fails:
        return f"{text}beyond that nothing is proven, and no failing input was found"
    apart = r.failing is not None and r.failing > r.proven * _CLOSE
    return f"{text}{fails}{', and between the two nothing is known' if apart else ''}"


def _short(x: float, rounding: str) -> str:
    """A magnitude in at most four digits, exact where it has no more."""
    exact = Decimal(x)
    rounded = exact.quantize(Decimal(1).scaleb(exact.adjusted() - 3), rounding=rounding) if exact.is_normal() else exact
    return f"{x:.7g}" if Decimal(f"{x:.7g}") == exact else f"{rounded:.4g}"


def _outcome(witness: Witness) -> str:
    """Which output is not finite, and what it is."""
    loss = np.asarray(witness.loss).astype(np.float64)
    if not np.isfinite(loss).all():
        return f"the loss can be {bad_kind(loss)}"
    bad = [n for n, g in witness.gradients.items() if not np.isfinite(np.asarray(g).astype(np.float64)).all()]
    return f"the gradient by {bad[0]} can be {bad_kind(np.asarray(witness.gradients[bad[0]]).astype(np.float64))}" if bad else "it fails"
