"""From a failing sub-term to proposals: rewritten forms, guards, and rewritten forms with guards where these are still needed."""

from collections.abc import Iterator, Mapping, Sequence
from functools import lru_cache

from whynan.fixes._cost import Cost, cost, dangerous
from whynan.fixes._pattern import Guard, build, carrier, match, settled
from whynan.fixes._proposal import EQUIVALENT, GUARD, Proposal
from whynan.fixes._ranges import RangeKey, interval
from whynan.fixes._saturate import equals
from whynan.fixes._strip import strip
from whynan.fixes.guards import GUARDS
from whynan.fixes.transforms import TRANSFORMS, Case, Change
from whynan.ir.dtype import FLOAT32, Format
from whynan.ir.term import Path, Term, is_number, put, size, walk
from whynan.ir.term import at as sub_term

MOST = 14
LARGEST = 90  # operations, leaves and literals that are rewritten at once
_FORMS = 4

_NAMED = (
    "bce_with_logits logsigmoid log_softmax logsumexp softmax softplus"
    " logaddexp log1p expm1 slogdet_log logdet logcumsumexp acosh sigmoid var"
).split()


def propose(
    term: Term, at: Path, cause: str, ranges: Mapping[str, tuple[float, float]] | None = None, fmt: Format = FLOAT32, mode: str = "eager"
) -> list[Proposal]:
    """Changes of `term` that may remove a failure, best first, at most fourteen.

    `at` is the path of the sub-term that fails (its derivative, if the failure is in the backward phase) and `cause` the contract's name
    for why. `ranges` gives what is known of leaves by name, `fmt` is the format at the failing operation and `mode` the mode it fails in.
    Raises FixMissing if the package egglog is not installed.
    """
    case = Case(term, at, cause, {k: v for k, v in (ranges or {}).items() if v[0] <= v[1]}, fmt)
    forms = _rewritten(case)
    guards = [*_guarded(case), *_transformed(case)]
    return _best(case, [*forms, *_mended(case, forms), *guards])


def _best(case: Case, changes: Sequence[Change]) -> list[Proposal]:
    """Each term once, best first: what changes no value before what does, then by rank.

    Where nothing fails and only a proof is wanted (no cause), what changes a little comes first: all that is exact is done already.
    """
    seen: set[Term] = {case.whole}
    out: list[Proposal] = []
    for c in sorted(changes, key=lambda c: (c.exact == (not case.cause), c.rank)):
        if c.term in seen:
            continue
        seen.add(c.term)
        kind = GUARD if c.changes else EQUIVALENT
        out.append(Proposal(c.term, c.title, kind, c.changes, (c.name,), cost(c.term, case.ranges, case.fmt)))
    return out[:MOST]


# ---------------------------------------------------------------- rewritten forms


def _rewritten(case: Case) -> list[Change]:
    """Forms of the same real value with fewer dangers or cancellations; then those in which old guards have been left out."""
    root = _region(case)
    part = sub_term(case.whole, root)
    out: list[Change] = []
    bare, guards = strip(part)
    for start, says in ((part, ""), (bare, guards)):
        if says or start is part:
            out += _forms(case, root, part, start, says)
    return out


def _forms(case: Case, root: Path, part: Term, start: Term, says: str) -> Iterator[Change]:
    old = cost(part, case.ranges, case.fmt)
    for i, (price, t) in enumerate(_equals(start, tuple(sorted(case.ranges.items())), case.fmt)):
        if price[0] < old[0] or (price[0] == old[0] and price[2] < old[2]):
            changes = (
                f"The old guard ({says}) is no longer needed: where it was at work, the value is now the one without it." if says else ""
            )
            rank = i + (2 if says else 0) + (4 if price[0] >= old[0] else 0)
            yield Change("rewrite", put(case.whole, root, t), _title(part, t), changes, rank, exact=True)


@lru_cache(maxsize=64)
def _equals(t: Term, ranges: RangeKey, fmt: Format) -> tuple[tuple[Cost, Term], ...]:
    return tuple(equals(t, dict(ranges), fmt, _FORMS))


def _region(case: Case) -> Path:
    """The largest part around the failing operation that is rewritten at once."""
    return next((case.path[:end] for end in range(len(case.path) + 1) if size(sub_term(case.whole, case.path[:end])) <= LARGEST), case.path)


def _title(old: Term, new: Term) -> str:
    before, after = {s.op for _, s in walk(old)}, {s.op for _, s in walk(new)}
    named = [op for op in _NAMED if op in after - before]
    return f"compute it with {' and '.join(named)}" if named else "rearrange the expression"


def _mended(case: Case, forms: Sequence[Change]) -> Iterator[Change]:
    """The best rewritten forms, with a guard at each operation that is still in danger."""
    for form in forms[:2]:
        spots = [p for p, s in walk(form.term) if dangerous(s, case.ranges, case.fmt)]
        if not spots:
            continue
        inner = Case(form.term, max(spots, key=len), "", case.ranges, case.fmt)
        t = sub_term(form.term, inner.path)
        rows = sorted((row for row in GUARDS if row.left.op == t.op), key=lambda row: (not row.exact, row.rank))
        for row in rows[:8]:
            new = _applied(inner, row, t)
            if new is not None:
                whole = _everywhere(inner, row, put(form.term, inner.path, new), inner.path)
                yield Change(row.name, whole, f"{form.title}, and {row.title}", form.changes or row.changes, row.rank + 1, row.exact)


# ---------------------------------------------------------------- guards


def _transformed(case: Case) -> Iterator[Change]:
    for transform in TRANSFORMS:
        yield from transform(case)


def _guarded(case: Case) -> Iterator[Change]:
    """Guards at the failing operation, and the same ones at every other place that is in the same danger."""
    for far, path in enumerate(_sites(case)):
        t = sub_term(case.whole, path)
        endangered = dangerous(t, case.ranges, case.fmt)
        for row in GUARDS:
            if row.causes and case.cause not in row.causes and (row.left.op != t.op or (far and not endangered)):
                continue
            new = _applied(case, row, t)
            if new is None:
                continue
            here = put(case.whole, path, new)
            rank = row.rank + 3 * min(far, 2) + (0 if not row.causes or case.cause in row.causes else 1)
            all_ = _everywhere(case, row, here, path)
            yield from _with_others(case, row, all_, rank)
            for whole in (all_, here):
                yield Change(row.name, whole, row.title, row.changes, rank, row.exact)


def _with_others(case: Case, row: Guard, whole: Term, rank: int) -> Iterator[Change]:
    """The same with a guard, as mild or as strong, at each other operation in danger: a loss often fails in several places at once."""
    used: list[Guard] = [row]
    for path, s in sorted(walk(case.whole), key=lambda pair: -len(pair[0])):
        if s.op == row.left.op or not dangerous(s, case.ranges, case.fmt) or not _still(whole, path, s):
            continue
        for other in sorted(GUARDS, key=lambda r: (r.exact != row.exact, r.rank)):
            new = _applied(case, other, s)
            if new is not None:
                whole, used = put(whole, path, new), [*used, other]
                break
    if len(used) > 1:
        titles, changes = (", and ".join(dict.fromkeys(r.title for r in used)), " ".join(dict.fromkeys(r.changes for r in used)))
        yield Change("+".join(dict.fromkeys(r.name for r in used)), whole, titles, changes, rank, all(r.exact for r in used))


def _still(whole: Term, path: Path, s: Term) -> bool:
    """Whether a term still stands at a path."""
    try:
        return sub_term(whole, path) == s
    except IndexError:
        return False


def _sites(case: Case) -> list[Path]:
    """The failing sub-term, then its parts, then what is around it; what is in danger first, then what is nearest."""
    parts = [(p, s) for p, s in walk(sub_term(case.whole, case.path), case.path) if s.args]
    inside = [p for p, s in sorted(parts, key=lambda x: (x[0] != case.path, not dangerous(x[1], case.ranges, case.fmt), len(x[0])))]
    outside = [case.path[:end] for end in range(len(case.path) - 1, max(-1, len(case.path) - 4), -1)]
    return [*inside[:1], *outside[:1], *inside[1:8], *outside[1:]]


def _applied(case: Case, row: Guard, t: Term) -> Term | None:
    for bound in match(row.left, t):
        if all(_nonnegative(case, bound[name]) for name in row.nonnegative):
            if t.op == "div" and is_number(t.args[1]):  # no divisor to be guarded
                continue
            new = settled(build(row.right, bound))
            return None if any(s.op.startswith("finfo_") and carrier(s) is None for _, s in walk(new)) else new
    return None


def _nonnegative(case: Case, t: object) -> bool:
    return isinstance(t, Term) and bool((interval(t, case.ranges, case.fmt).lo >= 0).all())


def _everywhere(case: Case, row: Guard, whole: Term, done: Path) -> Term:
    """The guard at all other operations of the kind that are in danger: beside the failing one, then around it, innermost first."""
    beside = [p for p, _ in walk(case.whole) if p[: len(done)] != done and done[: len(p)] != p]
    around = [done[:end] for end in range(len(done))]
    for path in [*sorted(beside, key=len, reverse=True), *reversed(around)]:
        if not dangerous(sub_term(case.whole, path), case.ranges, case.fmt):
            continue
        new = _applied(case, row, sub_term(whole, path))
        if new is not None:
            whole = put(whole, path, new)
    return whole
