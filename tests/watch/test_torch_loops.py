"""Loops of every shape: closures, several optimizers, accumulation, checkpointing, copies of the model, other watches."""

import copy
import io
import pickle
import subprocess
import sys
from typing import Any

import pytest
import torch
from tests.watch.torch_steps import BAD_SAMPLE, Net, batch, log_loss, net, same, state, train_step, watched
from torch import nn
from torch.utils.checkpoint import checkpoint

from whynan.errors import NonFiniteError


def root_loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Its gradient is infinite where the prediction, whatever the weights, is that of a zero row."""
    return (p.squeeze(-1) * t).abs().sqrt().mean()


# ---------------------------------------------------------------- closures


@pytest.mark.parametrize("line_search", [None, "strong_wolfe"])
def test_lbfgs_is_as_before_when_its_closure_goes_bad(line_search: str | None) -> None:
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=4, line_search_fn=line_search)

    def step(number: int, bad: bool) -> Any:
        x, t = batch(number, bad)

        def closure() -> torch.Tensor:
            optimizer.zero_grad()
            loss = log_loss(model(x), t)
            loss.backward()
            return loss

        return optimizer.step(closure)

    with watched(model, optimizer, policy="skip") as watch:
        for number in range(3):
            step(number, False)
        assert watch.step == 3
        before = state(model, optimizer)
        assert step(3, True).isnan()
        assert same(state(model, optimizer), before)
        step(4, False)
    assert (watch.step, watch.bad_steps) == (5, 1)
    assert watch.incidents[0].step == 3 and watch.incidents[0].suspects.samples == (BAD_SAMPLE,)


def test_an_evaluation_in_the_middle_of_a_step_goes_bad() -> None:
    model = net()
    optimizer = torch.optim.LBFGS(model.parameters(), lr=0.1, max_iter=5)
    x, t = batch(0)
    calls = []

    def closure() -> torch.Tensor:
        optimizer.zero_grad()
        calls.append(1)
        loss = log_loss(model(x), t if len(calls) < 8 else t * 0)
        loss.backward()
        return loss

    with watched(model, optimizer) as watch:
        optimizer.step(closure)
        assert len(calls) > 3
        before = state(model, optimizer)
        with pytest.raises(NonFiniteError) as caught:
            optimizer.step(closure)
    assert len(calls) == 8 and same(state(model, optimizer), before), "parameters, history and statistics are those before the step"
    assert caught.value.incident.step == 1 == watch.step - 1


def test_a_closure_of_an_ordinary_optimizer() -> None:
    model = net()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    with watched(model, optimizer, policy="skip") as watch:
        for number in range(4):
            before = state(model, optimizer)

            def closure(number: int = number) -> torch.Tensor:
                optimizer.zero_grad()
                x, t = batch(number, bad=number == 2)
                loss = log_loss(model(x), t)
                loss.backward()
                return loss

            optimizer.step(closure=closure)
            assert same(state(model, optimizer), before) == (number == 2)
    assert watch.bad_steps == 1 and watch.step == 4


# ---------------------------------------------------------------- several optimizers


def test_two_optimizers_of_one_loss_are_both_held_back() -> None:
    model = net()
    a, b = torch.optim.Adam(model.first.parameters()), torch.optim.SGD(model.last.parameters(), lr=0.1)
    with watched(model, [a, b], policy="skip", patience=2) as watch:
        for number, bad in enumerate([False, True, False, True]):
            before = state(model, a) + state(model, b)
            x, t = batch(number, bad)
            model.zero_grad()
            log_loss(model(x), t).backward()
            a.step()
            b.step()
            assert same(state(model, a) + state(model, b), before) == bad
    assert watch.bad_steps == 2 == len(watch.incidents), "one step, one incident"


class Blows(torch.autograd.Function):
    """Passes on; its gradient is NaN for the parameter only."""

    @staticmethod
    def forward(ctx: Any, x: torch.Tensor, w: torch.Tensor) -> torch.Tensor:
        return x * w

    @staticmethod
    def backward(ctx: Any, g: torch.Tensor) -> tuple[torch.Tensor, torch.Tensor]:
        return g, g.sum() * torch.nan


@pytest.mark.parametrize("policy", ["skip", "raise"])
def test_an_update_made_before_the_other_turned_out_bad_is_taken_back(policy: str) -> None:
    torch.manual_seed(0)
    body, scale = nn.Linear(3, 1), nn.Module()
    scale.w = nn.Parameter(torch.ones(()))
    a, b = torch.optim.Adam(body.parameters()), torch.optim.Adam(scale.parameters())

    def loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return (Blows.apply(p.squeeze(-1), scale.w) - t).square().mean()

    watch = watched([body, scale], [a, b], loss=loss, policy=policy)
    with watch:
        before = state(body, a) + state(scale, b)
        x, t = batch(0)
        loss(body(x), t).backward()
        a.step()
        if policy == "raise":
            with pytest.raises(NonFiniteError):
                b.step()
        else:
            b.step()
        assert same(state(body, a) + state(scale, b), before)
    (incident,) = watch.incidents
    assert incident.parameter == "1.w" and incident.kind == "a backward of your own"


@pytest.mark.parametrize("generator_first", [False, True])
@pytest.mark.parametrize("which", ["generator", "discriminator"])
def test_alternating_updates(which: str, generator_first: bool) -> None:
    torch.manual_seed(0)
    g = nn.Sequential(nn.Linear(2, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 3))
    d = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.ReLU(), nn.Linear(4, 1), nn.Sigmoid())
    og, od = torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters())
    bad = {"now": False}

    def loss(p: torch.Tensor, real: bool, who: str) -> torch.Tensor:
        p = p * 0 if bad["now"] and who == which else p
        return -(p.log() if real else (1 - p).log()).mean() if who != which or not bad["now"] else -p.log().mean()

    def discriminator(fake: torch.Tensor, real: torch.Tensor) -> None:
        od.zero_grad()
        (loss(d(real), True, "discriminator") + loss(d(fake.detach()), False, "discriminator")).backward()
        od.step()

    def generator(fake: torch.Tensor) -> None:
        og.zero_grad()
        loss(d(fake), True, "generator").backward()
        og.step()

    with watched([g, d], [og, od], loss=loss, policy="skip", patience=2) as watch:
        for number in range(5):
            bad["now"] = number == 3
            torch.manual_seed(number)
            z, real = torch.randn(6, 2), torch.randn(6, 3)
            fake = g(z)
            updates = [(lambda f=fake: generator(f)), (lambda f=fake, r=real: discriminator(f, r))]
            for update in updates if generator_first else updates[::-1]:
                kept = [p.detach().clone() for p in (g if which == "generator" else d).parameters()]
                update()
            bad["now"] = False
        assert kept
    assert watch.bad_steps == 1 and watch.step == 5 and watch.incidents[0].step == 3
    (incident,) = watch.incidents
    assert incident.reproduced and incident.failed == "loss" and "log" in incident.finding.site.text
    assert all(p.isfinite().all() for m in (g, d) for p in m.parameters())
    assert all(b.isfinite().all() for m in (g, d) for b in m.buffers())


def test_a_fault_in_a_model_that_was_called_before_the_other_update() -> None:
    """The generator's own backward fails; it was called before the discriminator's update."""
    torch.manual_seed(0)

    class Generator(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.inner = nn.Linear(2, 3)

        def forward(self, z: torch.Tensor) -> torch.Tensor:
            h = self.inner(z)
            return h + (h * 0).sum(-1, keepdim=True).abs().sqrt()

    g, d = Generator(), nn.Linear(3, 1)
    og, od = torch.optim.Adam(g.parameters()), torch.optim.Adam(d.parameters())

    def loss(p: torch.Tensor) -> torch.Tensor:
        return p.square().mean()

    with watched([g, d], [og, od], loss=loss, policy="skip") as watch:
        fake = g(torch.randn(4, 2))
        loss(d(fake.detach())).backward()
        od.step()
        before = state(g, og)
        og.zero_grad()
        loss(d(fake)).backward()
        og.step()
        assert same(state(g, og), before)
    (incident,) = watch.incidents
    assert incident.failed == "gradient" and "sqrt" in incident.finding.site.text and incident.finding.phase == "backward"
    assert incident.parameter.startswith("0.inner")


def test_a_step_is_one_round_of_the_loop_however_many_optimizers_make_it() -> None:
    """One update of the first, two of the second: a step ends where an optimizer comes again."""
    models = [nn.Linear(3, 1), nn.Linear(3, 1)]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    with watched(models, optimizers, policy="skip") as watch:
        for number, which in enumerate([0, 1, 1, 0, 1, 1, 0, 1]):
            x, t = batch(number, bad=number == 6)
            optimizers[which].zero_grad()
            log_loss(models[which](x), t).backward()
            optimizers[which].step()
    assert [(m.step, m.optimizer) for m in watch.flight] == [(0, 0), (0, 1), (1, 1), (1, 0), (2, 1), (3, 1), (3, 0), (4, 1)]
    assert watch.incidents[0].step == 3 and watch.step == 5


# ---------------------------------------------------------------- accumulation


@pytest.mark.parametrize("bad_at", [0, 2, 3])
def test_the_micro_batch_that_failed_is_told(bad_at: int) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer, policy="skip") as watch:
        before = state(model, optimizer)
        for k in range(4):
            x, t = batch(k, bad=k == bad_at)
            (log_loss(model(x), t) / 4).backward()
        optimizer.step()
        assert same(state(model, optimizer), before)
    suspects = watch.incidents[0].suspects
    assert suspects.call == bad_at and suspects.samples == (BAD_SAMPLE,)


@pytest.mark.parametrize("bad_at", [None, 3, 29])
def test_long_accumulation_keeps_a_few_micro_batches(bad_at: int | None) -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer, policy="skip") as watch:
        before = state(model, optimizer)
        for k in range(30):
            x, t = batch(k, bad=k == bad_at)
            (log_loss(model(x), t) / 30).backward()
            assert len(watch.run.window.calls) <= 18
        optimizer.step()
        assert same(state(model, optimizer), before) == (bad_at is not None), "statistics, too, are those before the first micro-batch"
    if bad_at is not None:
        assert watch.incidents[0].suspects.call == bad_at and watch.incidents[0].suspects.samples == (BAD_SAMPLE,)


@pytest.mark.parametrize("own_lines", [False, True])
def test_retry_of_an_accumulated_step(own_lines: bool) -> None:
    models = [net(), net()]
    optimizers = [torch.optim.SGD(m.parameters(), lr=0.1) for m in models]
    healthy = [i for i in range(6) if i != BAD_SAMPLE]
    with watched(models[0], optimizers[0], None if own_lines else log_loss, policy="retry"):
        for k in range(3):
            x, t = batch(k, bad=k == 1)
            p = models[0](x)
            loss = ((p.squeeze(-1) - t) ** 2 + 0.0 * t.log()).mean() if own_lines else log_loss(p, t)
            (loss / 3).backward()
        optimizers[0].step()
    for k in range(3):
        x, t = batch(k)
        x, t = (x[healthy], t[healthy]) if k == 1 else (x, t)
        (log_loss(models[1](x), t) / 3).backward()
    optimizers[1].step()
    for a, b in zip(state(models[0]), state(models[1]), strict=True):
        torch.testing.assert_close(a, b, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("failing", [False, True])
def test_an_optimizer_that_never_steps_is_asked_for_once(failing: bool, caplog: pytest.LogCaptureFixture) -> None:
    model, loss = nn.Linear(3, 1), nn.MSELoss()
    given, used = torch.optim.SGD(model.parameters(), lr=0.1), torch.optim.Adam(model.parameters())
    with watched(model, given, loss) as watch:
        for _ in range(600):
            used.zero_grad()
            loss(model(torch.full((2, 3), torch.nan if failing else 1.0)), torch.zeros(2, 1)).backward()
            used.step()
            assert len(watch.run.window.calls) <= 18
    (said,) = [r.getMessage() for r in caplog.records if r.name == "whynan.watch"]
    assert "backward was called 256 times, and SGD, which whynan.watch was given, has made no step" in said


# ---------------------------------------------------------------- what else happens around steps


def test_evaluation_between_steps_is_none_of_its_business() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    with watched(model, optimizer) as watch:
        for number in range(3):
            x, t = batch(number)
            optimizer.zero_grad()
            loss = log_loss(model(x), t)
            with torch.no_grad():
                assert log_loss(model(x), t * 0).isnan()
            model.eval()
            log_loss(model(x), t * 0)  # a validation loss that is NaN, with gradients on
            model.train()
            loss.backward()
            optimizer.step()
    assert watch.bad_steps == 0 and watch.step == 3


def test_evaluation_with_gradients_on_holds_no_graphs() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    freed = []

    class Mark(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, x: torch.Tensor) -> torch.Tensor:
            ctx.mark = Freed()
            return x.clone()

        @staticmethod
        def backward(ctx: Any, g: torch.Tensor) -> torch.Tensor:
            return g

    class Freed:
        def __del__(self) -> None:
            freed.append(1)

    with watched(model, optimizer) as watch:
        for number in range(40):
            x, t = batch(number)
            log_loss(Mark.apply(model(x)), t)
        assert len(freed) >= 36 and len(watch.run.window.calls) <= 24


def test_a_forward_that_raises_does_not_blind_the_watch() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    with watched(model, optimizer, policy="skip") as watch:
        with pytest.raises(RuntimeError):
            model(torch.randn(2, 7))
        with pytest.raises(RuntimeError):
            log_loss(torch.randn(3, 1), torch.randn(5))
        train_step(model, optimizer, 0, bad=True)
    assert watch.incidents[0].suspects.samples == (BAD_SAMPLE,) and watch.incidents[0].notes == ()


class Checkpointed(Net):
    reentrant = False

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x.requires_grad_(self.reentrant)
        return checkpoint(super().forward, x, use_reentrant=self.reentrant)


@pytest.mark.parametrize("reentrant", [False, True])
def test_gradient_checkpointing(reentrant: bool) -> None:
    torch.manual_seed(0)
    model = Checkpointed()
    model.reentrant = reentrant
    model.norm = nn.Identity()
    optimizer = torch.optim.Adam(model.parameters())
    with watched(model, optimizer, loss=root_loss, policy="skip") as watch:
        train_step(model, optimizer, 0, loss=root_loss)
        before = state(model, optimizer)
        x, t = batch(1)
        t[BAD_SAMPLE] = 0
        optimizer.zero_grad()
        root_loss(model(x), t).backward()
        optimizer.step()
        assert same(state(model, optimizer), before)
    (incident,) = watch.incidents
    assert watch.step == 2 and incident.failed == "gradient" and incident.sample == BAD_SAMPLE and "sqrt" in incident.finding.site.text


def test_functional_transforms_go_on_working() -> None:
    model = net().eval()
    optimizer = torch.optim.Adam(model.parameters())
    x, t = batch(0)
    params = dict(model.named_parameters())

    def one(p: Any, x: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return log_loss(torch.func.functional_call(model, p, (x[None],)), t[None])

    expected = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(params, x, t)
    with watched(model, optimizer, policy="skip") as watch:
        got = torch.func.vmap(torch.func.grad(one), in_dims=(None, 0, 0))(params, x, t)
        assert same(dict(got), dict(expected))
        train_step(model, optimizer, 0)
    assert watch.bad_steps == 0


def test_gradients_set_by_hand() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer, policy="skip", patience=5) as watch:
        for number, bad in enumerate([False, True, False]):
            before = state(model, optimizer)
            x, t = batch(number)
            x[BAD_SAMPLE] = torch.nan if bad else 0
            grads = torch.autograd.grad(log_loss(model(x), t), list(model.parameters()))
            for p, g in zip(model.parameters(), grads, strict=True):
                p.grad = g
            optimizer.step()
            assert same(state(model, optimizer), before) == bad
    assert watch.incidents[0].kind == "bad data" and watch.incidents[0].sample == BAD_SAMPLE


# ---------------------------------------------------------------- copies, closing, several watches


def test_a_copy_of_a_watched_model_is_not_watched_and_brings_no_watch() -> None:
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    criterion = nn.MSELoss()
    with watched(model, optimizer, loss=criterion, policy="skip") as watch:
        ema, again = copy.deepcopy(model), pickle.loads(pickle.dumps(model))
        for other in (ema, again):
            x, _t = batch(0)
            seen = len(watch.run.window.calls)
            assert same(other(x), model(x)) and len(watch.run.window.calls) == seen + 1
        copy.deepcopy(criterion)(torch.ones(2), torch.ones(2))
        copy.deepcopy(optimizer)
        train_step(model, optimizer, 0, loss=lambda p, t: criterion(p.squeeze(-1), t))
    assert watch.step == 1


@pytest.mark.slow
def test_a_saved_model_loads_without_whynan() -> None:
    model = nn.Sequential(nn.Linear(2, 2))
    with watched(model, torch.optim.SGD(model.parameters(), lr=0.1)):
        file = io.BytesIO()
        torch.save(model, file)
    program = (
        "import io, sys, torch; sys.modules['whynan'] = None\n"
        "model = torch.load(io.BytesIO(sys.stdin.buffer.read()), weights_only=False)\n"
        "print(model(torch.ones(1, 2)).shape)"
    )
    done = subprocess.run([sys.executable, "-c", program], input=file.getvalue(), capture_output=True, check=False)
    assert done.stdout.decode().strip() == "torch.Size([1, 2])", done.stderr.decode()


def test_closing_leaves_everything_as_it_was() -> None:
    def loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
        return ((p.squeeze(-1) - t) ** 2).mean()

    functions = [loss, torch.autograd.backward, torch.amp.GradScaler.step, nn.utils.clip_grad_norm_, torch.optim.Adam.step]
    model = net()
    optimizer = torch.optim.Adam(model.parameters())
    before = [(f.__code__, dict(vars(f))) for f in functions]
    hooks = [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()]
    first = watched(model, optimizer, loss=loss)
    second = watched(model, optimizer, loss=loss)
    train_step(model, optimizer, 0, loss=loss)
    assert first.step == second.step == 1
    first.close()
    train_step(model, optimizer, 1, loss=loss)
    assert (first.step, second.step) == (1, 2), "the one that is closed first leaves the other at work"
    second.close()
    assert [(f.__code__, dict(vars(f))) for f in functions] == before
    assert [(dict(m._forward_hooks), dict(m._forward_pre_hooks)) for m in model.modules()] == hooks
    assert not optimizer._optimizer_step_pre_hooks and not optimizer._optimizer_step_post_hooks


def test_two_runs_watched_at_once_do_not_mix() -> None:
    models = [net(0), net(1)]
    optimizers = [torch.optim.Adam(m.parameters()) for m in models]
    with (
        watched(models[0], optimizers[0], loss=None, policy="skip") as a,
        watched(models[1], optimizers[1], loss=None, policy="skip") as b,
    ):
        for number in range(3):
            x, t = batch(number, bad=number == 1)
            log_loss(models[0](x), t).backward()
            x, t = batch(number)
            log_loss(models[1](x), t).backward()
            for o in optimizers:
                o.step()
                o.zero_grad()
    assert (a.bad_steps, b.bad_steps) == (1, 0)


def test_a_model_that_is_moved_goes_on_being_watched() -> None:
    model = net()
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)

    def step(number: int, bad: bool, dtype: torch.dtype) -> None:
        x, t = batch(number, bad)
        optimizer.zero_grad()
        log_loss(model(x.to(dtype)), t.to(dtype)).backward()
        optimizer.step()

    with watched(model, optimizer, policy="skip") as watch:
        step(0, False, torch.float32)
        model.to(torch.float64)
        step(1, False, torch.float64)
        before = state(model, optimizer)
        step(2, True, torch.float64)
        assert same(state(model, optimizer), before) and watch.bad_steps == 1


def test_layers_that_are_added_later_are_named() -> None:
    model = nn.Sequential(nn.Linear(3, 3))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer, loss=root_loss, policy="skip") as watch:
        model.add_module("late", nn.Linear(3, 1))
        optimizer.add_param_group({"params": model.late.parameters()})
        x, t = batch(0)
        t[BAD_SAMPLE] = 0
        root_loss(model(x), t).backward()
        optimizer.step()
    (incident,) = watch.incidents
    assert "late.weight" in incident.parameters and incident.sample == BAD_SAMPLE


def test_lazy_modules() -> None:
    model = nn.Sequential(nn.LazyLinear(4), nn.LazyBatchNorm1d(), nn.Linear(4, 1))
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with watched(model, optimizer, policy="rollback") as watch:
        train_step(model, optimizer, 0)
        before = state(model, optimizer)
        train_step(model, optimizer, 1, bad=True)
        assert same(state(model, optimizer), before) and watch.bad_steps == 1


def test_a_loop_that_calls_forward_many_times_before_one_backward() -> None:
    model = nn.Linear(3, 3)
    optimizer = torch.optim.SGD(model.parameters(), lr=0.01)

    def loss(p: torch.Tensor) -> torch.Tensor:
        return p.square().mean()

    with watched(model, optimizer, loss=loss, policy="skip") as watch:
        for bad in (False, True):
            h = torch.ones(2, 3)
            for k in range(40):
                h = torch.tanh(model(h))
                if bad and k == 20:
                    h = h * torch.tensor([[1.0], [torch.inf]])
            optimizer.zero_grad()
            before = state(model, optimizer)
            loss(h).backward()
            optimizer.step()
        assert same(state(model, optimizer), before)
    assert watch.bad_steps == 1
