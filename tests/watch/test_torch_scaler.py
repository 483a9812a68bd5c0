"""Gradient scalers and clipping: ordinary skips are no incidents, and clipping hides neither the parameter nor the norm."""

import math
from typing import Any

import pytest
import torch
from tests.watch.torch_steps import BAD_SAMPLE, batch, log_loss, net, same, state, watched
from torch import nn

from whynan.errors import NonFiniteError


def scaler(scale: float = 2.0**10, **options: Any) -> torch.amp.GradScaler:
    return torch.amp.GradScaler("cpu", init_scale=scale, **options)


def step(
    model: nn.Module, optimizer: Any, amp: Any, number: int, bad: bool = False, loss: Any = log_loss, factor: float = 1.0, clip: float = 0.0
) -> None:
    x, t = batch(number, bad)
    optimizer.zero_grad()
    amp.scale(loss(model(x), t) * factor).backward()
    if clip:
        amp.unscale_(optimizer)
        nn.utils.clip_grad_norm_(model.parameters(), clip)
    amp.step(optimizer)
    amp.update()


KINDS = {"sgd": lambda p: torch.optim.SGD(p, lr=0.1), "fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True)}


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("clip", [0.0, 0.5])
def test_an_ordinary_skip_of_the_scaler_is_no_incident(kind: str, clip: float) -> None:
    model = net()
    optimizer, amp = KINDS[kind](model.parameters()), scaler()
    with watched(model, optimizer) as watch:
        for number in range(6):
            before = state(model)[:6]
            step(model, optimizer, amp, number, factor=1e36 if number == 2 else 1.0, clip=clip)
            assert same(state(model)[:6], before) == (number == 2)
    assert watch.bad_steps == 0 and watch.step == 6 and amp.get_scale() == 2.0**9
    assert [m.outcome for m in watch.flight][2].startswith("left out") and watch.flight[1].scale == 2.0**10
    assert all(m.gradient_norm < 100 for m in watch.flight if m.step != 2), "norms are those of the unscaled gradients"


@pytest.mark.parametrize("kind", KINDS)
def test_a_nan_loss_is_an_incident_at_once(kind: str) -> None:
    model = net()
    optimizer, amp = KINDS[kind](model.parameters()), scaler()
    with watched(model, optimizer, policy="skip") as watch:
        step(model, optimizer, amp, 0)
        before = state(model, optimizer)
        step(model, optimizer, amp, 1, bad=True)
        assert same(state(model, optimizer), before)
        step(model, optimizer, amp, 2)
    (incident,) = watch.incidents
    assert incident.step == 1 and incident.failed == "loss" and incident.suspects.samples == (BAD_SAMPLE,)
    assert "log" in incident.finding.site.text and watch.step == 3


def steep(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Finite, with a gradient that is infinite whatever the scale."""
    return (p.squeeze(-1) * 0 * t).abs().sqrt().mean()


@pytest.mark.parametrize("kind", KINDS)
def test_a_collapsing_scale_is_an_incident(kind: str) -> None:
    model = net()
    optimizer, amp = KINDS[kind](model.parameters()), scaler(2.0**16)
    before = state(model, optimizer)

    def run() -> None:
        for number in range(50):
            step(model, optimizer, amp, number, loss=steep)

    with watched(model, optimizer, loss=steep) as watch, pytest.raises(NonFiniteError) as caught:
        run()
    incident = caught.value.incident
    assert 5 <= incident.step <= 16 and incident.failed == "scale" and "sqrt" in incident.finding.site.text
    assert same(state(model, optimizer)[:6], before[:6]) and watch.bad_steps == 1


def test_retry_with_a_scaler_is_the_unscaled_step_on_the_healthy_samples() -> None:
    for kind in KINDS:
        models = [net(), net()]
        optimizers = [KINDS[kind](m.parameters()) for m in models]
        x, t = batch(0)
        x[BAD_SAMPLE] = torch.inf
        healthy = [i for i in range(6) if i != BAD_SAMPLE]
        amp = scaler()
        with watched(models[0], optimizers[0], policy="retry") as watch:
            amp.scale(log_loss(models[0](x), t)).backward()
            amp.step(optimizers[0])
            amp.update()
        log_loss(models[1](x[healthy]), t[healthy]).backward()
        optimizers[1].step()
        assert watch.bad_steps == 1
        for a, b in zip(state(models[0]), state(models[1]), strict=True):
            torch.testing.assert_close(a, b, rtol=1e-5, atol=1e-6)


def test_float16_under_autocast_overflows_and_is_explained_in_it() -> None:
    torch.manual_seed(0)
    model = nn.Linear(3, 1)
    optimizer, amp = torch.optim.SGD(model.parameters(), lr=0.1), scaler(2.0**4)

    def loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ((p.squeeze(-1) * 300) ** 2 * t).float().mean()

    with watched(model, optimizer, loss=loss, policy="skip") as watch:
        x, t = batch(0)
        x[BAD_SAMPLE] = 50
        with torch.autocast("cpu", dtype=torch.float16):
            value = loss(model(x), t.half())
        amp.scale(value).backward()
        amp.step(optimizer)
        amp.update()
    (incident,) = watch.incidents
    assert incident.kind == "overflow" and incident.sample == BAD_SAMPLE and "300" in incident.finding.site.text


# ---------------------------------------------------------------- clipping


def test_clipping_spreads_one_nan_and_the_replay_names_the_real_one() -> None:
    torch.manual_seed(0)
    model = nn.ModuleDict({"a": nn.Linear(3, 1), "b": nn.Linear(3, 1)})

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b = nn.Linear(3, 1), nn.Linear(3, 1)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.a(x) + (self.b(x) * 0).abs().sqrt()

    model = Two()
    optimizer = torch.optim.Adam(model.parameters())

    def loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (p.squeeze(-1) - t).square().mean()

    with watched(model, optimizer, loss=loss, policy="skip") as watch:
        before = state(model, optimizer)
        x, t = batch(0)
        loss(model(x), t).backward()
        nn.utils.clip_grad_norm_(model.parameters(), 1.0)
        assert all(p.grad.isnan().all() for p in model.parameters())
        optimizer.step()
        assert same(state(model, optimizer), before)
    assert set(watch.incidents[0].parameters) == {"b.weight", "b.bias"} and math.isnan(watch.flight[0].clipped_from)


def test_huge_gradients_that_clipping_turns_into_zeros_are_in_the_flight_record() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer) as watch:
        for factor in (1.0, 1e25):
            x, t = batch(0)
            optimizer.zero_grad()
            (log_loss(model(x), t) * factor).backward()
            nn.utils.clip_grad_norm_(model.parameters(), 1.0)
            optimizer.step()
        x, t = batch(1)
        optimizer.zero_grad()
        log_loss(model(x), t).backward()
        optimizer.step()
    first, second, third = watch.flight
    assert first.clipped_from > first.gradient_norm and second.clipped_from == math.inf and second.gradient_norm == 0
    assert math.isnan(third.clipped_from), "measured anew each step"


def test_clipping_of_another_models_gradients_is_not_noted() -> None:
    model, other = net(), net(1)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer) as watch:
        x, t = batch(0)
        log_loss(model(x), t).backward()
        log_loss(other(x), t).backward()
        nn.utils.clip_grad_norm_((p for p in other.parameters()), 1.0)
        optimizer.step()
    assert math.isnan(watch.flight[0].clipped_from)
