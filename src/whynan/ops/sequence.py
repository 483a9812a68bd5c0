"""Connectionist temporal classification: the loss of a label sequence over all its alignments with a longer input.

Log-probabilities are (T, N, C), targets (N, S) or one row of all targets after each other, the lengths of both (N,). Attributes:
`blank` and `zero_infinity`. Bounds are for known lengths; without them a result can be anything. A target's extended sequence has
a blank before, between and after its labels; an alignment walks through it by steps of 0, 1 or 2, one per time step, and 2 only onto
a label other than the last.

PyTorch keeps an infinite loss here even with `zero_infinity` (it is replaced afterwards), but gives it a zero gradient.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np

from whynan.domain.interval import Bounds, make, reshape, settle, top
from whynan.ir.dtype import FLOAT64, Array, Float64, Format, next_down, next_up
from whynan.ir.graph import Call, Shape
from whynan.ops._groups import aligned
from whynan.ops._opdef import Danger, bound, define_op
from whynan.ops.indexing import integers
from whynan.ops.shape import front

BRANCHES = np.log(3.0)  # an alignment has at most three ways to go on

# ---------------------------------------------------------------- one sequence


def _extended(labels: Array, blank: int) -> Array:
    out = np.full(2 * len(labels) + 1, blank, np.int64)
    out[1::2] = labels
    return out


def _log_sum(*terms: Any) -> Any:
    """log(sum(exp)) without overflow; -inf if all terms are."""
    most = np.maximum.reduce(terms)
    most = np.where(most == -np.inf, np.zeros_like(most), most)
    return np.log(np.add.reduce([np.exp(x - most) for x in terms])) + most


def _shifted(row: Array, steps: int) -> Array:
    out = np.full_like(row, -np.inf)
    out[steps:] = row[:-steps]
    return out


def _alphas(logs: Array, states: Array) -> Array:
    """For each time and state the log of the probability to be there, (T, states), from log-probabilities (T, C)."""
    out = np.full((len(logs), len(states)), -np.inf, logs.dtype)
    jumps = np.r_[[False, False], states[2:] != states[:-2]][: len(states)]
    for t, row in enumerate(logs[:, states]):
        if t == 0:
            out[0, :2] = row[:2]
        else:
            last = out[t - 1]
            out[t] = _log_sum(last, _shifted(last, 1), np.where(jumps, _shifted(last, 2), -np.inf).astype(last.dtype)) + row
    return out


def _loss(logs: Array, states: Array) -> Any:
    if not len(logs):
        return np.inf if len(states) > 1 else -0.0
    last = _alphas(logs, states)[-1]
    return -last[0] if len(states) == 1 else -_log_sum(last[-1], last[-2])


def _difference(logs: Array, states: Array, loss: Any) -> Array:
    """The probability of each class less its share in the alignments, (T, C): the gradient of the loss by scores."""
    both = _alphas(logs, states) + _alphas(logs[::-1], states[::-1])[::-1, ::-1]
    both[-1, :-2] = -np.inf  # whatever leads there
    if len(states) > 1 and states[-2] == states[-1]:
        both[-1, -1] = -np.inf  # PyTorch takes the last label for no blank and lets its share replace the blank's
    shares = np.full_like(logs, -np.inf)
    for c in np.unique(states):
        shares[:, c] = _log_sum(*both[:, states == c].T)
    return np.asarray(np.exp(logs) - np.exp(shares + loss - logs))


# ---------------------------------------------------------------- whole calls


def _labels(targets: Array, lengths: Array) -> list[Array]:
    """Each sequence's labels."""
    if targets.ndim == 1:
        return np.split(targets.astype(np.int64), np.cumsum(lengths))[:-1]
    return [row[:n].astype(np.int64) for row, n in zip(targets, lengths, strict=True)]


def _sequences(call: Call, logs: Array, targets: Array, times: Array, lengths: Array) -> Iterator[tuple[int, Array, Array]]:
    """Number, log-probabilities (its length, C) and extended sequence of each element of a batch."""
    blank = int(call.attrs["blank"])
    for n, (length, labels) in enumerate(zip(times, _labels(targets, lengths), strict=True)):
        yield n, logs[:length, n], _extended(labels, blank)


def _batches(call: Call, one: Any, *arrays: Array) -> Array:
    """The results of `one` on each element of the batch dimensions in front."""
    lead = front(call, arrays[0])
    flat = [a.reshape((prod(lead), *s)) for a, s in zip(arrays, call.shapes, strict=True)]
    rows = [one(call, *row) for row in zip(*flat, strict=True)]
    return np.reshape(rows, lead + tuple(call.shape))


def _losses(call: Call, logs: Array, *others: Array) -> Array:
    return np.array([_loss(x, states) for _, x, states in _sequences(call, logs, *others)], logs.dtype)


def _tables(call: Call, logs: Array, *others: Array) -> Array:
    out = np.full(call.shape, -np.inf, logs.dtype)
    for n, x, states in _sequences(call, logs, *others):
        out[n, : len(x), : len(states)] = _alphas(x, states)
    return out


def _gradients(call: Call, g: Array, loss: Array, logs: Array, *others: Array) -> Array:
    out = np.zeros(call.shape, logs.dtype)
    for n, x, states in _sequences(call, logs, *others):
        if len(x) and not (call.attrs["zero_infinity"] and loss[n] == np.inf):
            out[: len(x), n] = _difference(x, states, loss[n]) * g[n]
    return out


# ---------------------------------------------------------------- bounds


@dataclass(frozen=True, slots=True)
class _Reach:
    """What log-probabilities can sum to along an alignment, per sequence: (..., N) each, `inside` (T, N).

    `lo` and `hi` bound the computed log of an alignment's, and of all alignments', probability; `broken` says that a sum may be
    NaN or +inf, and `error` is how far rounding can move a log-probability that is summed.
    """

    lo: Float64
    hi: Float64
    broken: Array
    error: Float64
    inside: Array


def _known(shape: Shape, *lengths: Bounds) -> tuple[Array, Array] | None:
    """The lengths of inputs and targets, (N,) each, if both are known."""
    times, labels = (integers(b, shape) if b.lo.ndim <= len(shape) else None for b in lengths)
    return None if times is None or labels is None else (times, labels)


def _reach(call: Call, b: Bounds, shape: Shape, times: Array, labels: Array) -> _Reach:
    b, fmt = aligned(b, 3), call.format
    inside = np.arange(shape[0])[:, None] < times
    full = b.shape[:-3] + tuple(shape[:2])
    lo = np.where(inside, np.broadcast_to(b.lo.min(axis=-1), full), 0.0)
    hi = np.where(inside, np.broadcast_to(b.hi.max(axis=-1), full), 0.0)
    nan = np.any(inside & np.broadcast_to(b.may_nan.any(axis=-1), full), axis=-2)
    highest = np.max(hi, axis=-2, initial=0.0)
    below = _slack(fmt, times, np.max(np.abs(lo), axis=-2, initial=0.0))
    above = _slack(fmt, times, np.max(np.abs(hi), axis=-2, initial=0.0))
    broken = nan | (times * (highest + 2) + above >= fmt.max)
    low = lo.sum(axis=-2) - below
    deepest = np.minimum(lo, 0.0).sum(axis=-2) - below  # a sum may overflow on the way, whatever it comes to in the end
    low = np.where((deepest < -fmt.max) | np.isnan(low), -np.inf, low)
    high = hi.sum(axis=-2) + times * np.where(labels > 0, BRANCHES, 0.0) + above
    return _Reach(low, high, broken, np.maximum(below, above), inside)


def _slack(fmt: Format, times: Array, size: Float64) -> Float64:
    """Bounds the rounding error of T steps that add a log-probability of that size, and a log of at most three terms, to a sum of them.

    Both additions of a step err by u times the sum, the functions by a few u; a log-sum-exp does not enlarge earlier errors.
    """
    return np.asarray(2 * fmt.eps * times * (times * (size + 2) + 4), np.float64)


def _needed(targets: Array, lengths: Array) -> Array:
    """The shortest input that each target can be aligned with: a blank must stand between equal labels."""
    return np.array([len(x) + np.count_nonzero(x[1:] == x[:-1]) for x in _labels(targets, lengths)], np.int64)


def _alignable(shape: Shape, targets: Bounds, times: Array, labels: Array) -> tuple[Array, Array]:
    """Per sequence, whether an alignment surely exists, and whether surely none does."""
    known = integers(targets, shape) if targets.lo.ndim <= len(shape) else None
    if known is not None:
        need = _needed(known, labels)
        return times >= need, times < need
    return times >= labels + np.maximum(labels - 1, 0), times < labels


def _loss_bounds(call: Call, b: Bounds, targets: Bounds, *lengths: Bounds) -> Bounds:
    known = _known(call.shapes[2], *lengths)
    if known is None:
        return top(call.format, 1)
    reach = _reach(call, b, call.shapes[0], *known)
    sure, never = _alignable(call.shapes[1], targets, *known)
    lo, hi = np.where(never, np.inf, -reach.hi), np.where(sure, -reach.lo, np.inf)
    lo, hi = np.where(reach.broken, -np.inf, lo), np.where(reach.broken, np.inf, hi)
    return settle(make(lo, hi, nan=reach.broken), call.format)


def _table_bounds(call: Call, b: Bounds, targets: Bounds, *lengths: Bounds) -> Bounds:
    """Where a sequence is shorter than the table the kernel leaves memory as it found it."""
    known = _known(call.shapes[2], *lengths)
    if known is None:
        return top(call.format, 3)
    reach = _reach(call, b, call.shapes[0], *known)
    times, labels = known
    rising = np.maximum(aligned(b, 3).hi.max(axis=(-1, -2, -3), initial=0.0), 0.0)[..., None] + 2
    anything = reach.broken | (times < call.shape[1]) | (2 * labels + 1 < call.shape[2])
    hi = np.where(anything, np.inf, times * rising + reach.error)
    table = settle(make(np.full_like(hi, -np.inf), hi, nan=anything), call.format)
    return reshape(table, (*table.shape, 1, 1))


def _gradient_bounds(call: Call, g: Bounds, loss: Bounds, b: Bounds, targets: Bounds, *lengths: Bounds) -> Bounds:
    """Each share is at most 1, but for the errors of its logarithm: those of both tables, of their sum and of the loss."""
    known = _known(call.shapes[4], *lengths)
    if known is None:
        return top(call.format, 3)
    reach = _reach(call, b, call.shapes[2], *known)
    b, loss, g = aligned(b, 3), aligned(loss, 1), aligned(g, 1)
    infinite = (loss.hi == np.inf) & (not call.attrs["zero_infinity"])
    open_ended = reach.broken | infinite | loss.may_nan | (loss.lo == -np.inf) | ~np.isfinite(reach.lo)
    share = next_up(FLOAT64, np.exp(4 * reach.error) * (1 + 8 * call.format.eps))[..., None, :, None]
    least, most = np.exp(b.lo), np.exp(b.hi) * (1 + 8 * call.format.eps)
    least = np.where(np.isfinite(least), next_down(FLOAT64, least * (1 - 8 * call.format.eps)), 0.0)
    wild = open_ended[..., None, :, None] | ~(share < call.format.max)
    # a sequence of infinite loss has the gradient 0
    lo = np.where(wild, -np.inf, np.minimum(np.maximum(least, 0.0) - share, 0.0))
    hi = np.where(wild, np.inf, np.maximum(most, 0.0) + call.format.smallest)
    factor = settle(make(lo, hi, nan=wild), call.format)
    g = reshape(g, (*g.shape[:-1], 1, g.shape[-1], 1))
    product = bound(Call("mul", {}, (call.shape, call.shape), (call.format,) * 2, call.shape, call.format), (factor, g))
    if reach.inside.all():
        return product
    inside = reach.inside[..., None]
    return make(np.where(inside, product.lo, 0.0), np.where(inside, product.hi, 0.0), nan=inside & product.may_nan)


# ---------------------------------------------------------------- dangers


def _too_long(call: Call, logs: Array, targets: Array, times: Array, lengths: Array) -> Array:
    """Which sequences have no alignment."""
    return np.asarray(times < _needed(targets, lengths))


def _impossible(call: Call, *arrays: Array) -> Array:
    return np.array([bool((x == -np.inf).any()) for _, x, _ in _sequences(call, *arrays)])


def _finite(call: Call, *arrays: Array) -> Array:
    return np.array([bool(np.isfinite(x).all()) for _, x, _ in _sequences(call, *arrays)])


define_op(
    "ctc_loss",
    "the negative log-likelihood of a label sequence over all its alignments",
    lambda call, *arrays: _batches(call, _losses, *arrays),
    _loss_bounds,
    dangers=(
        Danger("log-of-zero", _too_long, "the target is longer than the input allows: no alignment exists and its probability is 0."),
        Danger("log-of-zero", _impossible, "a log-probability of -inf leaves the target no alignment: its probability is 0."),
        Danger("sum-overflow", _finite, "the log-probabilities along an alignment sum to more than the format can hold."),
    ),
)
define_op(
    "ctc_alpha",
    "the log-probabilities of the beginnings of all alignments",
    lambda call, *arrays: _batches(call, _tables, *arrays),
    _table_bounds,
)
define_op(
    "ctc_grad",
    "the gradient of the CTC loss by its log-probabilities",
    lambda call, *arrays: _batches(call, _gradients, *arrays),
    _gradient_bounds,
    dangers=(
        Danger(
            "inf-minus-inf",
            lambda call, g, loss, logs, *others: np.isinf(loss)[:, None],
            "the loss is infinite, so that its gradient subtracts infinities.",
        ),
        Danger(
            "inf-minus-inf",
            lambda call, g, loss, logs, *others: logs == -np.inf,
            "a log-probability of -inf is subtracted from that of its alignments, which is -inf too.",
        ),
        Danger(
            "product-overflow",
            lambda call, g, loss, logs, *others: np.isinf(np.exp(logs)),
            "the exponential of a log-probability exceeds the largest number of the format.",
        ),
    ),
)
