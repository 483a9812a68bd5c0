"""Flags that stay on the device: the update is held back there and the host hears of it later. On the CPU fused Adam does so, too."""

from typing import Any

import pytest
import torch
from tests.watch.torch_steps import BAD_SAMPLE, net, same, state, train_step, watched

from whynan.errors import NonFiniteError
from whynan.watching.torch import held, later, run


@pytest.fixture(autouse=True)
def flags_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(run, "FLAGS_STAY_ANYWHERE", True)


@pytest.fixture(params=["at once", "as late as may be"])
def arrival(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    if request.param != "at once":
        monkeypatch.setattr(later.Waiting, "here", lambda self: False)
    return str(request.param)


def fused(model: torch.nn.Module) -> Any:
    return torch.optim.AdamW(model.parameters(), lr=0.1, fused=True)


def test_healthy_steps_are_as_without_the_watch(arrival: str) -> None:
    models = [net(), net()]
    optimizers = [fused(m) for m in models]
    with watched(models[0], optimizers[0]) as watch:
        for number in range(6):
            train_step(models[0], optimizers[0], number)
    for number in range(6):
        train_step(models[1], optimizers[1], number)
    assert same(state(models[0], optimizers[0]), state(models[1], optimizers[1]))
    assert watch.step == 6 and [m.step for m in watch.flight] == list(range(6)) and watch.flight[0].gradient_norm > 0
    assert not hasattr(optimizers[0], "found_inf")


def test_how_far_updates_have_moved_the_parameters_is_sampled(arrival: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(held, "SAMPLED", 3)
    model = net()
    optimizer = fused(model)
    before: list[torch.Tensor] = []
    expected = {}
    with watched(model, optimizer, policy="skip") as watch:
        for number in range(12):
            now = torch.cat([p.detach().flatten() for p in model.parameters()])
            if number % 3 == 1:
                expected[number] = ((now - before[-1]).norm() / before[-1].norm()).item()
            before.append(now)
            train_step(model, optimizer, number, bad=number == 9)
    ratios = {m.step: m.update_ratio for m in watch.flight if m.update_ratio == m.update_ratio}
    assert ratios == pytest.approx({k: v for k, v in expected.items() if k < 10}, rel=1e-4), "nothing moved in the bad step"


def test_the_update_of_a_bad_step_is_held_back_until_it_is_explained(arrival: str) -> None:
    model = net()
    optimizer = fused(model)
    with watched(model, optimizer, policy="skip") as watch:
        for number in range(3):
            train_step(model, optimizer, number)
        before = state(model, optimizer)
        train_step(model, optimizer, 3, bad=True)
        parameters = list(model.parameters())
        assert same([p.detach() for p in parameters], before[: len(parameters)]), "the device has passed over it"
        told = 0
        while not watch.incidents:
            told += 1
            train_step(model, optimizer, 3 + told)
        assert told <= 2 and same(state(model, optimizer), before), "what came after it was dropped with it"
        train_step(model, optimizer, 9)
        assert not same(state(model, optimizer), before)
    (incident,) = watch.incidents
    assert incident.step == 3 and incident.suspects.samples == (BAD_SAMPLE,) and "t.log()" in incident.finding.site.text


def test_the_end_of_the_watch_reads_the_last_flags(arrival: str) -> None:
    model = net()
    optimizer = fused(model)
    watch = watched(model, optimizer)
    train_step(model, optimizer, 0)
    before = state(model, optimizer)
    train_step(model, optimizer, 1, bad=True)
    with pytest.raises(NonFiniteError) as caught:
        watch.close()
    assert caught.value.incident.step == 1 and same(state(model, optimizer), before)


def test_bad_steps_in_a_row_are_counted(arrival: str) -> None:
    model = net()
    optimizer = fused(model)
    before = state(model)

    def run() -> None:
        for number in range(20):
            train_step(model, optimizer, number, bad=True)

    with watched(model, optimizer, policy="skip", patience=3), pytest.raises(NonFiniteError) as caught:
        run()
    assert caught.value.in_a_row == 3 and same(state(model), before)
