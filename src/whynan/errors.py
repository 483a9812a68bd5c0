"""What whynan raises for its user, each with what to do next.

Every error is one sentence on what happened and one on what to do; the command line prints both on one line and ends with exit code 2.
"""


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


class FrameworkMissing(WhynanError):
    """The framework that the target needs is not installed."""


class OpError(WhynanError):
    """An operation's record is wrong or missing (a defect of whynan, not of the loss)."""
