"""The witness of a failing loss is the simplest one: few elements away from plain, round numbers, inside the domain."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import whynan
from whynan.analysis.finding import Finding
from whynan.domain import sample
from whynan.domain.spec import Domain


@dataclass(frozen=True)
class Expected:
    """A loss, its domains, the cause that is looked at, and how many elements of each input may differ from the plain array."""

    loss: Callable[..., Any]
    domains: Mapping[str, Domain]
    cause: str
    apart: Mapping[str, int]
    values: Mapping[str, float]  # the value of the elements apart, where it is known


CASES: list[Expected] = []


def minimal(cause: str, apart: Mapping[str, int], values: Mapping[str, float] | None = None, **domains: Domain) -> Callable[..., Any]:
    """Register a loss with what its simplest witness looks like."""

    def register(loss: Callable[..., Any]) -> Callable[..., Any]:
        CASES.append(Expected(loss, domains, cause, apart, values or {}))
        return loss

    return register


@minimal("epsilon-rounds-away", {"p": 1, "t": 0}, {"p": 1.0}, p=whynan.prob(8), t=whynan.binary(8))
def clamped_bce(p, t):
    q = p.clamp(1e-8, 1 - 1e-8)
    return -(t * torch.log(q) + (1 - t) * torch.log(1 - q)).mean()


@minimal("log-of-zero", {"p": 1}, {"p": 0.0}, p=whynan.prob(3, 8))
def log(p):
    return -torch.log(p).mean()


@minimal("exp-overflow", {"x": 1}, {"x": 100.0}, x=whynan.logit(16))
def exp(x):
    return torch.exp(x).mean()


@minimal("exp-overflow", {"x": 1}, {"x": 100.0}, x=whynan.real(4, 4, low=-1000, high=1000))
def softplus_by_hand(x):
    return torch.log(1 + torch.exp(x)).mean()


@minimal("div-by-zero", {"x": 1, "y": 1}, {"x": 1.0, "y": 0.0}, x=whynan.real(6), y=whynan.nonnegative(6))
def quotient(x, y):
    return (x / y).sum()


@minimal("zero-over-zero", {"x": 0}, x=whynan.real(12))
def unit_vector(x):
    return (x / x.norm()).sum()


@minimal("zero-over-zero", {"x": 0, "m": 12}, {"m": 0.0}, x=whynan.real(12), m=whynan.mask(12))
def masked_mean(x, m):
    return (x * m).sum() / m.sum()


@minimal("sqrt-grad-at-zero", {"x": 1}, {"x": 0.0}, x=whynan.nonnegative(10))
def root(x):
    return torch.sqrt(x).sum()


@minimal("sqrt-grad-at-zero", {"a": 0, "b": 0}, a=whynan.real(3, 4), b=whynan.real(3, 4))
def distance(a, b):
    return torch.sqrt(((a - b) ** 2).sum(-1)).mean()


@minimal("masked-branch-gradient", {"p": 1}, {"p": 0.0}, p=whynan.prob(10))
def entropy(p):
    return -torch.where(p > 0, p * torch.log(p), torch.zeros_like(p)).sum()


@minimal("inverse-trig-grad-at-edge", {"c": 1}, c=whynan.real(9, low=-1, high=1))
def angle(c):
    return torch.acos(c).mean()


@minimal("log-of-zero", {"q": 4}, q=whynan.simplex(4, 4))
def cross_entropy_of_probabilities(q):
    return -torch.log(q).mean()


@minimal("cast-overflow", {"x": 1}, x=whynan.real(20, low=-1e6, high=1e6))
def half(x):
    return x.half().float().mean()


@minimal("all-masked-softmax", {"x": 0, "m": 4}, {"m": 0.0}, x=whynan.real(3, 4), m=whynan.mask(3, 4))
def attention(x, m):
    return F.softmax(x.masked_fill(~m, -float("inf")), dim=-1).square().sum()


FOUND: dict[str, Finding] = {}


def found_by(case: Expected) -> Finding:
    """The finding, checked for once."""
    name = case.loss.__name__
    if name not in FOUND:
        FOUND[name] = _found_by(case)
    return FOUND[name]


def _found_by(case: Expected) -> Finding:
    report = whynan.check(case.loss, **case.domains)
    return next(f for f in report.findings if f.kind == "non-finite" and f.cause == case.cause)


@pytest.mark.parametrize("case", CASES, ids=[c.loss.__name__ for c in CASES])
def test_the_witness_is_as_plain_as_can_be(case: Expected) -> None:
    inputs = found_by(case).witness.inputs
    for name, most in case.apart.items():
        domain = case.domains[name]
        x, plain = inputs[name].astype(np.float64), sample.plain(domain).astype(np.float64)
        away = x != plain
        assert int(away.sum()) <= most, f"{name} = {x}"
        if name in case.values:
            assert set(x[away].tolist()) <= {case.values[name]}, f"{name} = {x}"


@pytest.mark.parametrize("case", CASES, ids=[c.loss.__name__ for c in CASES])
def test_the_witness_lies_in_its_domain_and_fails(case: Expected) -> None:
    witness = found_by(case).witness
    for name, domain in case.domains.items():
        assert sample.contains(domain, witness.inputs[name])
    again = witness.replay()
    assert not all(np.isfinite(v).all() for v in (again.loss, *again.gradients.values()))


@pytest.mark.parametrize("case", CASES, ids=[c.loss.__name__ for c in CASES])
def test_numbers_are_short(case: Expected) -> None:
    for name, x in found_by(case).witness.inputs.items():
        if case.domains[name].kind not in ("simplex", "unit"):
            assert all(len(f"{v:.9g}") <= 8 for v in x.astype(np.float64).reshape(-1)), f"{name} = {x}"
