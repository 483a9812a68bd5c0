"""How long something has worked: what the limits in seconds are about.

The limits are there for losses that take long to run. On a machine that is busy with other work everything takes longer on the clock,
but no more work; counted by the clock, the same check would then find less.
"""

import time
from dataclasses import dataclass, field

PATIENCE = 3.0  # by the clock it may take so many times longer: a loss that waits for a device works little


@dataclass(frozen=True, slots=True)
class Effort:
    """The work since it was made."""

    clock: float = field(default_factory=time.perf_counter)
    worked: float = field(default_factory=time.thread_time)

    @property
    def elapsed(self) -> float:
        """Seconds by the clock."""
        return time.perf_counter() - self.clock

    @property
    def seconds(self) -> float:
        """Seconds of this thread's work, or a part of those by the clock where it mostly waited."""
        return max(time.thread_time() - self.worked, self.elapsed / PATIENCE)
