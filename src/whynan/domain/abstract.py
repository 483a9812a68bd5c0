"""From a domain to the bounds that stand for all of it."""

from whynan.domain.interval import Bounds, between, of_array
from whynan.domain.spec import CONTINUOUS, Domain
from whynan.ir.dtype import Array


def bounds_of(domain: Domain) -> Bounds:
    """Bounds of every array in the domain: one interval for all elements (dimensions of size 1), element by element for a `const`.

    A continuous domain that holds 0 holds -0.0 too, since the two are equal; zeros of discrete domains are +0.
    """
    if domain.value is not None:
        return of_array(_collapsed(domain.value))
    continuous = domain.kind in CONTINUOUS
    return between(domain.low, domain.high, domain.format, len(domain.shape), fraction=continuous, neg_zero=continuous)


def _collapsed(value: Array) -> Array:
    """One element for an array that repeats it bit for bit, so that bounds cost the same for any size."""
    if value.size > 1 and value.tobytes() == value.flat[0].tobytes() * value.size:
        return value.flat[:1].reshape((1,) * value.ndim)
    return value
