"""Changed programs against the original: wrong values and wrong gradients are seen, by a reference in real arithmetic."""

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import whynan  # noqa: E402
from whynan.analysis.compare import Difference, Original, _snapped, _without_subnormals, difference, original  # noqa: E402
from whynan.analysis.reference import Referee  # noqa: E402
from whynan.frontends import load  # noqa: E402

Loss = Callable[..., Any]
DOMAIN = whynan.real(3, low=-200.0, high=200.0)
DOMAIN64 = whynan.real(3, low=-2000.0, high=2000.0, dtype="float64")


def program(loss: Loss) -> Any:
    return load(loss, "loss", "torch", 0)


def before(loss: Loss, domain: Any, witness: np.ndarray) -> Original:
    made = program(loss)
    run = lambda inputs: made.run(inputs, ("x",), "eager")  # noqa: E731
    trace = made.capture({"x": witness}, ("x",), "eager")
    return original(run, trace, {"x": domain}, [{"x": witness}], domain.format.eps, 0)


def compared(loss: Loss, changed: Loss, domain: Any = DOMAIN, at: float = 150.0) -> Difference:
    witness = np.full(3, at, domain.dtype)
    made = program(changed)
    return difference(before(loss, domain, witness), lambda inputs: made.run(inputs, ("x",), "eager"))


def naive(x: Any) -> Any:
    return torch.log(1 + torch.exp(x)).mean()


def test_the_stable_form_is_the_same_where_the_original_fails_in_float64_too() -> None:
    found = compared(naive, lambda x: torch.nn.functional.softplus(x).mean(), DOMAIN64, 1500.0)
    assert found.failing is None and not found.changed and not found.away and not found.bent
    assert found.mended > 5 and found.real >= found.mended  # log(1 + exp(1500)) is inf in float64


def test_another_value_is_seen_where_the_original_fails() -> None:
    found = compared(naive, lambda x: torch.nn.functional.softplus(x.clamp(max=88.722)).mean())
    assert found.away and not found.changed
    assert "x" in found.dead + found.lost  # the true gradient is 1/3 there


def test_a_changed_gradient_is_seen_though_the_value_is_the_same() -> None:
    def half(x: Any) -> Any:
        y = torch.nn.functional.softplus(x).mean()
        return 0.5 * y + 0.5 * y.detach()

    found = compared(naive, half)
    assert not found.changed and {name for _, name in found.bent} == {"x"}


def test_the_choice_at_a_kink_is_no_change() -> None:
    found = compared(lambda x: (torch.exp(x) - torch.exp(x) + x.abs()).mean(), lambda x: torch.maximum(x, -x).mean())
    assert not found.bent


def test_real_arithmetic_has_a_budget() -> None:
    made = program(naive)
    inputs = {"x": np.float32([100.0, 0.0, 1.0])}
    trace, run = made.capture(inputs, ("x",), "eager"), made.run(inputs, ("x",), "eager")
    assert Referee(trace.graph, 1e-7).at(inputs, run).real
    assert not Referee(trace.graph, 1e-7, left=3).at(inputs, run).real
    assert Referee(trace.graph, 1e-7).at(inputs, run).loss == pytest.approx((100 + np.log(2) + np.log(1 + np.e)) / 3)


def test_a_far_value_counts_where_the_true_one_is_steady_only() -> None:
    steady = compared(naive, lambda x: torch.nn.functional.softplus(x.clamp(max=88.722)).mean())
    assert steady.missed  # the true value at 150 is 150, and moves as little as x
    domain = whynan.prob(3)
    floor = float(np.finfo(np.float32).tiny)
    at_edge = compared(lambda x: -torch.log(x).sum(), lambda x: -torch.log(x.clamp(min=floor)).sum(), domain, 1e-42)
    assert at_edge.away and not at_edge.missed  # the logarithm of 1e-42 moves by 70 when x does by 1e-14


def test_elements_snap_to_a_witness_only_from_within_what_the_format_resolves() -> None:
    domain, known = whynan.real(4, low=-10.0, high=10.0), np.float32([0.0, 2.0])
    step = 2.0**-46  # eps squared of float32: 2.8e-13 in this domain
    value = np.float32([1e-13, 1e-12, 2.0000002, -1e-20])
    moved = _snapped(domain, value, known, step)
    assert moved.tolist() == [0.0, value[1], value[2], 0.0]
    fixed = whynan.integers(0, 3, 4)
    assert _snapped(fixed, np.int64([0, 1, 2, 3]), np.int64([0]), step).tolist() == [0, 1, 2, 3]


def test_subnormal_inputs_become_zero() -> None:
    moved = _without_subnormals(whynan.real(3), np.float32([1e-40, 1.2e-38, -1e-45]))
    assert moved.tolist() == [0.0, float(np.float32(1.2e-38)), 0.0]
