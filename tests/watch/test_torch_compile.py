"""Compiled models and losses: watched as they are, explained in eager mode."""

import pytest
import torch
from tests.watch.torch_steps import BAD_SAMPLE, Net, batch, log_loss, net, same, state, watched


def steps(model: torch.nn.Module, called: torch.nn.Module, optimizer: torch.optim.Optimizer, loss: object) -> None:
    for number in range(3):
        before = state(model, optimizer)
        x, t = batch(number, bad=number == 2)
        optimizer.zero_grad()
        loss(called(x), t).backward()  # type: ignore[operator]
        optimizer.step()
        assert same(state(model, optimizer), before) == (number == 2)


@pytest.mark.slow
@pytest.mark.parametrize("how", ["wrapped", "in place", "watched before"])
def test_a_compiled_model_and_loss(how: str) -> None:
    torch.compiler.reset()
    model: Net = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    compiled = torch.compile(model, backend="aot_eager") if how == "wrapped" else model
    if how == "in place":
        model.compile(backend="aot_eager")

    def plain(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ((p.squeeze(-1) - t) ** 2 + 0.0 * t.log()).mean()

    loss = torch.compile(plain, backend="aot_eager")
    with watched(compiled, optimizer, loss=loss, policy="skip") as watch:
        if how == "watched before":
            compiled = torch.compile(model, backend="aot_eager")
        steps(model, compiled, optimizer, loss)
    (incident,) = watch.incidents
    assert incident.suspects.samples == (BAD_SAMPLE,) and "t.log()" in incident.finding.site.text and incident.step == 2
    assert not any("_orig_mod" in name for name in incident.parameters)


@pytest.mark.slow
def test_a_compiled_function_that_calls_a_watched_loss() -> None:
    torch.compiler.reset()
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    @torch.compile(backend="aot_eager")
    def whole(x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return log_loss(model(x), t)

    with watched(model, optimizer, policy="skip") as watch:
        for number in range(3):
            before = state(model, optimizer)
            x, t = batch(number, bad=number == 1)
            optimizer.zero_grad()
            whole(x, t).backward()
            optimizer.step()
            assert same(state(model, optimizer), before) == (number == 1)
    assert watch.bad_steps == 1
