"""Fixes: changes of a term that remove a failure, best first. Terms in, terms out: nothing here knows source code or a framework.

`propose(term, at, cause, ranges, fmt, mode)` answers with `Proposal`s. Their order is a guess from rules and bounds; what holds
is found out by whoever writes the change into the source and checks it again.
"""

from whynan.fixes._proposal import Proposal
from whynan.fixes._propose import propose

__all__ = ["Proposal", "propose"]
