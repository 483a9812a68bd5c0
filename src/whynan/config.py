"""The options of a check, in one frozen record with their defaults."""

from dataclasses import dataclass

OWN = "own"  # in `Settings.envelope`: the dtypes that the domains have


@dataclass(frozen=True, slots=True)
class Settings:
    """How a check is done.

    `modes` are the programs to check (contract, section 3). `evaluations` is how many inputs the search may try for each mode, `boxes`
    how many boxes branch and prune may evaluate; both are counts, so that the answer does not depend on the machine. `budget` is a
    limit in seconds of work (`analysis.effort`) on the search, and on the explanation of what it found, for losses that take long to
    run. `seed` makes everything repeatable. A gradient larger than `gradient_limit` is reported as exploding. `envelope` are the dtypes
    in which the safe range of each input is looked for, `OWN` being those of the domains. With `accuracy` the digits of the loss and
    its gradients are counted, too.
    """

    modes: tuple[str, ...] = ("eager",)
    dtype: str | None = None
    budget: float = 4.0
    evaluations: int = 600
    boxes: int = 60_000
    seed: int = 0
    gradient_limit: float = 1e6
    envelope: tuple[str, ...] = ()
    accuracy: bool = False
