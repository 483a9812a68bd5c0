"""How far rounding can break an inequality between two values."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Slack:
    """By how much rounding can break a relation: a <= b * (1 + relative) + absolute.

    `positive` is a relative slack that holds alone, without the absolute one, wherever b is not 0 (inf if there is none).
    """

    relative: float = 0.0
    absolute: float = 0.0
    positive: float = float("inf")

    def __add__(self, other: "Slack") -> "Slack":
        return Slack(self.relative + other.relative + self.relative * other.relative, self.absolute + other.absolute)


EXACT = Slack()
