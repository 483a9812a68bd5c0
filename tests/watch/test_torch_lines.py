"""A loss that the loop computes with lines of its own: the user's expression is found in them, and its place."""

import dataclasses
import importlib
import subprocess
import sys
import weakref
from pathlib import Path

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import whynan
from whynan.errors import NonFiniteError

BAD_STEP = 2


class Net(nn.Module):
    def __init__(self, out=1, dropout=0.0):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(dropout))
        self.head = nn.Linear(16, out)

    def forward(self, x):
        return self.head(self.body(x))


def batches(net=None):
    """Healthy batches, then one whose sample 5 has exactly the target that the net gives."""
    for step in range(BAD_STEP + 1):
        g = torch.Generator().manual_seed(step)
        x, y = torch.randn(8, 4, generator=g), torch.randn(8, 1, generator=g)
        if step == BAD_STEP:
            y[5] = float("inf") if net is None else net(x)[5].detach()
        yield x, y


def line_of(mark):
    lines = Path(__file__).read_text(encoding="utf-8").splitlines()
    return next(i for i, line in enumerate(lines, 1) if line.endswith(f"  # at {mark}"))


def caught(run, net, loss=None):
    """The incident of a run, whose parameters must be as before the bad step."""
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3, momentum=0.9)
    before = None

    def keep(*_):
        nonlocal before
        before = [p.detach().clone() for p in net.parameters()]

    handle = net.register_forward_pre_hook(keep)
    with whynan.watch(net, loss=loss, optimizer=optimizer, folder=None), pytest.raises(NonFiniteError) as error:
        run(net, optimizer)
    handle.remove()
    assert all(torch.equal(b, p) for b, p in zip(before, net.parameters(), strict=True))
    assert all(p.grad is None or p.grad.shape == p.shape for p in net.parameters())
    return error.value.incident


def check(incident, mark, text, cause, sample=5, phase="forward", step=BAD_STEP):
    finding = incident.finding
    assert finding is not None, incident.unexplained
    assert (finding.site.text, finding.site.line) == (text, line_of(mark))
    assert (finding.cause, finding.phase) == (cause, phase)
    if sample is not None:
        assert incident.sample == sample
    assert incident.step == step


def test_a_loss_in_one_line():
    def run(net, opt):
        for x, y in batches(net):
            opt.zero_grad()
            loss = ((net(x) - y) ** 2).log().mean()  # at one line
            loss.backward()
            opt.step()

    check(caught(run, Net()), "one line", "((net(x) - y) ** 2).log()", "log-of-zero")


def test_the_loss_is_not_even_named():
    def run(net, opt):
        for x, y in batches(net):
            opt.zero_grad()
            ((net(x) - y) ** 2).log().mean().backward()  # at unnamed
            opt.step()

    check(caught(run, Net()), "unnamed", "((net(x) - y) ** 2).log()", "log-of-zero")


def test_glue_between_model_and_criterion():
    def criterion(p, t):
        return torch.sqrt((p - t) ** 2).mean()  # at glue

    def run(net, opt):
        for x, y in batches(net):
            opt.zero_grad()
            out = net(x).squeeze(1)
            loss = criterion(out, y.squeeze(1))
            loss.backward()
            opt.step()

    incident = caught(run, Net(), criterion)
    check(incident, "glue", "torch.sqrt((p - t) ** 2)", "sqrt-grad-at-zero", phase="backward")
    assert incident.parameter == "head.weight"


def test_a_regulariser_is_added():
    criterion = nn.MSELoss()

    def reg(model, strength):
        return sum((p.abs() ** strength).sum() for p in model.parameters())  # at regulariser

    def run(net, opt):
        for x, y in batches():
            y = y.clamp(max=1.0)
            opt.zero_grad()
            out = net(x)
            loss = criterion(out, y) + 0.1 * reg(net, 0.5 if x.sum() != 0 else 1)
            loss.backward()
            opt.step()

    net = Net()
    with torch.no_grad():
        net.body[0].weight[3, 2] = 0.0
    torch.manual_seed(0)
    optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
    with whynan.watch(net, loss=criterion, optimizer=optimizer, folder=None), pytest.raises(NonFiniteError) as error:
        run(net, optimizer)
    incident = error.value.incident
    assert incident.step == 0
    assert incident.finding.site.text == "p.abs() ** strength"
    assert incident.finding.site.line == line_of("regulariser")
    assert incident.parameter == "body.0.weight"


def test_a_helper_that_returns_the_loss():
    def step_loss(model, batch):
        x, y = batch
        out = model(x)
        return torch.log((out - y).abs()).mean()  # at helper

    def run(net, opt):
        for batch in batches(net):
            opt.zero_grad()
            loss = step_loss(net, batch)
            loss.backward()
            opt.step()

    check(caught(run, Net()), "helper", "torch.log((out - y).abs())", "log-of-zero")


def test_a_helper_that_calls_backward_itself():
    def train_step(model, batch):
        x, y = batch
        out = model(x)
        loss = torch.log((out - y).abs()).mean()  # at own backward
        loss.backward()
        return loss.item()

    def run(net, opt):
        for batch in batches(net):
            opt.zero_grad()
            train_step(net, batch)
            opt.step()

    check(caught(run, Net()), "own backward", "torch.log((out - y).abs())", "log-of-zero")


def test_a_trainer_class_with_its_loss_in_an_attribute():
    class Trainer:
        def __init__(self, net, opt):
            self.net, self.opt, self.losses, self.steps = net, opt, [], 0

        def step(self, x, y):
            self.opt.zero_grad()
            self.steps += 1
            self.pred = self.net(x)
            self.loss = torch.log((self.pred - y).abs()).mean()  # at trainer
            self.losses.append(self.loss.item())
            self.loss.backward()
            self.opt.step()

    trainers = []

    def run(net, opt):
        trainers.append(Trainer(net, opt))
        for x, y in batches(net):
            trainers[0].step(x, y)

    check(caught(run, Net()), "trainer", "torch.log((self.pred - y).abs())", "log-of-zero")
    assert trainers[0].steps == BAD_STEP + 1
    assert len(trainers[0].losses) == BAD_STEP + 1


def test_what_the_loop_only_counts_or_prints_is_not_done_again(capsys):
    def run(net, opt):
        total, seen = 0.0, []
        for i, (x, y) in enumerate(batches(net)):
            opt.zero_grad()
            out = net(x)
            print("step", i)
            seen.append(i)
            error = (out - y).abs()
            total += error.mean().item()
            loss = torch.log(error).mean()  # at counted
            assert seen == list(range(i + 1))
            loss.backward()
            opt.step()

    check(caught(run, Net()), "counted", "torch.log(error)", "log-of-zero")
    assert capsys.readouterr().out.splitlines() == [f"step {i}" for i in range(BAD_STEP + 1)]


def test_several_terms_in_a_dictionary_summed_in_a_loop():
    def run(net, opt):
        weights = {"fit": 1.0, "log": 0.1}
        for x, y in batches(net):
            opt.zero_grad()
            out = net(x)
            losses = {}
            losses["fit"] = F.mse_loss(out, y)
            losses["log"] = (out - y).abs().log().mean()  # at dictionary
            loss = 0.0
            for name, value in losses.items():
                loss = loss + weights[name] * value
            loss.backward()
            opt.step()

    check(caught(run, Net()), "dictionary", "(out - y).abs().log()", "log-of-zero")


def test_a_list_that_is_filled():
    def run(net, opt):
        for x, y in batches(net):
            opt.zero_grad()
            terms = []
            out = net(x)
            terms.append(F.mse_loss(out, y))
            if len(x) > 4:
                terms.append((out - y).abs().log().mean())  # at list
            sum(terms).backward()
            opt.step()

    check(caught(run, Net()), "list", "(out - y).abs().log()", "log-of-zero")


def test_the_name_of_the_input_is_used_again():
    def run(net, opt):
        for x, y in batches(net):
            opt.zero_grad()
            x = x * 1.0
            x = net(x)
            x = (x - y).abs()
            x = x.log().mean()  # at again
            x.backward()
            opt.step()

    check(caught(run, Net()), "again", "x.log()", "log-of-zero")


def test_dropout_is_the_same_again():
    """The loss fails only for the elements that dropout has zeroed."""

    def run(net, opt):
        for step, (x, y) in enumerate(batches()):
            opt.zero_grad()
            h = net.body(x) if step > 99 else net(x)
            y = y.clamp(max=1.0)
            loss = ((h - y) ** 2).mean() if step < BAD_STEP else h[:, 0].log().mean() + y.mean()  # at dropout
            loss.backward()
            opt.step()

    class Dropping(Net):
        def forward(self, x):
            return F.dropout(super().forward(x).abs() + 1, 0.3)

    check(caught(run, Dropping()), "dropout", "h[:, 0].log()", "log-of-zero", sample=None)


def test_autocast_around_the_forward():
    def run(net, opt):
        for step, (x, y) in enumerate(batches()):
            opt.zero_grad()
            with torch.autocast("cpu", dtype=torch.float16):
                out = net(x)
                loss = (out * (1e5 if step == BAD_STEP else 1)).float().mean() + y.clamp(max=1.0).mean()  # at autocast
            loss.backward()
            opt.step()

    net = Net()
    with torch.no_grad():
        net.head.bias.fill_(2.0)
    check(caught(run, net), "autocast", "out * (1e5 if step == BAD_STEP else 1)", "cast-overflow", sample=None)


def test_a_gradient_scaler_stands_in_the_expression():
    def run(net, opt):
        scaler = torch.amp.GradScaler("cpu", init_scale=4.0)
        for x, y in batches(net):
            opt.zero_grad()
            loss = (net(x) - y).abs().log().mean()  # at scaler
            scaler.scale(loss).backward()
            scaler.step(opt)
            scaler.update()

    check(caught(run, Net()), "scaler", "(net(x) - y).abs().log()", "log-of-zero")


def test_a_model_that_returns_its_loss():
    @dataclasses.dataclass
    class Output:
        loss: torch.Tensor
        logits: torch.Tensor

    class Whole(Net):
        def forward(self, x, labels):
            logits = super().forward(x)
            return Output((logits - labels).abs().log().mean(), logits)  # at returned

    def run(net, opt):
        for x, y in batches(lambda x: Net.forward(net, x)):
            opt.zero_grad()
            output = net(x, labels=y)
            output.loss.backward()
            opt.step()

    incident = caught(run, Whole())
    check(incident, "returned", "(logits - labels).abs().log()", "log-of-zero")


@pytest.mark.parametrize("bad", [0, 1, 2])
def test_any_micro_batch_of_several(bad):
    def run(net, opt):
        for x, y in batches(net):
            opt.zero_grad()
            for k in range(3):
                mx, my = x[:4] + k, y[:4] + k
                if k == bad:
                    mx, my = x[4:], y[4:]
                loss = (net(mx) - my).abs().log().mean() / 2  # at micro
                loss.backward()
            opt.step()

    incident = caught(run, Net())
    check(incident, "micro", "(net(mx) - my).abs().log()", "log-of-zero", sample=1)
    assert incident.suspects.call == bad


@pytest.mark.parametrize(("count", "bad"), [(4, 0), (4, 2), (12, 0), (20, 17)])
def test_a_micro_batch_of_the_first_step_where_only_the_gradient_fails(count, bad):
    def run(net, opt):
        data = iter(range(count))
        for k in data:
            x, y = torch.randn(4, 4), torch.zeros(4, 1)
            out = net(x)
            if k == bad:
                y[2] = out.detach()[2]
            loss = (out - y).square().sqrt().mean() / count  # at root
            loss.backward()
        opt.step()

    incident = caught(run, Net())
    check(incident, "root", "(out - y).square().sqrt()", "sqrt-grad-at-zero", sample=2, phase="backward", step=0)
    assert (incident.failed, incident.suspects.call) == ("gradient", bad)


def test_what_a_loop_s_round_made_is_let_go():
    """The frame of a loop that does not accumulate holds nothing of its first round; one that does, no graph."""
    outputs = []

    def run(net, opt, every):
        for k in range(1, 5):
            out = net(torch.randn(8, 4))
            out.square().mean().backward()
            outputs.append(weakref.ref(out))
            assert sum(o() is not None for o in outputs) == 1
            if k % every == 0:
                opt.step()

    for every in (1, 4):
        net = Net()
        optimizer = torch.optim.SGD(net.parameters(), lr=1e-3)
        with whynan.watch(net, optimizer=optimizer, folder=None):
            run(net, optimizer, every)
        outputs.clear()


def test_what_cannot_be_run_again_is_named():
    def overwritten(net, opt):
        x = torch.empty(4, 4)
        for k in range(2):
            x.copy_(torch.randn(4, 4))  # what the first round had is not kept anywhere
            out = net(x)
            target = out.detach() - k
            (out - target).log().mean().backward()
        opt.step()

    def taken(net, opt):
        out = net(torch.randn(4, 4))
        next(iter([(out - out.detach()).log().mean()])).backward()
        opt.step()

    assert caught(overwritten, Net()).unexplained == "micro-batch 0 could not be run again, and the others are finite."
    assert caught(taken, Net()).unexplained.startswith("the lines that lead to the loss could not be run again")


def test_a_closure():
    def run(net, opt):
        for x, y in batches(net):

            def closure(x=x, y=y):
                opt.zero_grad()
                loss = (net(x) - y).abs().log().mean()  # at closure
                loss.backward()
                return loss

            opt.step(closure)

    check(caught(run, Net()), "closure", "(net(x) - y).abs().log()", "log-of-zero")


def test_a_library_calls_backward():
    class Accelerator:
        def backward(self, loss, **kwargs):
            loss = loss / 2
            loss.backward(**kwargs)

    def run(net, opt):
        accelerator = Accelerator()
        for x, y in batches(net):
            opt.zero_grad()
            loss = torch.sqrt((net(x) - y) ** 2).mean()  # at library
            accelerator.backward(loss)
            opt.step()

    check(caught(run, Net()), "library", "torch.sqrt((net(x) - y) ** 2)", "sqrt-grad-at-zero", phase="backward")


def test_a_step_that_updates_by_itself_is_not_repeated():
    """Its lines are run again as far as the update, which is refused: the parameters stay."""

    def everything(model, opt, x, y):
        loss = (model(x) - y).abs().log().mean()  # at everything
        loss.backward()
        opt.step()
        return loss

    def run(net, opt):
        for x, y in batches(net):
            opt.zero_grad()
            loss = everything(net, opt, x, y)
            (loss.detach() + 0 * sum(p.sum() for p in net.parameters())).backward()

    check(caught(run, Net()), "everything", "(model(x) - y).abs().log()", "log-of-zero")


def explained(run):
    """The incident of a run that watches by itself."""
    torch.manual_seed(0)
    with pytest.raises(NonFiniteError) as error:
        run()
    incident = error.value.incident
    assert incident.finding is not None, incident.unexplained
    told = [(e.name, e.index, e.value) for e in incident.suspects.elements]
    return incident.finding.site.text, incident.finding.site.line, incident.finding.cause, incident.suspects.samples, told


def test_two_models_in_turn():
    g, d = nn.Linear(3, 4), nn.Sequential(nn.Linear(4, 1), nn.Sigmoid())
    og, od = torch.optim.SGD(g.parameters(), 1e-3), torch.optim.SGD(d.parameters(), 1e-3)

    def run():
        with whynan.watch([g, d], optimizer=[og, od], folder=None):
            for step in range(BAD_STEP + 1):
                real = torch.randn(8, 4)
                if step == BAD_STEP:
                    real[2] = 1e5 * d[0].weight.detach()[0].sign()
                fake = g(torch.randn(8, 3))
                yes, no = d(real), d(fake.detach())
                loss = -(torch.log(1 - yes) + torch.log(no)).mean()  # at in turn
                od.zero_grad(), loss.backward(), od.step()
                og.zero_grad()
                (-torch.log(d(fake)).mean()).backward()
                og.step()

    assert explained(run)[:4] == ("torch.log(1 - yes)", line_of("in turn"), "log-of-zero", (2,))


def test_a_hidden_state_goes_on():
    class Cell(nn.Module):
        def __init__(self):
            super().__init__()
            self.cell, self.out = nn.GRUCell(4, 6), nn.Linear(6, 1)

        def forward(self, x, h):
            h = self.cell(x, h)
            return self.out(h), h

    net = Cell()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)

    def run():
        h = torch.zeros(8, 6)
        with whynan.watch(net, optimizer=optimizer, folder=None):
            for step in range(BAD_STEP + 1):
                x, weight = torch.randn(8, 4), torch.ones(8, 1)
                weight[4] = step - BAD_STEP
                out, h = net(x, h)
                loss = torch.log((out * weight).abs()).mean()  # at hidden
                optimizer.zero_grad(); loss.backward(); optimizer.step()  # noqa: E702  # three statements in a line
                h = h.detach()

    found = explained(run)
    assert found[:4] == ("torch.log((out * weight).abs())", line_of("hidden"), "log-of-zero", (4,))
    assert found[4] == [("weight", (4, 0), 0.0)]


def test_a_gradient_penalty():
    net = nn.Sequential(nn.Linear(4, 8), nn.Tanh(), nn.Linear(8, 1))
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)

    def run():
        with whynan.watch(net, optimizer=optimizer, folder=None):
            for step in range(BAD_STEP + 1):
                mixed, weight = torch.randn(8, 4).requires_grad_(), torch.ones(8, 1)
                weight[1] = step - BAD_STEP
                score = net(mixed)
                (slope,) = torch.autograd.grad((score * weight).sum(), mixed, create_graph=True)
                penalty = ((slope.pow(2).sum(1).sqrt() - 1) ** 2).mean()  # at penalty
                optimizer.zero_grad()
                (score.mean() + penalty).backward()
                optimizer.step()

    found = explained(run)
    assert found[:4] == ("slope.pow(2).sum(1).sqrt()", line_of("penalty"), "sqrt-grad-at-zero", (1,))
    assert found[4] == [("weight", (1, 0), 0.0)]


SCRIPT = """
import torch
import whynan
from torch import nn


class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.body = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Dropout(0.2))
        self.head = nn.Linear(16, 1)

    def forward(self, x):
        return self.head(self.body(x))


def penalty(model):
    return sum(p.abs().sum() for p in model.parameters())


def train(folder):
    torch.manual_seed(0)
    net, criterion = Net(), nn.MSELoss()
    optimizer = torch.optim.SGD(net.parameters(), 1e-3)
    with whynan.watch(net, optimizer=optimizer, folder=folder):
        for step in range(3):
            x, y, weight = torch.randn(8, 4), torch.randn(8, 1), torch.ones(8, 1)
            weight[3] = step - 2
            optimizer.zero_grad()
            out = net(x)
            loss = criterion(out, y) + 0.1 * penalty(net) + ((out - y) * weight).abs().log().mean()
            loss.backward()
            optimizer.step()
"""


@pytest.mark.slow
def test_the_lines_are_run_again_elsewhere(tmp_path, monkeypatch):
    """The bundle's program has the lines, and fails as the run did; it has not even whynan."""
    (tmp_path / "inline_script.py").write_text(SCRIPT, encoding="utf-8")
    monkeypatch.syspath_prepend(str(tmp_path))
    with pytest.raises(NonFiniteError) as error:
        importlib.import_module("inline_script").train(tmp_path / "incidents")
    folder = error.value.incident.folder
    assert error.value.incident.finding.site.function == "train"
    assert "((out - y) * weight).abs().log().mean()" in (folder / "replay.py").read_text(encoding="utf-8")
    code = tmp_path / "code"
    code.mkdir()
    (code / "inline_script.py").write_text(SCRIPT.replace("import whynan", ""), encoding="utf-8")
    run = subprocess.run(
        [sys.executable, str(folder / "replay.py"), "--code", str(code)], capture_output=True, text=True, timeout=120, cwd=tmp_path
    )
    assert run.returncode == 1, run.stdout + run.stderr
    assert "loss = -inf" in run.stdout
