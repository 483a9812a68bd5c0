"""From a failing sub-term to proposals."""

from collections.abc import Mapping

from whynan.fixes._proposal import Proposal
from whynan.ir.dtype import FLOAT32, Format
from whynan.ir.term import Path, Term


def propose(
    term: Term, at: Path, cause: str, ranges: Mapping[str, tuple[float, float]] | None = None, fmt: Format = FLOAT32, mode: str = "eager"
) -> list[Proposal]:
    """Changes of `term` that may remove a failure, best first, at most twelve.

    `at` is the path of the sub-term that fails (its derivative, if the failure is in the backward phase) and `cause` the
    contract's name for why. `ranges` gives what is known of leaves by name, `fmt` is the format at the failing operation.
    """
    return []
