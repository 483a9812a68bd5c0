"""Divergence or a sudden fault: did loss, gradient norm and parameters grow over several updates before the step failed?

All comparisons are of logarithms to base 2; a bit is a factor of two. What counts is growth that has lasted until the failure, that is
larger than anything before it, and that the parameters took part in (where their norm is known). A loss or gradient that jumps while the
parameters are as they were comes from that step's data or from an operation, not from the updates before it.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from whynan.analysis.finding import ERROR, Finding
from whynan.watching.flight import APPLIED, FlightRecord, norm_of, short
from whynan.watching.record import BAD_DATA, BAD_STATE, CUSTOM_BACKWARD, DIVERGENCE, Incident, Moment, Suspects

GROWN = 10.0  # bits by which loss or gradient norm must have grown
_MOVED = 5.0  # bits by which the parameters' norm must have grown where it confirms that
_STEEP = 20.0  # bits for a gradient norm that has no other witness
_ABOVE = 3.0  # bits above all that was there before
_OVERFLOWED = 128.0  # bits that stand for a norm that is inf
_ENORMOUS = 1e6  # a parameter norm, where it alone has grown
_UNTOUCHED = 1.5  # the factor up to which the parameters count as unchanged

Signal = Callable[[Moment], float]


@dataclass(frozen=True, slots=True)
class Growth:
    """How a quantity grew: from `moments[first]`, the last ordinary one, to `moments[last]`; `jump` is the most in one step, in bits."""

    first: int
    last: int
    before: float
    after: float
    jump: float

    @property
    def bits(self) -> float:
        """The whole growth, in bits."""
        return self.after - self.before

    @property
    def gradual(self) -> bool:
        """Whether it took more than one jump."""
        return self.bits - self.jump >= _ABOVE and self.last - self.first >= 2

    def told(self, name: str) -> str:
        """`NAME from A to B`."""
        return f"{name} from {_value(self.before)} to {_value(self.after)}"


@dataclass(frozen=True, slots=True)
class Divergence:
    """A divergence: why it is taken for one, the steps before it, and those of it, the failing one last."""

    reason: str
    healthy: tuple[Moment, ...]
    steps: tuple[Moment, ...]


def diverged(flight: FlightRecord, moment: Moment) -> str:
    """Why the failure at `moment`, which is not yet in the record, is taken for a divergence; empty if it came suddenly."""
    found = divergence(flight, moment)
    return found.reason if found else ""


def divergence(flight: FlightRecord, moment: Moment) -> Divergence | None:
    """The divergence that the failure at `moment` ended, None if it came suddenly."""
    return _from(_since_rollback(flight, moment), moment, 0)


def outlier(flight: FlightRecord, moment: Moment) -> Moment | None:
    """The last steps' one whose loss or gradient suddenly was a thousand times as large as before with the parameters unchanged, if any."""
    moments = _since_rollback(flight, moment)
    found = _jumped(moments, max(1, len(moments) - 10), len(moments))
    return moments[found] if found is not None else None


def _since_rollback(flight: FlightRecord, moment: Moment) -> tuple[Moment, ...]:
    """The applied steps of the same optimizer, oldest first, since the parameters were last set back."""
    moments = (*flight.past, *flight.moments)
    start = max((i + 1 for i, m in enumerate(moments) if m.outcome == "rollback"), default=0)
    return tuple(m for m in moments[start:] if m.outcome == APPLIED and m.optimizer == moment.optimizer)


def _from(moments: tuple[Moment, ...], failed: Moment, start: int) -> Divergence | None:
    """The divergence among `moments[start:]` and the failing step."""
    known = (*moments[start:], failed)
    growths = [growth(known, signal) for signal in (_loss, norm_of)]
    found = next((g for g in growths if g is not None), None)
    if found is None:
        return _of_parameters(known, growth(known, _parameters), moments[:start])
    first = min(g.first for g in growths if g is not None)
    sudden = _jumped(known, first + 1, len(known) - 1)
    if sudden is not None and _from(moments[: start + sudden - 1], known[sudden - 1], start) is None:  # what came after may have become one
        later = _from(moments, failed, start + sudden)
        return later if later is not None and len(later.steps) > 3 else None
    if not _convincing(known, growths[0], growths[1], start + first):
        return None
    names = zip(("the loss", "the gradient norm"), growths, strict=True)
    said = [g.told(name) for name, g in names if g is not None]
    moved = _growth_of_parameters(known, first)
    said += [moved.told("the norm of the parameters")] if moved is not None else []
    return _told(known, moments[:start], first, f"{' and '.join(filter(None, (', '.join(said[:-1]), said[-1])))} grew")


def _told(known: tuple[Moment, ...], earlier: tuple[Moment, ...], first: int, what: str) -> Divergence:
    steps = known[-1].step - known[first].step
    within = f"over {steps} updates (steps {known[first].step} to {known[-1].step})" if steps > 1 else "in one update"
    subject, _, verb = what.rpartition(" ")
    return Divergence(f"{subject} {verb} {within}", (*earlier, *known[: first + 1]), known[first:])


def _convincing(known: tuple[Moment, ...], loss: Growth | None, gradient: Growth | None, before: int) -> bool:
    """Whether the growth of loss, gradient or both is a divergence; `before` counts the steps before it."""
    grown = [g for g in (loss, gradient) if g is not None]
    first = min(g.first for g in grown)
    moved = _growth_of_parameters(known, first)
    if loss is None and _fallen(known, first):
        return False  # a training that leaves a saddle, not one that diverges
    if moved is not None:
        return True  # in one jump or several: the parameters grew with it, and no loss or gradient jumped before they did
    gradual = [g for g in grown if g.gradual]
    if not gradual:
        return False
    long = max(g.last - g.first for g in gradual) >= 3 or before < 3
    if len(gradual) == 2:
        return long
    other = norm_of if loss in gradual else _loss
    if sum(math.isfinite(other(m)) for m in known[:-1]) < 2:
        return long
    return gradient in gradual and gradual[0].bits >= _STEEP and gradual[0].last - gradual[0].first >= 5


def _fallen(known: tuple[Moment, ...], first: int) -> bool:
    """Whether the loss is lower at the end than where the growth began."""
    losses = [m.loss for m in known[first:] if math.isfinite(m.loss)]
    return len(losses) > 1 and losses[-1] < losses[0]


def _of_parameters(known: tuple[Moment, ...], grown: Growth | None, earlier: tuple[Moment, ...]) -> Divergence | None:
    """A divergence that only the parameters show: over several steps to enormous values, or a thousandfold by the last update."""
    if grown is None or _fallen(known, grown.first) or _jumped(known, max(1, len(known) - 10), len(known) - 1) is not None:
        return None
    enormous = 2.0**grown.after >= _ENORMOUS and grown.gradual
    exploded = grown.last == len(known) - 1 and grown.jump >= GROWN and 2.0**grown.after >= 100 and 2.0**grown.before > 1e-3
    return _told(known, earlier, grown.first, f"{grown.told('the norm of the parameters')} grew") if enormous or exploded else None


def _growth_of_parameters(known: Sequence[Moment], first: int) -> Growth | None:
    """How the parameters' norm grew from `first`, or the last time before that it was measured, if it did."""
    points = _points(known, _parameters)
    start = max((k for k, (i, _) in enumerate(points) if i <= first), default=0)
    if len(points) - start < 2:
        return None
    (_, before), (last, after) = points[start], max(points[start:], key=lambda p: p[1])
    return Growth(first, last, before, after, 0.0) if after - before >= _MOVED else None


def _jumped(known: Sequence[Moment], start: int, stop: int) -> int | None:
    """The first of the steps from `start` up to `stop` at which loss or gradient rose a thousandfold at once, the parameters unchanged."""
    for i in range(start, stop):
        if _untouched(known, i) and any(_rose(known[: i + 1], signal) for signal in (_loss, norm_of)):
            return i
    return None


def _untouched(known: Sequence[Moment], i: int) -> bool:
    """Whether step `i` began with the parameters of the step before. Where their norm is unknown: after ordinary steps, at the very end."""
    was, now = _parameters(known[i - 1]), _parameters(known[i])
    if math.isnan(was) or math.isnan(now):
        return i >= 10 and len(known) - i <= 3
    return now <= was * _UNTOUCHED


def _rose(known: Sequence[Moment], signal: Signal, most: int = 30) -> bool:
    """Whether the last value is a thousand times the largest of those before it."""
    points = [b for _, b in _points(known[-most:], signal)]
    return math.isfinite(signal(known[-1])) and len(points) > 1 and points[-1] - max(points[:-1]) >= GROWN


def growth(known: Sequence[Moment], signal: Signal) -> Growth | None:
    """How a quantity has grown until now: by `GROWN` bits at least, not come back since, and above all before it; None if it has not."""
    found = _grown(_points(known, signal))
    if found is None or all(math.isnan(m.scale) for m in known):
        return found
    # a gradient scaler's factor may or may not be in the numbers: what grows only with it, or only without it, is its doing
    unscaled = _grown(_points(known, lambda m: signal(m) / m.scale if m.scale > 0 else math.nan))
    return found if unscaled is not None else None


def _grown(points: list[tuple[int, float]]) -> Growth | None:
    bits = [b for _, b in points]
    if len(bits) < 2:
        return None
    top = max(range(max(0, len(bits) - 3), len(bits)), key=bits.__getitem__)
    low = _lowest_before(bits, top)
    rise = bits[top] - bits[low]
    if rise < GROWN or bits[-1] < bits[top] - rise / 4:
        return None
    first = max(i for i in range(low, top) if bits[i] <= bits[low] + max(1.0, min(3.0, rise / 10)))
    if bits[top] < max(bits[: first + 1]) + _ABOVE:
        return None
    jump = max(bits[i + 1] - bits[i] for i in range(first, top))
    return Growth(points[first][0], points[top][0], bits[first], bits[top], jump)


def _lowest_before(bits: Sequence[float], top: int) -> int:
    """The lowest value from which it went up to `top` without falling by more than a quarter of the rise in between."""
    low = top
    for i in range(top - 1, -1, -1):
        if bits[i] > bits[low] + max(1.0, (bits[top] - bits[low]) / 4):
            break
        if bits[i] < bits[low]:
            low = i
    return low


def _points(known: Sequence[Moment], signal: Signal) -> list[tuple[int, float]]:
    """The values that are known and not zero, as (index, bits). A norm that overflowed is very large.

    A loss or gradient that is inf in the failing step, the last one, may have become so at once and tells nothing.
    """
    points = []
    for i, m in enumerate(known):
        value = abs(signal(m))
        if value == math.inf and (i < len(known) - 1 or signal is _parameters):
            points.append((i, _OVERFLOWED))
        elif 0 < value < math.inf:
            points.append((i, math.log2(value)))
    return points


def _loss(moment: Moment) -> float:
    return abs(moment.loss)


def _parameters(moment: Moment) -> float:
    return moment.parameter_norm


def _value(bits: float) -> str:
    return "inf" if bits >= _OVERFLOWED else short(2.0**bits)


def as_divergence(incident: Incident, reason: str) -> Incident:
    """The incident with divergence as its cause; the operation at which it overflowed is told as where it ended, not blamed.

    Nor is a layer or a sample. Bad data, a state that was broken before and a wrong backward of the user's own stay what they are.
    """
    if not reason or incident.kind in (BAD_DATA, BAD_STATE, CUSTOM_BACKWARD):
        return incident
    ended = incident.finding
    where = f" It ended at {_place(ended)}, which is not to blame." if ended is not None else ""
    message = f"The training diverged: {reason}.{where}"
    incident = replace(incident, kind=DIVERGENCE, layer="", suspects=Suspects(batch=incident.suspects.batch, call=incident.suspects.call))
    if ended is None:
        blank = Finding(id="", kind="non-finite", severity=ERROR, cause="divergence", message=message, op="", phase="forward", site=None)
        return replace(incident, finding=blank)
    related = tuple(dict.fromkeys(c for c in (ended.cause, *ended.related) if c != "divergence"))
    finding = replace(ended, cause="divergence", message=message, op="", site=None, related=related, chain=())
    return replace(incident, finding=finding)


def _place(ended: Finding) -> str:
    if ended.site is None:
        return f"an operation {ended.op} ({ended.cause})"
    return f"{ended.site.file}:{ended.site.line}, {ended.site.text} ({ended.cause})"
