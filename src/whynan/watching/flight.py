"""The flight recorder: a bounded memory of the last steps, and the warning while the gradient norm grows geometrically."""

import math
from collections import deque
from dataclasses import dataclass

from whynan.watching.record import Moment

THINNED = 16  # of the steps that leave the ring, one in so many is kept as the past
TOGETHER = 64  # healthy steps that are noted together: by itself each note is slow, since a step leaves nothing of the record in the caches
APPLIED = "applied"

# the alarm; a bit is a factor of two
_MARGIN = 5.0  # bits above the usual norm that are not ordinary, at least
_NOISE = 4.0  # and at least so many times the usual change from one step to the next
_CLIMB = 3.0  # bits by which the norm must have gone on growing since then
_STREAK = 3  # and for so many steps
_STEEP = 10.0  # bits of such growth that are enough at once
_ENORMOUS = 20.0  # bits above the usual norm that count even if the loss stands still
_FIRST = 8  # steps before which no norm is known to be ordinary
_CALM = 20  # steps in the ordinary range after which an episode is over
_SLOW, _FAST = 0.01, 0.5  # weights of a new value in the usual and in the present norm
_WIDEST = 8.0  # bits; a larger change counts as this much noise


class FlightRecord:
    """The last `size` steps, oldest first, and of those before them every 16th, up to `size`: its memory does not grow with the run."""

    def __init__(self, size: int) -> None:
        self._ring: deque[Moment] = deque(maxlen=size)
        self._past: deque[Moment] = deque(maxlen=size)
        self._gone = 0
        self._alarms: dict[int, Alarm] = {}
        self._text = ""

    def add(self, moment: Moment) -> None:
        """Append one step. The oldest leaves the ring when that is full."""
        if len(self._ring) == self._ring.maxlen:
            if self._gone % THINNED == 0:
                self._past.append(self._ring[0])
            self._gone += 1
        self._ring.append(moment)
        alarm = self._alarms.get(moment.optimizer)
        if alarm is None:
            alarm = self._alarms[moment.optimizer] = Alarm()
        self._text = alarm.add(moment)

    @property
    def moments(self) -> tuple[Moment, ...]:
        """The last steps, oldest first."""
        return tuple(self._ring)

    @property
    def past(self) -> tuple[Moment, ...]:
        """Every 16th of the steps before them, oldest first."""
        return tuple(self._past)

    @property
    def ordinary(self) -> float:
        """The gradient norm up to which a step is quite ordinary: one with a larger norm may be the first of a climb.

        A watcher that notes several steps together notes at once when it is exceeded. 0 in the first steps.
        """
        return min((a.ordinary for a in self._alarms.values()), default=0.0)

    @property
    def alarm(self) -> str:
        """What the step added last gives cause to warn of, empty if nothing."""
        return self._text


def warning(flight: FlightRecord) -> str:
    """Why the training is likely to fail soon, in a sentence or two; empty if nothing points to it.

    Looks at the step that was added last. Each episode is warned of once: there is no other warning before the norm has been in its usual
    range for 20 steps.
    """
    return flight.alarm


def norm_of(moment: Moment) -> float:
    """The norm of all gradients before any clipping, as far as it is known."""
    return moment.gradient_norm if math.isnan(moment.clipped_from) else moment.clipped_from


def short(x: float) -> str:
    """A number to two digits, without an exponent where it is easily read: 0.013, 1,200, 3.4e+08."""
    if not 1e-4 <= abs(x) < 1e7:
        return f"{x:.2g}"
    digits = 1 - math.floor(math.log10(abs(x)))
    return f"{round(x, digits):,.{max(digits, 0)}f}"


@dataclass(slots=True)
class Alarm:
    """Follows one optimizer's gradient norm from step to step, in constant time and memory.

    `usual` is a slow mean of the norm's logarithm, `noise` one of its changes. The norm climbs while its fast mean `now` is above the
    ordinary range; `began`, `level` and `loss` are the step, the norm and the loss at which that began.
    """

    seen: int = 0
    usual: float = math.nan
    noise: float = 0.5
    last: float = math.nan
    now: float = math.nan
    began: int = -1
    level: float = math.nan
    loss: float = math.nan
    streak: int = 0
    calm: int = 0
    warned: bool = False
    overflown: bool = False

    @property
    def ordinary(self) -> float:
        """The norm up to which a step is quite ordinary; 0 in the first steps."""
        return 2.0 ** min(self.usual + max(_MARGIN, _NOISE * self.noise) / 2, 1000.0) if self.seen >= _FIRST else 0.0

    def add(self, moment: Moment) -> str:
        """Take in one step and return what it gives cause to warn of, empty if nothing."""
        if moment.outcome != APPLIED:
            return ""
        norm = norm_of(moment)
        climbs = self._follow(moment, math.log2(norm)) if 0 < norm < math.inf else False
        if self._overflows(moment, norm):
            zero = moment.clipped_from == math.inf or not any(moment.gradient_norms)
            return f"step {moment.step}: {EMPTIED if zero else _TOO_LARGE}"
        return self._growing(moment) if climbs else ""

    def _follow(self, moment: Moment, bits: float) -> bool:
        """Take in a norm; whether it is time to warn."""
        if not self.seen:
            self.usual = self.last = self.now = bits
        margin = max(_MARGIN, _NOISE * self.noise)
        self.now += _FAST * (bits - self.now)
        climbs = self.now > self.usual + margin
        warn = self._climb(moment, bits) if climbs else self._rest(abs(bits - self.last))
        weight = max(_SLOW, 1 / (self.seen + 1))
        self.usual += weight * min(max(bits - self.usual, -margin), margin)
        self.last = bits
        self.seen += 1
        return warn

    def _rest(self, change: float) -> bool:
        weight = max(_SLOW, 1 / (self.seen + 10))  # the noise of the first steps is not yet known
        self.noise += weight * (min(change, _WIDEST) - self.noise)
        self.streak = 0
        self.calm += 1
        if self.calm >= _CALM:
            self.warned = False
        return False

    def _climb(self, moment: Moment, bits: float) -> bool:
        self.calm = 0
        if not self.streak:
            self.began, self.level, self.loss = moment.step, bits, moment.loss
        self.streak += 1
        grown = bits - self.level
        lasts = (grown >= _CLIMB and self.streak >= _STREAK) or (grown >= _STEEP and self.streak >= 2)
        warn = lasts and not self.warned and not self._good(moment.loss)
        self.warned |= warn
        return warn

    def _good(self, loss: float) -> bool:
        """Whether the loss has hardly risen with the norm, as on the way out of a saddle; for an enormous norm, whether it has fallen."""
        level = self.now < self.usual + _ENORMOUS
        return loss <= self.loss + (abs(self.loss) / 4 if level else 0)

    def _growing(self, moment: Moment) -> str:
        norm, usual = norm_of(moment), 2.0**self.usual
        loss = f", the loss from {short(self.loss)} to {short(moment.loss)}" if math.isfinite(moment.loss + self.loss) else ""
        rate = f" (now {short(max(moment.learning_rates))})" if moment.learning_rates else ""
        return (
            f"step {moment.step}: the gradient norm is {short(norm)}, {short(norm / usual)} times what was usual ({short(usual)}). "
            f"It has kept growing since step {self.began}{loss}: the training is likely to overflow soon. "
            f"Lower the learning rate{rate} or clip the gradients."
        )

    def _overflows(self, moment: Moment, norm: float) -> bool:
        """Whether the norm of finite gradients has just begun to be inf, or to be 0 right after a climb, as clipping by inf leaves it."""
        before = self.overflown
        self.overflown = norm == math.inf or (moment.gradient_norm == 0 and (before or self.streak > 0))
        return self.overflown and not before


EMPTIED = (
    "clipping by norm has set all gradients to zero, so this update learns nothing. The gradients were finite but so large that their norm "
    "is inf, and max_norm / inf is 0. Clip by value first, compute the norm in float64, or find out why the gradients are that large."
)
_TOO_LARGE = "the gradients are finite, but their norm overflows to inf. Clipping by that norm would silently set all of them to zero."
