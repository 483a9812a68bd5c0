"""Terms without the guards that a stable form no longer needs: `log(p + 1e-8)`, `log(clamp(p, 1e-7, 1))`."""

from whynan.ir.term import Term, is_number, value_of

SMALL = 1e-3
_UNDER = frozenset("log log2 log10 log1p div sqrt".split())
_CLAMPS = frozenset("clamp clamp_min clamp_max maximum minimum".split())


def strip(t: Term) -> tuple[Term, str]:
    """The term with small constants and clamps left out where they only guard; and which ones, in words ("" if none)."""
    found: list[str] = []
    return _stripped(t, "", found), ", ".join(dict.fromkeys(found))


def _stripped(t: Term, parent: str, found: list[str]) -> Term:
    t = Term(t.op, tuple(_stripped(a, t.op if t.op not in ("sub", "neg", "move") else parent or t.op, found) for a in t.args), t.attrs)
    if parent not in _UNDER:
        return t
    if t.op in _CLAMPS and all(_limit(a) for a in t.args[1:]):
        found.append(t.op.replace("_", " "))
        return t.args[0]
    if t.op in ("add", "sub"):
        kept = [a for a in t.args if not _epsilon(a)]
        if len(kept) == 1 and kept[0] is t.args[0]:
            found.append("a small constant")
            return kept[0]
        if len(kept) == 1 and t.op == "add":
            found.append("a small constant")
            return kept[0]
    return t


def _epsilon(t: Term) -> bool:
    return (is_number(t) and 0 < abs(value_of(t)) <= SMALL) or t.op in ("finfo_eps", "finfo_tiny")


def _limit(t: Term) -> bool:
    """Whether a limit lies at an end of [0, 1], or just inside."""
    if t.op in ("sub", "finfo_eps", "finfo_tiny"):
        return True
    return is_number(t) and min(abs(value_of(t)), abs(1 - value_of(t))) <= SMALL
