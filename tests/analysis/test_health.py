"""Warnings about losses that stay finite: steep gradients, dead clamps, detached values, wrong hand-written derivatives."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch

import whynan
from whynan.analysis.finding import Finding


def warned(loss: Callable[..., Any], kind: str, **domains: Any) -> list[Finding]:
    """The warnings of one kind."""
    found = [f for f in whynan.check(loss, **domains).findings if f.kind == kind]
    assert all(f.severity == "warning" and f.witness is not None and f.modes == ("eager",) for f in found)
    return found


# ---------------------------------------------------------------- exploding gradients


def test_a_finite_but_steep_gradient_is_reported_at_the_operation_that_makes_it() -> None:
    def loss(p):
        return -torch.log(p + 1e-12).mean()

    (found,) = warned(loss, "exploding-gradient", p=whynan.prob(4))
    assert (found.cause, found.phase) == ("steep-gradient", "backward")
    assert found.site is not None and found.site.text == "torch.log(p + 1e-12)"
    slope = found.witness.gradients["p"]
    assert np.isfinite(slope).all() and np.abs(slope).max() > 1e6
    assert 1e6 < found.details["largest_found"] <= found.details["largest_proven"]
    assert f"{found.details['largest_proven']:.3g} (proven)" in found.message


def test_where_no_bound_is_proven_the_report_says_so() -> None:
    def loss(x, y):
        return torch.sqrt(y).sum() + torch.log(x + 1e-30).sum()

    report = whynan.check(loss, x=whynan.nonnegative(3, high=1), y=whynan.nonnegative(3, high=1))
    steep = [f for f in report.findings if f.kind == "exploding-gradient"]
    assert steep and all(f.details["largest_proven"] is None and "no bound is proven" in f.message for f in steep)


def test_a_gentle_gradient_is_not_reported() -> None:
    assert warned(lambda p: -torch.log(p + 1e-3).mean(), "exploding-gradient", p=whynan.prob(4)) == []


def test_a_steep_gradient_where_it_is_infinite_anyway_is_no_news() -> None:
    def loss(x):
        return torch.sqrt(x).sum()

    report = whynan.check(loss, x=whynan.nonnegative(3))
    assert [f.kind for f in report.findings] == ["non-finite"]


# ---------------------------------------------------------------- dead gradients


def clamped(p, t):
    q = p.clamp(0.1, 0.9)
    return -(t * torch.log(q) + (1 - t) * torch.log(1 - q)).mean()


def test_a_clamp_that_stops_the_gradient_of_wrong_predictions_is_reported() -> None:
    (found,) = warned(clamped, "dead-gradient", p=whynan.prob(4), t=whynan.binary(4))
    assert (found.cause, found.op) == ("clamp-kills-gradient", "clamp")
    assert found.site is not None and found.site.text == "p.clamp(0.1, 0.9)"
    assert not found.witness.gradients["p"].any()
    cut = found.witness.inputs["p"]
    assert ((cut < 0.1) | (cut > 0.9)).all()


def test_the_interval_that_a_clamp_kills_is_told() -> None:
    (found,) = warned(clamped, "dead-gradient", p=whynan.prob(4), t=whynan.binary(4))
    ((element, ((low, high),)),) = found.details["regions"].items()
    assert element == "p[0]"
    assert (low, high) == (0, pytest.approx(0.1, rel=1e-3)) or (low, high) == (pytest.approx(0.9, rel=1e-3), 1)


def test_a_clamp_behind_a_sigmoid_is_reported_with_an_input_that_the_loss_wants_elsewhere() -> None:
    def loss(x, t):
        p = torch.sigmoid(x).clamp(1e-6, 1 - 1e-6)
        return -(t * torch.log(p) + (1 - t) * torch.log(1 - p)).mean()

    (found,) = warned(loss, "dead-gradient", x=whynan.logit(4), t=whynan.binary(4))
    assert found.cause == "clamp-kills-gradient" and found.op == "clamp"
    x, t = found.witness.inputs["x"], found.witness.inputs["t"]
    assert ((x > 0) != (t > 0)).all()


def test_the_share_of_the_domain_that_is_cut_off_is_told() -> None:
    (found,) = warned(clamped, "dead-gradient", p=whynan.prob(4), t=whynan.binary(4))
    share = next(int(word.rstrip("%")) for word in found.message.split() if word.endswith("%"))
    assert 12 <= share <= 28


@pytest.mark.parametrize(
    "loss",
    [
        lambda x: torch.relu(x).sum(),
        lambda x: x.clamp(min=0).sum(),
        lambda x: torch.maximum(x, torch.zeros(())).sum(),
        lambda x: torch.clamp(1 - x, min=0).mean(),
    ],
    ids=["relu", "clamp at 0", "maximum with 0", "hinge"],
)
def test_a_hinge_is_no_dead_clamp(loss: Callable[..., Any]) -> None:
    assert warned(loss, "dead-gradient", x=whynan.real(4, low=-5, high=5)) == []


def test_a_clamp_that_cannot_be_left_is_not_reported() -> None:
    assert warned(clamped, "dead-gradient", p=whynan.real(4, low=0.2, high=0.8), t=whynan.binary(4)) == []


def test_a_clamp_beside_another_way_to_the_loss_kills_nothing() -> None:
    assert warned(lambda x: (x.clamp(-1, 1) + x).sum(), "dead-gradient", x=whynan.real(4, low=-5, high=5)) == []


def test_a_clamp_of_something_constant_kills_nothing() -> None:
    assert warned(lambda x, w: (x * w.clamp(0.1, 0.9)).sum(), "dead-gradient", x=whynan.real(4, low=-5, high=5), w=whynan.binary(4)) == []


# ---------------------------------------------------------------- detached values


def test_a_placeholder_that_hides_a_failure_is_reported() -> None:
    def loss(x):
        value = torch.log(x).mean()
        return value if torch.isfinite(value) else torch.zeros((), requires_grad=True)

    (found,) = warned(loss, "contract", x=whynan.nonnegative(3, high=1))
    assert found.cause == "gradient-detached" and "x" not in found.witness.gradients


def test_an_input_that_never_has_a_gradient_is_not_reported() -> None:
    assert warned(lambda x, y: (x * y.detach()).mean(), "contract", x=whynan.real(3, low=-1, high=1), y=whynan.real(3)) == []


# ---------------------------------------------------------------- hand-written derivatives


def square_with(slope: Callable[[torch.Tensor], torch.Tensor]) -> Callable[[torch.Tensor], torch.Tensor]:
    """x^2 with a derivative of its own."""

    class Square(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x * x

        @staticmethod
        def backward(ctx, g):
            (x,) = ctx.saved_tensors
            return g * slope(x)

    return lambda x: Square.apply(x).sum()


def test_a_wrong_hand_written_derivative_is_reported_with_both_slopes() -> None:
    (found,) = warned(square_with(lambda x: x), "contract", x=whynan.real(3, low=-3, high=3))
    assert found.cause == "custom-gradient-wrong" and found.phase == "backward"
    assert found.site is not None and found.site.function.endswith("Square.forward")
    words = [w.strip(",.") for w in found.message.split()]
    given, true = (float(w) for w in words if w.replace(".", "").replace("-", "").isdigit())
    assert true == pytest.approx(2 * given, rel=1e-3)


def test_a_right_hand_written_derivative_is_not() -> None:
    assert warned(square_with(lambda x: 2 * x), "contract", x=whynan.real(3, low=-3, high=3)) == []


def test_a_kink_is_no_wrong_derivative() -> None:
    class Magnitude(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            ctx.save_for_backward(x)
            return x.abs()

        @staticmethod
        def backward(ctx, g):
            return g * ctx.saved_tensors[0].sign()

    assert warned(lambda x: Magnitude.apply(x).sum(), "contract", x=whynan.real(3, low=-3, high=3)) == []


class StraightThrough(torch.autograd.Function):
    """Steps with the slope of the identity."""

    @staticmethod
    def forward(ctx, x):
        return x.round()

    @staticmethod
    def backward(ctx, g):
        return g


class Reversed(torch.autograd.Function):
    """The identity with the opposite slope."""

    @staticmethod
    def forward(ctx, x):
        return x.view_as(x)

    @staticmethod
    def backward(ctx, g):
        return -g


class Clipped(torch.autograd.Function):
    """The identity with a bounded slope."""

    @staticmethod
    def forward(ctx, x):
        return x.clone()

    @staticmethod
    def backward(ctx, g):
        return g.clamp(-0.1, 0.1)


@pytest.mark.parametrize("step", [StraightThrough, Reversed, Clipped])
def test_a_gradient_that_is_another_on_purpose_is_not_reported(step: Any) -> None:
    assert warned(lambda x: step.apply(x).pow(2).sum(), "contract", x=whynan.real(3, low=-3, high=3)) == []


def test_a_detached_factor_is_no_wrong_derivative() -> None:
    assert warned(lambda x: (x * x.detach()).sum(), "contract", x=whynan.real(3, low=-3, high=3)) == []


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_hand_written_derivatives_of_jax_are_compared_too(factor: float) -> None:
    jax = pytest.importorskip("jax")

    @jax.custom_vjp
    def square(x):
        return x * x

    square.defvjp(lambda x: (x * x, x), lambda x, g: (factor * g * x,))
    report = whynan.check(lambda x: square(x).sum(), framework="jax", modes="all", x=whynan.real(3, low=-3, high=3))
    assert [(f.cause, f.modes) for f in report.findings] == ([] if factor == 2 else [("custom-gradient-wrong", ("jit", "eager"))])


@pytest.mark.slow
@pytest.mark.parametrize("factor", [1.0, 2.0])
def test_hand_written_derivatives_of_tensorflow_are_compared_too(factor: float) -> None:
    tf = pytest.importorskip("tensorflow")

    @tf.custom_gradient
    def square(x):
        return x * x, lambda g: tf.cast(factor, x.dtype) * g * x

    report = whynan.check(lambda x: tf.reduce_sum(square(x)), framework="tensorflow", x=whynan.real(3, low=-3, high=3))
    assert [(f.cause, f.modes) for f in report.findings] == ([] if factor == 2 else [("custom-gradient-wrong", ("eager", "function"))])
