"""The options of a check, in one frozen record with their defaults."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Settings:
    """How a check is done.

    `modes` are the programs to check (contract, section 3). `budget` is the time in seconds that search may take for each mode beyond
    its fixed candidates; `boxes` limits branch and prune; `seed` makes everything repeatable. A gradient larger than
    `gradient_limit` is reported as exploding. `step` is told what is being done, for a progress display.
    """

    modes: tuple[str, ...] = ("eager",)
    dtype: str | None = None
    budget: float = 0.4
    evaluations: int = 600
    boxes: int = 60_000
    seed: int = 0
    gradient_limit: float = 1e6
