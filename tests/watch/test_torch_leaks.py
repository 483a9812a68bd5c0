"""Ten thousand watched steps: memory stays bounded, and what torch has for the whole process is as it was."""

import gc
import tracemalloc

import pytest
import torch
from tests.watch.torch_steps import watched
from torch import nn


def global_state() -> list[object]:
    functions = (torch.autograd.backward, torch.amp.GradScaler.step, nn.utils.clip_grad_norm_, torch.optim.SGD.step)
    return [
        *[f.__code__ for f in functions],
        torch.is_grad_enabled(),
        torch.get_default_dtype(),
        torch.is_autocast_enabled("cpu"),
        torch.are_deterministic_algorithms_enabled(),
        torch.is_anomaly_enabled(),
        len(nn.modules.module._global_forward_hooks),
        len(nn.modules.module._global_forward_pre_hooks),
    ]


@pytest.mark.slow
def test_ten_thousand_steps_leak_nothing_and_leave_global_state_as_it_was() -> None:
    torch.manual_seed(0)
    model, criterion = nn.Linear(2, 1), nn.MSELoss()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)
    before = global_state()  # with the first optimizer of a class, torch itself changes the class
    x, t = torch.randn(4, 2), torch.randn(4, 1)
    poisoned = torch.full_like(t, torch.nan)
    numbers = torch.get_rng_state()
    with watched(model, optimizer, loss=criterion, policy="skip", patience=10**6, incidents=2) as watch:

        def steps(count: int) -> None:
            for k in range(count):
                optimizer.zero_grad()
                criterion(model(x), poisoned if k % 500 == 0 else t).backward()
                optimizer.step()

        def objects() -> int:
            gc.collect()
            return len(gc.get_objects())

        steps(1000)  # the flight record fills, the analysis is imported
        early = objects()
        steps(8000)
        assert objects() - early < 500, "ordinary Python objects that stay"
        tracemalloc.start()
        steps(500)
        gc.collect()
        before_last = tracemalloc.get_traced_memory()[0]
        steps(500)
        gc.collect()
        growth = tracemalloc.get_traced_memory()[0] - before_last
        tracemalloc.stop()
    assert watch.step == 10_000 and watch.bad_steps == 20 and len(watch.flight) <= 200
    assert growth < 100_000, f"{growth} bytes more after 500 steps"
    assert global_state() == before and torch.get_rng_state().equal(numbers)
