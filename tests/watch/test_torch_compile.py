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


@pytest.mark.slow
@pytest.mark.parametrize("how", ["loss compiled before", "loss compiled later", "optimizer's step", "whole step"])
def test_what_is_compiled_in_one_graph_or_with_the_update_runs_on_and_is_watched(how: str) -> None:
    torch.compiler.reset()
    model = net()
    optimizer = torch.optim.Adam(model.parameters(), lr=0.1)

    def loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ((p.squeeze(-1) - t) ** 2 + 0.0 * t.log()).mean()

    compiled = torch.compile(loss, backend="aot_eager", fullgraph=True) if how == "loss compiled before" else loss
    with watched(model, optimizer, loss=loss, policy="skip") as watch:
        if how == "loss compiled later":
            compiled = torch.compile(loss, backend="aot_eager", fullgraph=True)
        update = torch.compile(optimizer.step, backend="aot_eager") if how == "optimizer's step" else optimizer.step

        def train(x: torch.Tensor, t: torch.Tensor) -> None:
            compiled(model(x), t).backward()
            update()

        step = torch.compile(train, backend="aot_eager") if how == "whole step" else train
        for number in range(3):
            before = state(model, optimizer)
            optimizer.zero_grad()
            step(*batch(number, bad=number == 1))
            assert same(state(model, optimizer), before) == (number == 1)
    (incident,) = watch.incidents
    assert watch.step == 3 and incident.step == 1
    if how != "whole step":  # whose names are gone when it calls backward
        assert "t.log()" in incident.finding.site.text and incident.suspects.samples == (BAD_SAMPLE,)
