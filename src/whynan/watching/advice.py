"""What the flight record suggests after a bad step, in sentences with numbers: learning rate, warm-up, clipping norm, scaler."""

import math
from collections.abc import Iterator, Sequence

from whynan.watching.divergence import Divergence, divergence, outlier
from whynan.watching.flight import EMPTIED, FlightRecord, norm_of, short
from whynan.watching.record import BAD_DATA, BAD_STATE, DIVERGENCE, Incident, Moment

QUANTILE = 0.95  # of the healthy gradient norms: clipping there touches one step in twenty
ENOUGH = 20  # healthy steps from which a quantile is taken
EARLY = 20  # a divergence that begins before this step is one of the first steps
COLLAPSE = 2**8  # a gradient scale that has been halved eight times
LARGE_UPDATE = 0.1  # an update's norm over that of the parameters; a thousandth is usual
ORDINARY_UPDATE = 0.01  # a large one that may be borne

_CLIPPING = {
    "torch": "torch.nn.utils.clip_grad_norm_(parameters, {})",
    "tensorflow": "tf.clip_by_global_norm(gradients, {}), or global_clipnorm={} of a Keras optimizer",
    "keras": "global_clipnorm={} of the optimizer",
    "jax": "optax.clip_by_global_norm({})",
}


def advice_from(flight: FlightRecord, moment: Moment, incident: Incident) -> tuple[str, ...]:
    """What the last steps suggest doing about the bad step `moment`, which is not yet in the record; empty if they suggest nothing."""
    found = divergence(flight, moment) if incident.kind == DIVERGENCE else None
    lines = [*_clipped(flight, moment, incident), *_scale(flight, moment)]
    if found is not None:
        lines += [*_rate(found), *_warm_up(found), *_clip(found, incident.framework)]
    elif incident.kind not in (BAD_DATA, BAD_STATE):
        lines += _beginning(outlier(flight, moment), moment)
    return tuple(lines)


# ---------------------------------------------------------------- divergence


def _rate(found: Divergence) -> Iterator[str]:
    """A smaller learning rate: the one that was healthy before it was raised, or the larger of two estimates from the growth."""
    recent = found.healthy[-50:]
    now, before = _highest_rate(found.steps), _usual_rate(recent)
    raised = next((m.step for m in (*recent, *found.steps) if _highest_rate([m]) >= 2 * before), None)
    estimates = [e for e in (_by_curvature(found.steps, now), _by_update(found.steps, now)) if e is not None]
    if math.isnan(now):
        yield "lower the learning rate."
    elif raised is not None and len(recent) >= ENOUGH:
        yield f"lower the learning rate: with {short(before)} the steps were healthy, from step {raised} on it was {short(now)}."
    elif estimates:
        rate, why = max(estimates)
        yield f"lower the learning rate to about {_one_digit(rate)}: {why} with {short(now)}."
    else:
        yield f"lower the learning rate (now {short(now)})."


def _by_curvature(steps: Sequence[Moment], now: float) -> tuple[float, str] | None:
    """Gradient descent with step s on a quadratic of curvature c multiplies the gradient by 1 - s * c.

    A growth by g means s * c = 1 + g; stable is s * c < 2. Proposed is s * c = 1/2, since batches differ.
    """
    known = [norm_of(m) for m in steps if 0 < norm_of(m) < math.inf][:2]
    if len(known) < 2 or known[1] <= known[0]:
        return None
    factor = known[1] / known[0]
    return now / (1 + factor) / 2, f"the first of these updates multiplied the gradient norm by {short(factor)}"


def _by_update(steps: Sequence[Moment], now: float) -> tuple[float, str] | None:
    """The rate at which the first update would have been a hundredth of the parameters: what it was is seen in how their norm grew."""
    ratio = steps[1].update_ratio if len(steps) > 1 else math.nan
    norms = [m.parameter_norm for m in steps[:2] if m.parameter_norm > 0]
    if math.isnan(ratio) and len(norms) == 2 and norms[1] >= 2 * norms[0]:
        ratio = norms[1] / norms[0]
    if not LARGE_UPDATE <= ratio < math.inf:
        return None
    return now * ORDINARY_UPDATE / ratio, f"the first of these updates was {short(ratio)} times as large as the parameters (norms)"


def _highest_rate(moments: Sequence[Moment]) -> float:
    return max((r for m in moments for r in m.learning_rates), default=math.nan)


def _usual_rate(moments: Sequence[Moment]) -> float:
    rates = [_highest_rate([m]) for m in moments if m.learning_rates]
    return _quantile(rates, 0.5) if rates else math.nan


def _warm_up(found: Divergence) -> Iterator[str]:
    start = found.steps[0].step
    if start < EARLY:
        yield f"it began at step {start}: let the learning rate rise from near 0 over the first hundreds of steps (a warm-up)."


def _clip(found: Divergence, framework: str) -> Iterator[str]:
    norms = [norm_of(m) for m in found.healthy if 0 < norm_of(m) < math.inf]
    if any(not math.isnan(m.clipped_from) for m in (*found.healthy, *found.steps)):
        yield "the gradients are clipped already, so the norm to which they are clipped is too large for this learning rate."
    elif len(norms) >= ENOUGH:
        norm = _two_digits(_quantile(norms, QUANTILE))
        how = _CLIPPING.get(framework, "").replace("{}", norm)
        yield (
            f"clip the gradients to a norm of {norm}{f', {how}' if how else ''}: of the {len(norms)} healthy steps on record before, "
            f"{QUANTILE:.0%} had a smaller one."
        )


def _quantile(values: Sequence[float], q: float) -> float:
    """The smallest value that at least this part of the values does not exceed."""
    return sorted(values)[math.ceil(q * len(values)) - 1]


def _one_digit(x: float) -> str:
    """A positive number rounded down to one digit."""
    size = 10.0 ** math.floor(math.log10(x))
    return f"{math.floor(x / size) * size:.1g}"


def _two_digits(x: float) -> str:
    return f"{float(f'{x:.1e}'):g}"


# ---------------------------------------------------------------- a sudden fault


def _beginning(began: Moment | None, moment: Moment) -> Iterator[str]:
    if began is None:
        return
    numbers = ", ".join(
        f"{name} {short(value)}" for name, value in (("loss", began.loss), ("gradient norm", norm_of(began))) if math.isfinite(value)
    )
    later = moment.step - began.step
    yield (
        f"look at step {began.step}, {later} step{'s' if later > 1 else ''} before this one: there the numbers jumped ({numbers}) while "
        "the parameters were as before. Its update was applied; clipping the gradients by norm would have bounded it."
    )


def _clipped(flight: FlightRecord, moment: Moment, incident: Incident) -> Iterator[str]:
    """What clipping by norm does to one gradient that is not finite, or to finite ones whose norm is inf."""
    clips = any(not math.isnan(m.clipped_from) for m in (*flight.moments[-10:], moment))
    if moment.clipped_from == math.inf and moment.gradient_norms and not any(moment.gradient_norms):
        yield EMPTIED
    elif incident.failed == "gradient" and clips and not math.isfinite(moment.clipped_from):
        first = f" The first that failed by itself is that of {incident.parameter}." if incident.parameter else ""
        yield (
            "clipping by norm spreads a failure: it multiplies all gradients by max_norm / norm, so that one NaN makes all of them NaN, "
            f"and one inf makes all others 0.{first} In PyTorch, clip_grad_norm_(..., error_if_nonfinite=True) stops there instead."
        )


def _scale(flight: FlightRecord, moment: Moment) -> Iterator[str]:
    """A gradient scaler that goes down and down: then it is not the scale that overflows."""
    scales = [(m.step, m.scale) for m in (*flight.moments, moment) if m.scale > 0]
    if len(scales) < 2:
        return
    highest = max(range(len(scales)), key=lambda i: scales[i][1])
    (step, before), (_, after) = scales[highest], scales[-1]
    if before / after >= COLLAPSE:
        yield (
            f"the gradient scale fell from {short(before)} to {short(after)} since step {step}: a smaller scale does not help, so "
            "something is too large for float16 itself. Compute that part in float32 (autocast off around it), or use bfloat16, which "
            "has the range of float32 and needs no scaler."
        )
