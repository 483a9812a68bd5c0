"""Policies: what is done about a bad step, to the last bit."""

import copy
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.watch.torch_steps import BAD_SAMPLE, batch, log_loss, net, same, state, train_step, watched
from torch import nn

from whynan.errors import NonFiniteError, WhynanError


class Plain(torch.optim.Optimizer):
    """An optimizer of one's own: a counter in its group, no test for missing gradients."""

    def __init__(self, params: Any, lr: float = 0.1) -> None:
        super().__init__(params, {"lr": lr, "step": 0})

    @torch.no_grad()
    def step(self, closure: Any = None) -> None:
        for group in self.param_groups:
            group["step"] += 1
            for p in group["params"]:
                self.state[p]["moved"] = self.state[p].get("moved", 0) + 1
                p.sub_(p.grad, alpha=group["lr"])


OPTIMIZERS = {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.1),
    "momentum": lambda p: torch.optim.SGD(p, lr=0.1, momentum=0.9, nesterov=True, weight_decay=0.1),
    "adam": lambda p: torch.optim.Adam(p, lr=0.1, amsgrad=True),
    "adamw-foreach": lambda p: torch.optim.AdamW(p, lr=0.1, foreach=True),
    "adamw-fused": lambda p: torch.optim.AdamW(p, lr=0.1, fused=True),
    "rmsprop": lambda p: torch.optim.RMSprop(p, lr=0.1, momentum=0.5),
    "own": Plain,
}


@pytest.mark.parametrize("name", OPTIMIZERS)
def test_a_dropped_step_changes_nothing(name: str) -> None:
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    with watched(model, optimizer, policy="skip") as watch:
        for step in range(3):
            train_step(model, optimizer, step)
        before = state(model, optimizer)
        value = train_step(model, optimizer, 3, bad=True)
        assert value.isnan() and same(state(model, optimizer), before)
        assert all(p.grad is not None for p in model.parameters()), "gradients are still there for who looks at them"
        train_step(model, optimizer, 4)
        assert not same(state(model, optimizer), before)
    assert (watch.step, watch.bad_steps) == (5, 1)
    (incident,) = watch.incidents
    assert incident.step == 3 and incident.failed == "loss" and incident.sample == BAD_SAMPLE and incident.action == "skip"
    assert incident.finding is not None and "t.log()" in incident.finding.site.text


def test_skipping_gives_what_the_loop_without_that_step_gives() -> None:
    models = [net(), net()]
    optimizers = [OPTIMIZERS["adamw-fused"](m.parameters()) for m in models]
    with watched(models[0], optimizers[0], policy="skip"):
        for step in range(6):
            train_step(models[0], optimizers[0], step, bad=step == 2)
    for step in (0, 1, 3, 4, 5):
        train_step(models[1], optimizers[1], step)
    assert same(state(models[0], optimizers[0]), state(models[1], optimizers[1]))


@pytest.mark.parametrize("name", ["momentum", "adam", "own"])
def test_raise_comes_before_the_update(name: str) -> None:
    model = net()
    optimizer = OPTIMIZERS[name](model.parameters())
    with watched(model, optimizer):
        train_step(model, optimizer, 0)
        before = state(model, optimizer)
        with pytest.raises(NonFiniteError) as caught:
            train_step(model, optimizer, 1, bad=True)
    assert same(state(model, optimizer), before) and caught.value.incident.step == 1


@pytest.mark.parametrize("policy", ["skip", "retry", "rollback"])
def test_the_kth_bad_update_in_a_row_is_never_applied(policy: str) -> None:
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())

    def bad_loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (p.squeeze(-1) - t).abs().mean() * t.max().sub(t.max()).log()  # no sample can be left out

    with watched(model, optimizer, loss=bad_loss, policy=policy, patience=3) as watch:
        before = state(model, optimizer)
        for step in range(2):
            train_step(model, optimizer, step, loss=bad_loss)
        with pytest.raises(NonFiniteError) as caught:
            train_step(model, optimizer, 2, loss=bad_loss)
    assert caught.value.in_a_row == 3 and watch.bad_steps == 3 and same(state(model, optimizer), before)


def test_a_healthy_step_in_between_begins_the_count_anew() -> None:
    model = net()
    optimizer = OPTIMIZERS["sgd"](model.parameters())
    with watched(model, optimizer, policy="skip", patience=2) as watch:
        for step in range(6):
            train_step(model, optimizer, step, bad=step % 2 == 0)
    assert watch.bad_steps == 3


@pytest.mark.parametrize("disk", [False, True])
def test_rollback_returns_to_the_last_snapshot(disk: bool, tmp_path: Path) -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    schedule = torch.optim.lr_scheduler.ExponentialLR(optimizer, 0.9)
    kept: dict[int, Any] = {}
    with watched(model, optimizer, policy="rollback", every=3, snapshots=tmp_path if disk else None):
        kept[0] = state(model)
        for step in range(5):
            train_step(model, optimizer, step)
            schedule.step()
            kept[step + 1] = [*state(model), copy.deepcopy(optimizer.state_dict()["state"])]
        numbers = torch.get_rng_state()
        train_step(model, optimizer, 5, bad=True)
        assert same([*state(model), optimizer.state_dict()["state"]], kept[3])
        assert torch.get_rng_state().equal(numbers), "random numbers go on"
        assert optimizer.param_groups[0]["lr"] == pytest.approx(0.1 * 0.9**5), "the schedule goes on"
        train_step(model, optimizer, 6)
        train_step(model, optimizer, 7, bad=True)
        assert same([*state(model), optimizer.state_dict()["state"]], kept[3]), "a snapshot serves several times"
    assert (tmp_path / "healthy.pt").exists() == disk


def test_rollback_before_the_first_snapshot_returns_to_the_start() -> None:
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    start = state(model, optimizer)
    with watched(model, optimizer, policy="rollback", every=100):
        train_step(model, optimizer, 0)
        train_step(model, optimizer, 1, bad=True)
    assert same(state(model, optimizer), start)


def test_stop_is_seen_by_the_loop() -> None:
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    done = []
    with watched(model, optimizer, policy="stop") as watch:
        for step in range(10):
            before = state(model, optimizer)
            train_step(model, optimizer, step, bad=step == 4)
            done.append(step)
            if watch.stopped:
                break
    assert done == [0, 1, 2, 3, 4] and same(state(model, optimizer), before)


@pytest.mark.parametrize("name", ["momentum", "adamw-fused"])
def test_retry_is_the_step_on_the_healthy_samples(name: str) -> None:
    models = [net(), net()]
    optimizers = [OPTIMIZERS[name](m.parameters()) for m in models]
    with watched(models[0], optimizers[0], policy="retry") as watch:
        train_step(models[0], optimizers[0], 0)
        train_step(models[0], optimizers[0], 1, bad=True)
    train_step(models[1], optimizers[1], 0)
    x, t = batch(1, bad=True)
    healthy = [i for i in range(len(t)) if i != BAD_SAMPLE]
    optimizers[1].zero_grad()
    log_loss(models[1](x[healthy]), t[healthy]).backward()
    optimizers[1].step()
    for a, b in zip(state(models[0]), state(models[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert watch.incidents[0].action == "retry"


def test_retry_clips_again() -> None:
    models = [net(), net()]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    x, t = batch(1)
    x[BAD_SAMPLE] = torch.inf
    healthy = [i for i in range(len(t)) if i != BAD_SAMPLE]

    def go(k: int, x: torch.Tensor, t: torch.Tensor) -> None:
        optimizers[k].zero_grad()
        log_loss(models[k](x), t).backward()
        nn.utils.clip_grad_norm_(models[k].parameters(), 0.1)
        optimizers[k].step()

    with watched(models[0], optimizers[0], policy="retry") as watch:
        go(0, x, t)
    go(1, x[healthy], t[healthy])
    for a, b in zip(state(models[0]), state(models[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)
    assert watch.flight[0].clipped_from != watch.flight[0].clipped_from, "NaN was what clipping measured"


def test_a_callback_chooses_for_each_step() -> None:
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    asked = []

    def choose(incident: Any) -> str | None:
        asked.append(incident.step)
        return "skip" if incident.step < 2 else None

    with watched(model, optimizer, on_incident=choose):
        before = state(model, optimizer)
        train_step(model, optimizer, 0, bad=True)
        train_step(model, optimizer, 1, bad=True)
        with pytest.raises(NonFiniteError):
            train_step(model, optimizer, 2, bad=True)
    assert asked == [0, 1, 2] and same(state(model, optimizer), before)


def test_a_callback_that_returns_nonsense_is_told_and_nothing_is_applied() -> None:
    model = net()
    optimizer = OPTIMIZERS["adam"](model.parameters())
    with watched(model, optimizer, on_incident=lambda incident: "explode"):
        before = state(model, optimizer)
        with pytest.raises(WhynanError, match="explode"):
            train_step(model, optimizer, 0, bad=True)
    assert same(state(model, optimizer), before)


def test_embeddings_with_sparse_gradients() -> None:
    torch.manual_seed(0)
    table = nn.Embedding(7, 2, sparse=True)
    optimizer = torch.optim.SparseAdam(list(table.parameters()), lr=0.1)

    def loss(v: torch.Tensor) -> torch.Tensor:
        return (v * v).sum(-1).sqrt().sum()

    with watched(table, optimizer, loss=loss, policy="skip") as watch:
        for rows in ([1, 2], [0, 3]):
            optimizer.zero_grad()
            loss(table(torch.tensor(rows))).backward()
            optimizer.step()
        before = state(table, optimizer)
        with torch.no_grad():
            table.weight[5] = 0.0
        before[0][5] = 0.0
        optimizer.zero_grad()
        loss(table(torch.tensor([4, 5]))).backward()
        optimizer.step()
        assert same(state(table, optimizer), before)
    (incident,) = watch.incidents
    assert incident.failed == "gradient" and incident.sample == 1 and "sqrt" in incident.finding.site.text
