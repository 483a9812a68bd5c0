"""From a failing sub-term to proposals."""

from collections.abc import Iterator, Mapping

from whynan.fixes._cost import cost, dangerous
from whynan.fixes._pattern import Guard, build, match, settled
from whynan.fixes._proposal import EQUIVALENT, GUARD, Proposal
from whynan.fixes._ranges import interval
from whynan.fixes.guards import GUARDS
from whynan.fixes.transforms import TRANSFORMS, Case, Change
from whynan.ir.dtype import FLOAT32, Format
from whynan.ir.term import Path, Term, put, walk
from whynan.ir.term import at as sub_term

MOST = 12


def propose(
    term: Term, at: Path, cause: str, ranges: Mapping[str, tuple[float, float]] | None = None, fmt: Format = FLOAT32, mode: str = "eager"
) -> list[Proposal]:
    """Changes of `term` that may remove a failure, best first, at most twelve.

    `at` is the path of the sub-term that fails (its derivative, if the failure is in the backward phase) and `cause` is the contract's name
    for why. `ranges` gives what is known of leaves by name, `fmt` is the format at the failing operation.
    """
    case = Case(term, at, cause, ranges or {}, fmt)
    found = [*_guarded(case), *_transformed(case)]
    return _best(case, found)


def _best(case: Case, changes: list[Change]) -> list[Proposal]:
    """Each term once, best first."""
    seen: set[Term] = {case.whole}
    out: list[Proposal] = []
    for c in sorted(changes, key=lambda c: (not c.exact, c.rank)):
        if c.term in seen:
            continue
        seen.add(c.term)
        out.append(Proposal(c.term, c.title, GUARD if c.changes else EQUIVALENT, c.changes, (c.name,), cost(c.term, case.ranges, case.fmt)))
    return out[:MOST]


def _transformed(case: Case) -> Iterator[Change]:
    for transform in TRANSFORMS:
        yield from transform(case)


def _guarded(case: Case) -> Iterator[Change]:
    """Guards at the failing operation, and the same ones at every other place that is in the same danger."""
    for far, path in enumerate(_sites(case)):
        t = sub_term(case.whole, path)
        for row in GUARDS:
            if row.causes and case.cause not in row.causes:
                continue
            new = _applied(case, row, t)
            if new is None:
                continue
            rank = row.rank + 3 * min(far, 2)
            everywhere = _everywhere(case, row, put(case.whole, path, new), path)
            for whole in (everywhere, put(case.whole, path, new)):
                yield Change(row.name, whole, row.title, row.changes, rank, row.exact)


def _sites(case: Case) -> list[Path]:
    """The failing sub-term, then its parts, then what is around it; nearest first."""
    inside = sorted((p for p, s in walk(sub_term(case.whole, case.path), case.path) if s.args), key=len)
    outside = [case.path[:end] for end in range(len(case.path) - 1, max(-1, len(case.path) - 4), -1)]
    return [*inside[:1], *outside[:1], *inside[1:8], *outside[1:]]


def _applied(case: Case, row: Guard, t: Term) -> Term | None:
    for bound in match(row.left, t):
        known = all(_nonnegative(case, bound[name]) for name in row.nonnegative)
        if known:
            return settled(build(row.right, bound))
    return None


def _nonnegative(case: Case, t: object) -> bool:
    return isinstance(t, Term) and bool((interval(t, case.ranges, case.fmt).lo >= 0).all())


def _everywhere(case: Case, row: Guard, whole: Term, done: Path) -> Term:
    """The guard at all other operations of the kind that are in danger."""
    for path in sorted((p for p, _ in walk(case.whole)), key=len, reverse=True):
        if path == done or path[: len(done)] == done or done[: len(path)] == path:
            continue
        t = sub_term(case.whole, path)
        new = _applied(case, row, t) if dangerous(t, case.ranges, case.fmt) else None
        if new is not None and sub_term(whole, path) == t:
            whole = put(whole, path, new)
    return whole
