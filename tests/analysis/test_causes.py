"""Each cause by a real PyTorch loss and the input that shows it: cause, op, phase and the exact expression."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from whynan.analysis.blame import Blame, blame
from whynan.frontends.torch import load
from whynan.ir.graph import BACKWARD, FORWARD


@dataclass(frozen=True)
class Case:
    """A loss, an input on which it fails, and what is to be said of it."""

    loss: Callable[..., Any]
    inputs: Mapping[str, Any]
    cause: str
    op: str
    phase: str
    text: str
    related: tuple[str, ...] = ()


CASES: list[Case] = []


def fails(cause: str, op: str, phase: str, text: str, *, related: tuple[str, ...] = (), **inputs: Any) -> Callable[..., Any]:
    """Register a loss with the input that makes it fail and the expected blame."""

    def register(loss: Callable[..., Any]) -> Callable[..., Any]:
        CASES.append(Case(loss, inputs, cause, op, phase, text, related))
        return loss

    return register


def blamed(loss: Callable[..., Any], inputs: Mapping[str, Any]) -> Blame | None:
    """What is said of a loss on one input, differentiated by everything that is a float."""
    arrays = {n: np.asarray(x, None if hasattr(x, "dtype") else np.float32) for n, x in inputs.items()}
    wrt = tuple(n for n, a in arrays.items() if a.dtype.kind not in "iub")
    return blame(load(loss, "loss").capture(arrays, wrt, "eager"))


NAN, INF = float("nan"), float("inf")


# ---------------------------------------------------------------- forward


@fails("log-of-zero", "log", FORWARD, "torch.log(p)", p=[0.5, 0.0])
def log_of_zero(p):
    return -torch.log(p).mean()


@fails("log-of-zero", "log", FORWARD, "F.softmax(x, dim=-1).log()", x=[[0.0, 200.0]])
def log_of_an_underflown_softmax(x):
    return -F.softmax(x, dim=-1).log().mean()


@fails("log-of-zero", "log1p", FORWARD, "torch.log1p(-p)", p=[0.0, 1.0])
def log1p_at_minus_one(p):
    return -torch.log1p(-p).sum()


@fails("log-of-negative", "log", FORWARD, "x.log()", x=[1.0, -2.0])
def log_of_negative(x):
    return x.log().sum()


@fails("div-by-zero", "div", FORWARD, "x / y", x=[1.0, 2.0], y=[0.0, 1.0])
def div_by_zero(x, y):
    return (x / y).sum()


@fails("div-by-zero", "reciprocal", FORWARD, "1.0 / y", y=[0.0, 1.0])
def reciprocal_of_zero(y):
    return (1.0 / y).sum()


@fails("zero-over-zero", "div", FORWARD, "x / x.sum()", x=[0.0, 0.0])
def zero_over_zero(x):
    return (x / x.sum()).sum()


@fails("sqrt-of-negative", "sqrt", FORWARD, "torch.sqrt(x)", x=[4.0, -1.0])
def sqrt_of_negative(x):
    return torch.sqrt(x).sum()


@fails("pow-domain", "pow", FORWARD, "x**0.7", x=[1.0, -1.0])
def root_of_a_negative_number(x):
    return (x**0.7).sum()


@fails("inverse-trig-domain", "acos", FORWARD, "torch.acos(x)", x=[0.5, 1.5])
def acos_far_outside(x):
    return torch.acos(x).sum()


@fails("exp-overflow", "exp", FORWARD, "torch.exp(x)", x=[0.0, 100.0])
def exp_overflow(x):
    return torch.log(torch.exp(x).sum())


@fails("square-overflow", "square", FORWARD, "x.square()", x=[1.0, 1e20])
def square_overflow(x):
    return x.square().mean()


@fails("square-overflow", "square", FORWARD, "(x - y) ** 2", x=[1.0, 1e20], y=[0.0, 0.0])
def square_overflow_by_power(x, y):
    return ((x - y) ** 2).mean()


@fails("product-overflow", "mul", FORWARD, "x * y", x=[1e20], y=[1e20])
def product_overflow(x, y):
    return (x * y).mean()


@fails("sum-overflow", "sum", FORWARD, "x.sum()", x=[3e38, 3e38])
def sum_overflow(x):
    return x.sum() * 1e-30


@fails("cast-overflow", "cast", FORWARD, "x.half()", x=[1.0, 1e6])
def cast_overflow(x):
    return x.half().float().mean()


@fails("exp-overflow", "exp", FORWARD, "torch.exp(x)", x=[100.0])
def inf_minus_inf_is_blamed_on_the_overflow(x):
    a, b = torch.exp(x), torch.exp(x)
    return (a - b).sum()


@fails("inf-minus-inf", "sub", FORWARD, "a - b", x=[1.0], y=[2.0], m=np.array([True]))
def two_deliberate_infinities(x, y, m):
    a, b = x.masked_fill(m, INF), y.masked_fill(m, INF)
    return (a - b).sum()


@fails("zero-times-inf", "mul", FORWARD, "x * y.masked_fill(m, INF)", x=[0.0], y=[2.0], m=np.array([True]))
def a_deliberate_infinity_times_zero(x, y, m):
    return (x * y.masked_fill(m, INF)).sum()


@fails("inf-over-inf", "div", FORWARD, "a / b", x=[0.0], y=[2.0], m=np.array([True]))
def a_quotient_of_deliberate_infinities(x, y, m):
    a, b = x.masked_fill(m, INF), y.masked_fill(m, INF)
    return (a / b).sum()


@fails("nonfinite-input", "input", FORWARD, "", x=[1.0, NAN])
def nonfinite_input(x):
    return x.exp().sum()


@fails("empty-reduction", "mean", FORWARD, "x[:0].mean()", x=[1.0, 2.0])
def mean_of_nothing(x):
    return x[:0].mean()


@fails("zero-over-zero", "div", FORWARD, "(x * m).sum() / m.sum()", x=[1.0, 2.0], m=np.array([False, False]))
def mean_over_an_empty_mask(x, m):
    return (x * m).sum() / m.sum()


@fails("all-masked-softmax", "softmax", FORWARD, "F.softmax(s, dim=-1)", x=[[1.0, 2.0]], m=np.array([[False, False]]))
def softmax_of_a_row_all_masked(x, m):
    s = x.masked_fill(~m, -INF)
    return F.softmax(s, dim=-1).sum()


@fails("all-masked-softmax", "sub", FORWARD, "s - s.amax(-1, keepdim=True)", x=[[1.0, 2.0]], m=np.array([[False, False]]))
def handwritten_softmax_of_a_row_all_masked(x, m):
    s = x.masked_fill(~m, -INF)
    e = torch.exp(s - s.amax(-1, keepdim=True))
    return (e / e.sum(-1, keepdim=True)).sum()


@fails("zero-variance", "div", FORWARD, "(x - x.mean()) / x.std()", x=[2.0, 2.0, 2.0])
def standardised_equal_values(x):
    return ((x - x.mean()) / x.std()).square().sum()


@fails("underflow-then-divide", "div", FORWARD, "x / y", x=[1.0], y=[1e-40])
def quotient_by_a_subnormal(x, y):
    return (x / y).sum()


@fails("rounding-out-of-domain", "acos", FORWARD, "torch.acos(c)", x=[[-5.8, 6.5, 0.7]])
def cosine_just_above_one(x):
    u = x / x.norm(dim=-1, keepdim=True)
    c = (u * u).sum(-1)
    return torch.acos(c).sum()


@fails("rounding-out-of-domain", "sqrt", FORWARD, "torch.sqrt((x * x).mean() - x.mean() ** 2)", x=[5.8, 5.8, 5.8])
def variance_as_a_difference(x):
    return torch.sqrt((x * x).mean() - x.mean() ** 2)


# ---------------------------------------------------------------- epsilons that round away


@fails("epsilon-rounds-away", "log", FORWARD, "torch.log(1 - p + 1e-50)", related=("log-of-zero",), p=[0.5, 1.0])
def an_epsilon_below_the_smallest_number(p):
    return -torch.log(1 - p + 1e-50).mean()


@fails("epsilon-rounds-away", "log", FORWARD, "torch.log(1 - q)", related=("log-of-zero",), p=[0.5, 1.0])
def a_clamp_whose_upper_end_rounds_to_one(p):
    q = p.clamp(1e-8, 1 - 1e-8)
    return -torch.log(1 - q).mean()


@fails("epsilon-rounds-away", "log", FORWARD, "torch.log(1 - (p - 1e-9))", related=("log-of-zero",), p=[0.5, 1.0])
def a_subtraction_that_changes_nothing(p):
    return -torch.log(1 - (p - 1e-9)).mean()


@fails("epsilon-rounds-away", "log", FORWARD, "torch.log(p.half() + 1e-8)", related=("log-of-zero",), p=[0.5, 0.0])
def an_epsilon_lost_by_a_cast(p):
    return -torch.log(p.half() + 1e-8).float().mean()


@fails("epsilon-rounds-away", "sqrt", BACKWARD, "torch.sqrt(x + 1e-50)", related=("sqrt-grad-at-zero",), x=[1.0, 0.0])
def an_epsilon_that_does_not_keep_a_root_from_zero(x):
    return torch.sqrt(x + 1e-50).sum()


@fails("epsilon-rounds-away", "div", FORWARD, "x / (y + 1e-50)", related=("div-by-zero",), x=[1.0, 1.0], y=[1.0, 0.0])
def an_epsilon_that_does_not_keep_a_divisor_from_zero(x, y):
    return (x / (y + 1e-50)).sum()


@fails("zero-times-inf", "mul", FORWARD, "logp.exp() * logp", x=[[1.0, 2.0, 0.0]], m=np.array([[True, False, False]]))
def entropy_of_masked_logits(x, m):
    logp = F.log_softmax(x.masked_fill(m, -INF), dim=-1)
    return (logp.exp() * logp).sum()


@fails("div-by-zero", "pow", FORWARD, "x**-0.5", related=("pow-domain",), x=[1.0, 0.0])
def a_negative_power_of_zero(x):
    return (x**-0.5).sum()


@fails(
    "rounding-out-of-domain", "log", FORWARD, "torch.log(rest)", related=("log-of-negative", "log-of-zero"), x=[0.0, 0.5, -2.5, 1.5]
)
def what_is_left_of_probabilities(x):
    rest = 1 - x.softmax(-1).cumsum(-1)[-1]
    return -torch.log(rest)


# ---------------------------------------------------------------- backward


@fails("log-of-zero", "log", BACKWARD, "torch.log(p)", related=("zero-over-zero",), p=[0.5, 0.0])
def geometric_mean(p):
    return torch.exp(torch.log(p).mean())


@fails("sqrt-grad-at-zero", "sqrt", BACKWARD, "torch.sqrt(x)", x=[1.0, 0.0])
def sqrt_grad_at_zero(x):
    return torch.sqrt(x).sum()


@fails("sqrt-grad-at-zero", "sqrt", BACKWARD, "torch.sqrt(d)", x=[1.0, 2.0], y=[1.0, 2.0])
def distance_of_equal_points(x, y):
    d = (x - y).square().sum()
    return torch.sqrt(d)


@fails("pow-grad-at-zero", "pow", BACKWARD, "x**0.7", x=[1.0, 0.0])
def pow_grad_at_zero(x):
    return (x**0.7).sum()


@fails("pow-grad-at-zero", "pow", BACKWARD, "x**0.5", x=[1.0, 0.0])
def a_root_written_as_a_power(x):
    return (x**0.5).sum()


@fails("inverse-trig-grad-at-edge", "acos", BACKWARD, "torch.acos(x)", x=[0.0, 1.0])
def acos_grad_at_edge(x):
    return torch.acos(x).sum()


@fails("inverse-trig-grad-at-edge", "asin", BACKWARD, "torch.asin(x)", x=[0.0, -1.0])
def asin_grad_at_edge(x):
    return torch.asin(x).sum()


@fails("sqrt-grad-at-zero", "sqrt", BACKWARD, "x.var().sqrt()", related=("zero-variance",), x=[2.0, 2.0, 2.0])
def gradient_of_a_standard_deviation(x):
    return x.var().sqrt()


@fails("norm-grad-at-zero", "hypot", BACKWARD, "torch.hypot(x, y)", x=[0.0, 3.0], y=[0.0, 4.0])
def distance_by_hypot(x, y):
    return torch.hypot(x, y).sum()


@fails("masked-branch-gradient", "sqrt", BACKWARD, "torch.sqrt(x)", related=("sqrt-grad-at-zero",), x=[1.0, 0.0])
def the_where_trap_of_a_root(x):
    return torch.where(x > 0, torch.sqrt(x), torch.zeros_like(x)).sum()


@fails("masked-branch-gradient", "log", BACKWARD, "torch.log(p)", related=("log-of-zero",), p=[0.5, 0.0])
def the_where_trap_of_a_logarithm(p):
    return torch.where(p > 0, torch.log(p), torch.zeros_like(p)).sum()


@fails("masked-branch-gradient", "div", BACKWARD, "x / y", x=[1.0, 0.0], y=[1.0, 0.0])
def the_where_trap_of_a_quotient(x, y):
    return torch.where(y != 0, x / y, torch.zeros_like(x)).sum()


@pytest.mark.parametrize("case", CASES, ids=[c.loss.__name__ for c in CASES])
def test_the_cause_is_named(case: Case) -> None:
    why = blamed(case.loss, case.inputs)
    assert why is not None
    assert (why.cause, why.op, why.phase, why.site.text if why.site else "") == (case.cause, case.op, case.phase, case.text)
    assert set(case.related) <= set(why.related) and why.cause not in why.related


@pytest.mark.parametrize("case", CASES, ids=[c.loss.__name__ for c in CASES])
def test_the_chain_leads_from_the_failure_to_an_output(case: Case) -> None:
    why = blamed(case.loss, case.inputs)
    assert why is not None and why.chain
    assert why.chain[0].phase == why.phase and why.chain[0].site == why.site
    assert all(any(word in step.output for word in ("NaN", "inf")) for step in why.chain)
    assert why.output == "loss" if why.phase == FORWARD else why.output in case.inputs


# ---------------------------------------------------------------- what is not blamed


@pytest.mark.parametrize(
    ("loss", "inputs"),
    [
        (lambda x, y: torch.atan2(y, x).sum(), {"x": [0.0], "y": [0.0]}),  # PyTorch gives 0 here
        (lambda x: x.norm(), {"x": [0.0, 0.0]}),
        (lambda x: x.std(), {"x": [2.0, 2.0]}),
        (lambda x: torch.where(x > 0, torch.log(x.clamp(min=1e-6)), x).sum(), {"x": [0.0, 1.0]}),
    ],
    ids=["atan2", "norm", "std", "double where"],
)
def test_what_the_framework_masks_itself_is_not_blamed(loss: Callable[..., Any], inputs: Mapping[str, Any]) -> None:
    assert blamed(loss, inputs) is None


def masked_attention(x, m):
    scores = x.masked_fill(~m, -INF)
    return torch.log(F.softmax(scores, dim=-1).sum(-1)).sum()


def test_a_deliberate_mask_of_minus_infinity_is_not_blamed() -> None:
    assert blamed(masked_attention, {"x": [[1.0, 2.0, 3.0]], "m": np.array([[True, True, False]])}) is None


def test_the_operation_that_stumbles_over_a_deliberate_mask_is_blamed_not_the_mask() -> None:
    why = blamed(masked_attention, {"x": [[1.0, 2.0, 3.0]], "m": np.array([[False, False, False]])})
    assert why is not None and (why.op, why.cause) == ("softmax", "all-masked-softmax")
    assert why.chain[0].op == "softmax"


def test_an_infinity_that_where_leaves_out_is_not_blamed_for_another_failure() -> None:
    def loss(x, y):
        hidden = torch.log(x.detach() * 0)
        return (torch.where(x > 0, x, hidden) + torch.log(y)).sum()

    why = blamed(loss, {"x": [1.0], "y": [0.0]})
    assert why is not None and why.site is not None and why.site.text == "torch.log(y)"


def test_the_earliest_of_two_failures_is_blamed() -> None:
    def loss(x, y):
        early = torch.log(x)
        return (early + 1 / y).sum()

    why = blamed(loss, {"x": [0.0], "y": [0.0]})
    assert why is not None and why.site is not None and why.site.text == "torch.log(x)"


def test_an_epsilon_that_did_its_work_is_not_accused() -> None:
    """The clamp keeps p away from 0; what fails is something else."""

    def loss(p, y):
        return (torch.log(p.clamp(min=1e-6)) / y).sum()

    why = blamed(loss, {"p": [0.5], "y": [0.0]})
    assert why is not None and why.cause == "div-by-zero" and "epsilon-rounds-away" not in why.related


def test_an_epsilon_added_far_from_zero_is_not_accused() -> None:
    """1e-8 is absorbed at 0.5 too, but the failure is the logarithm of a negative number."""

    def loss(x):
        return torch.log(x + 1e-8).sum()

    why = blamed(loss, {"x": [-1.0, 0.5]})
    assert why is not None and why.cause == "log-of-negative"


def test_a_domain_left_by_far_is_no_rounding() -> None:
    why = blamed(lambda x: torch.acos(x / 2).sum(), {"x": [2.5]})
    assert why is not None and why.cause == "inverse-trig-domain"


@pytest.mark.parametrize(("dtype", "cause"), [(np.float32, None), (np.float16, "epsilon-rounds-away")])
def test_whether_an_epsilon_is_lost_depends_on_the_format(dtype: Any, cause: str | None) -> None:
    why = blamed(lambda p: -torch.log(p + 1e-8).mean(), {"p": np.array([0.0, 0.5], dtype)})
    assert (why.cause if why else None) == cause
