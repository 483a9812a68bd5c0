"""What whynan raises for its user, each with what to do next.

Every error is one sentence on what happened and one on what to do; the command line prints both on one line and ends with exit code 2.
"""

from typing import Any


class WhynanError(Exception):
    """Anything that keeps whynan from answering. `str(error)` is the one line shown to the user."""

    def __init__(self, message: str, hint: str = "") -> None:
        self.message = message
        self.hint = hint
        super().__init__(f"{message} {hint}".strip() if hint else message)


class TargetError(WhynanError):
    """The target cannot be imported, is not callable, or cannot be run."""


class DomainError(WhynanError):
    """A domain is malformed, empty, missing, or does not fit the loss."""


class SampleError(WhynanError):
    """A sample file is broken or of a kind that whynan does not read."""


class IncidentError(WhynanError):
    """An incident's folder is missing, broken, larger than any that whynan writes, or from a later version."""


class FrameworkMissing(WhynanError):
    """The framework that the target needs is not installed."""


class OpError(WhynanError):
    """An operation's record is wrong or missing (a defect of whynan, not of the loss)."""


class NonFiniteError(WhynanError, ArithmeticError):
    """A watched training step gave a loss or gradient that is not finite; the parameters are as they were before it.

    `incident` is the explanation (`whynan.watching.record.Incident`), `in_a_row` how many steps in a row have failed.
    """

    def __init__(self, message: str, hint: str = "", incident: Any = None, in_a_row: int = 1) -> None:
        self.incident = incident
        self.in_a_row = in_a_row
        super().__init__(message, hint)

    @classmethod
    def of(cls, incident: Any, in_a_row: int = 1) -> "NonFiniteError":
        """The error that tells an incident."""
        return cls(str(incident), "", incident, in_a_row)
