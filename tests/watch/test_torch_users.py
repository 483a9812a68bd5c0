"""Training code as its users write it: each way of writing it goes bad at a known step, sample and value, and is told so."""

import dataclasses
import math
import random
import runpy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
import torch
from tests.watch.marked import marked
from tests.watch.torch_steps import same, state
from torch import nn
from torch.distributions import Categorical, Normal
from torch.nn import functional as F

import whynan
from whynan.errors import NonFiniteError
from whynan.watching.record import BAD_DATA, OPERATION

BAD_STEP, SAMPLES = 2, 8


def data(step, *shape):
    return torch.randn(*(shape or (SAMPLES, 4)), generator=torch.Generator().manual_seed(step)).abs() + 0.1


class Net(nn.Module):
    """Two layers; their result is positive."""

    def __init__(self):
        super().__init__()
        self.body, self.head = nn.Linear(4, 8), nn.Linear(8, 1)

    def forward(self, x):
        return F.softplus(self.head(torch.tanh(self.body(x))))


@dataclasses.dataclass
class Output:
    prediction: torch.Tensor
    hidden: torch.Tensor


class Structured(Net):
    def forward(self, x):
        h = torch.tanh(self.body(x))  # at a_dataclass
        return Output(self.head(h), h)


class OutputLoss(nn.Module):
    def forward(self, out, y):
        return F.mse_loss(out.prediction, y) + out.hidden.abs().mean()


def a_dataclass():
    """The model returns a dataclass, the batch is a dictionary with a NaN."""
    net, loss = Structured(), OutputLoss()

    def train(step, optimizer):
        batch = {"x": data(step), "y": data(9, SAMPLES, 1)}
        if step == BAD_STEP:
            batch["x"][3, 1] = math.nan
        loss(net(batch["x"]), batch["y"]).backward()
        optimizer.step()

    return net, loss, train


class Tagger(nn.Module):
    def __init__(self):
        super().__init__()
        self.inner, self.out = nn.Linear(4, 4), nn.Linear(4, 3)

    def forward(self, x, mask):
        scores = (self.inner(x) @ x.transpose(1, 2)).masked_fill(~mask[:, None], -math.inf)
        return {"logits": self.out(torch.softmax(scores, -1) @ x)}  # at hidden_by_a_mask


def tagging(out, labels):
    return F.cross_entropy(out["logits"].flatten(0, 1), labels.flatten(), ignore_index=-100)


def hidden_by_a_mask():
    """A row of nothing but padding: the loss leaves its NaN out, its gradient does not."""
    net = Tagger()

    def train(step, optimizer):
        x, mask = data(step, SAMPLES, 5, 4), torch.ones(SAMPLES, 5, dtype=torch.bool)
        mask[6] = step != BAD_STEP
        tagging(net(x, mask=mask), torch.zeros(SAMPLES, 5, dtype=torch.long).masked_fill(~mask, -100)).backward()
        optimizer.step()

    return net, tagging, train


def logarithm_of_the_input():
    """What the model gets is computed where it is called."""
    net, loss = Net(), nn.MSELoss()

    def train(step, optimizer):
        x = data(step)
        if step == BAD_STEP:
            x[3, 1] = 0.0
        out = net(torch.log(x))  # at logarithm_of_the_input
        loss(out, data(9, SAMPLES, 1)).backward()
        optimizer.step()

    return net, loss, train


def prepared_by_a_helper():
    """Features are standardised by a function of the trainer's, and one is constant."""

    class Trainer:
        def __init__(self):
            self.net, self.loss, self.seen = Net(), nn.MSELoss(), []

        def prepare(self, x):
            return (x - x.mean(0)) / x.std(0)  # at prepared_by_a_helper

        def draw(self, step):
            self.seen.append(step)
            x = data(step)
            x[:, 2] = 0.5 if step == BAD_STEP else x[:, 2]
            return x, data(9, SAMPLES, 1)

        def step(self, step, optimizer):
            x, y = self.draw(step)
            inputs = self.prepare(x)
            self.value = self.loss(self.net(inputs), y)
            self.value.backward()
            assert self.seen == list(range(step + 1)), "the data are not drawn again"
            optimizer.step()

    trainer = Trainer()
    return trainer.net, trainer.loss, trainer.step


class ActorCritic(nn.Module):
    def __init__(self):
        super().__init__()
        self.actor, self.critic = nn.Linear(4, 3), nn.Linear(4, 1)
        self.saved = []

    def forward(self, x):
        return F.softmax(self.actor(x), -1), self.critic(x)


def episodes():
    """A graph over several calls of the model, kept in a list of the model's; an episode has one step only."""
    net = ActorCritic()

    def act(observation):
        probabilities, value = net(observation)
        chosen = Categorical(probabilities)
        net.saved.append((chosen.log_prob(chosen.sample()), value))

    def finish(rewards, optimizer):
        losses = []
        rewards = torch.tensor(rewards)
        returns = (rewards - rewards.mean()) / (rewards.std() + 1e-6)  # at episodes
        for (log_probability, value), r in zip(net.saved, returns, strict=True):
            advantage = r - value.item()
            losses.append(-log_probability * advantage + F.smooth_l1_loss(value, r[None]))
        torch.stack(losses).sum().backward()
        optimizer.step()
        del net.saved[:]

    def train(step, optimizer):
        lasts = 1 if step == BAD_STEP else 5
        for observation in data(step, lasts, 4):
            act(observation)
        finish([1.0, 2.0, 0.5, 3.0, 1.0][:lasts], optimizer)

    return net, None, train


def refused_by_cross_entropy():
    """torch's binary cross-entropy raises where it is given NaN."""
    net, loss = nn.Sequential(nn.Linear(4, 1), nn.Sigmoid()), nn.BCELoss()

    def train(step, optimizer):
        x = data(step)
        if step == BAD_STEP:
            x[4, 0] = math.nan
        value = loss(net(x), torch.ones(SAMPLES, 1))  # at refused_by_cross_entropy
        value.backward()
        optimizer.step()

    return net, loss, train


class Gaussian(nn.Module):
    def __init__(self):
        super().__init__()
        self.mean, self.deviation = nn.Linear(4, 2), nn.Parameter(torch.zeros(2))

    def forward(self, x):
        return Normal(self.mean(x), self.deviation.exp())  # at refused_by_a_distribution


def refused_by_a_distribution():
    """torch's distributions raise where a parameter is NaN."""
    net = Gaussian()

    def train(step, optimizer):
        x = data(step)
        if step == BAD_STEP:
            x[1, 3] = math.inf
        (-net(x).log_prob(torch.ones(SAMPLES, 2)).mean()).backward()
        optimizer.step()

    return net, None, train


class Augmenting(Net):
    def forward(self, x):
        order = random.sample(range(4), 3)
        noise = torch.from_numpy(np.random.rand(SAMPLES, 4).astype("float32"))
        seen = torch.log(x - 1e-3 * noise)[:, order]  # at drawn_from_python_and_numpy
        return super().forward(F.pad(seen, (0, 1)))


def drawn_from_python_and_numpy():
    """The model draws from Python's and NumPy's random numbers, and fails for those of this step."""
    net, loss = Augmenting(), nn.MSELoss()
    random.seed(0)
    np.random.seed(0)

    def train(step, optimizer):
        x = data(step)
        if step == BAD_STEP:
            python, numpy = random.getstate(), np.random.get_state()
            order = random.sample(range(4), 3)
            x[2, order[0]] = 1e-3 * torch.from_numpy(np.random.rand(SAMPLES, 4).astype("float32"))[2, order[0]]
            random.setstate(python)
            np.random.set_state(numpy)
        loss(net(x), data(9, SAMPLES, 1)).backward()
        optimizer.step()

    return net, loss, train


def nothing_selected():
    """A mean over no elements: the loss is NaN, and each gradient is zero."""
    net, each = Net(), nn.MSELoss(reduction="none")

    def train(step, optimizer):
        mask = torch.ones(SAMPLES, 1, dtype=torch.bool) & (step != BAD_STEP)
        errors = each(net(data(step)), data(9, SAMPLES, 1))
        errors[mask].mean().backward()  # at nothing_selected
        optimizer.step()

    return net, each, train


def pairs():
    """All distances within a batch that has the same row twice."""
    net = nn.Linear(4, 3)

    def spread(z):
        gaps = (z[:, None] - z[None]).pow(2).sum(-1) + torch.eye(len(z))
        return gaps.sqrt().mean()  # at pairs

    def train(step, optimizer):
        x = data(step)
        x[6] = x[1] if step == BAD_STEP else x[6]
        spread(net(x)).backward()
        optimizer.step()

    return net, spread, train


class Sharpness(torch.optim.Optimizer):
    """Steps at the weights that a step uphill leads to, as optimizers for flat minima do."""

    def __init__(self, parameters, lr):
        super().__init__(parameters, {"lr": lr})
        self.base = torch.optim.SGD(self.param_groups, lr=lr)

    @torch.no_grad()
    def climb(self):
        for p in self.param_groups[0]["params"]:
            self.state[p]["old"] = p.detach().clone()
            p.add_(0.01 * p.grad)
        self.zero_grad()

    @torch.no_grad()
    def descend(self):
        for p in self.param_groups[0]["params"]:
            p.copy_(self.state[p].pop("old"))
        self.base.step()
        self.zero_grad()

    def step(self, closure):
        self.climb()
        with torch.enable_grad():
            closure()
        self.descend()


def nll(p):
    return -torch.log(p).mean()  # at two_steps_by_a_closure, two_steps_by_hand


def _sharp(step_by):
    net = nn.Sequential(nn.Linear(4, 1), nn.ReLU())
    nn.init.constant_(net[0].weight, 1.0)

    def train(step, optimizer):
        x = data(step)
        x[5] = -9.0 if step == BAD_STEP else x[5]

        def closure():
            nll(net(x)).backward()

        closure()
        step_by(optimizer, closure)

    return net, nll, train


def two_steps_by_a_closure():
    """The gradients that such a step begins with are the loop's own."""
    return _sharp(lambda optimizer, closure: optimizer.step(closure))


def two_steps_by_hand():
    """The optimizer's own `step` is never called; that of the one inside is."""

    def by_hand(optimizer, closure):
        optimizer.climb()
        closure()
        optimizer.descend()

    return _sharp(by_hand)


@dataclasses.dataclass(frozen=True)
class Case:
    """A training whose step `BAD_STEP` fails at the marked line.

    `make` returns model, loss (None: it is not watched) and what trains one step. `samples` are those to blame, `value` is one of the
    values told (name, index).
    """

    make: Callable[[], tuple[nn.Module, Any, Callable[[int, Any], None]]]
    text: str
    cause: str
    phase: str = "forward"
    kind: str = OPERATION
    samples: tuple[int, ...] = ()
    value: tuple[str, tuple[int, ...]] | None = None
    failed: str = "loss"
    optimizer: Any = torch.optim.SGD

    @property
    def name(self):
        return self.make.__name__


CASES = (
    Case(a_dataclass, "self.body(x)", "nonfinite-input", kind=BAD_DATA, samples=(3,), value=("x", (3, 1))),
    Case(hidden_by_a_mask, "torch.softmax(scores, -1)", "all-masked-softmax", samples=(6,), failed="gradient"),
    Case(logarithm_of_the_input, "torch.log(x)", "log-of-zero", samples=(3,), value=("x", (3, 1)), failed="gradient"),
    Case(prepared_by_a_helper, "(x - x.mean(0)) / x.std(0)", "zero-variance"),
    Case(episodes, "rewards.std()", "zero-variance", samples=(0,)),
    Case(refused_by_cross_entropy, "net(x)", "nonfinite-input", kind=BAD_DATA, samples=(4,), value=("x", (4, 0))),
    Case(refused_by_a_distribution, "self.mean(x)", "nonfinite-input", kind=BAD_DATA, samples=(1,), value=("x", (1, 3))),
    Case(drawn_from_python_and_numpy, "torch.log(x - 1e-3 * noise)", "log-of-zero", samples=(2,), failed="gradient"),
    Case(nothing_selected, "errors[mask].mean()", "empty-reduction"),
    Case(pairs, "gaps.sqrt()", "sqrt-grad-at-zero", "backward", samples=(1, 6), failed="gradient"),
    Case(two_steps_by_a_closure, "torch.log(p)", "log-of-zero", samples=(5,), optimizer=Sharpness),
    Case(two_steps_by_hand, "torch.log(p)", "log-of-zero", samples=(5,), optimizer=Sharpness),
)


def trained(case, **options):
    """Train until the end or a failure; returns the watch, whether the bad step has changed anything, and the final state."""
    torch.manual_seed(0)
    model, loss, train = case.make()
    optimizer = case.optimizer(model.parameters(), lr=1e-3)
    unchanged = True
    with whynan.watch(model, loss=loss, optimizer=optimizer, **{"folder": None, "policy": "skip", **options}) as watch:
        for step in range(BAD_STEP + 2):
            before = state(model, optimizer)
            optimizer.zero_grad()
            try:
                train(step, optimizer)
            except NonFiniteError:
                assert step == BAD_STEP
            if step == BAD_STEP:
                unchanged = same(before, state(model, optimizer))
    return watch, unchanged


@pytest.mark.parametrize("case", CASES, ids=lambda c: c.name)
def test_what_is_told_of_the_step(case):
    watch, unchanged = trained(case)
    assert unchanged and (watch.bad_steps, len(watch.incidents)) == (1, 1)
    incident = watch.incidents[0]
    finding, suspects = incident.finding, incident.suspects
    assert finding is not None, incident.unexplained
    assert (finding.site.text, finding.site.line) == (case.text, marked(__file__)[case.name])
    assert (finding.cause, finding.phase, incident.kind, incident.failed) == (case.cause, case.phase, case.kind, case.failed)
    assert suspects.samples == case.samples
    assert case.value is None or case.value in [(e.name, e.index) for e in suspects.elements]
    assert str(incident)


REPLAYED = (a_dataclass, hidden_by_a_mask, refused_by_cross_entropy, drawn_from_python_and_numpy, nothing_selected)


@pytest.mark.parametrize("case", [c for c in CASES if c.make in REPLAYED], ids=lambda c: c.name)
def test_the_step_fails_again_by_its_bundle(case, tmp_path):
    watch, _ = trained(case, folder=tmp_path)
    state = random.getstate(), np.random.get_state()
    assert runpy.run_path(str(watch.incidents[0].folder / "replay.py"), run_name="replay")["run"]("cpu")
    random.setstate(state[0])
    np.random.set_state(state[1])


def test_a_buffer_that_the_step_replaces_is_as_before_it():
    class Counting(Net):
        def __init__(self):
            super().__init__()
            self.register_buffer("mean", torch.zeros(4))

        def forward(self, x):
            self.mean = 0.9 * self.mean + 0.1 * x.mean(0)
            return super().forward(x)

    def make():
        net = Counting()

        def train(step, optimizer):
            net(data(step) * (math.nan if step == BAD_STEP else 1)).mean().backward()
            optimizer.step()

        return net, None, train

    watch, unchanged = trained(Case(make, "", ""))
    assert unchanged and watch.bad_steps == 1


def test_an_attribute_that_lines_assign_to_keeps_its_value_when_they_are_run_again():
    class Trainer:
        def __init__(self):
            self.net = Net()

        def step(self, step, optimizer):
            self.value = (self.net(data(step)) - (math.inf if step == BAD_STEP else 0)).mean()
            self.value.backward()
            mine = self.value
            optimizer.step()
            assert self.value is mine

    trainer = Trainer()
    watch, unchanged = trained(Case(lambda: (trainer.net, None, trainer.step), "", ""))
    assert unchanged and watch.incidents[0].finding is not None
