"""One proposed change."""

from dataclasses import dataclass

from whynan.ir.term import Term

EQUIVALENT = "equivalent"
GUARD = "guard"
ADVICE = "advice"


@dataclass(frozen=True, slots=True)
class Proposal:
    """A whole new term in place of the old one.

    `title` says in plain words what is done. `kind` is "equivalent" (the same real value wherever the old term has one), "guard"
    (another value on part of the domain) or "advice". `changes` says where the value changes and by how much, and where the
    gradient ends; it is empty where nothing changes. `rules` are the names of the rows that were used, `cost` orders the proposals.
    """

    term: Term
    title: str
    kind: str
    changes: str = ""
    rules: tuple[str, ...] = ()
    cost: tuple[float, ...] = ()
