"""What strangers' loops are told: places in their own lines, micro-batches by their numbers, no data or samples called bad that are not."""

import math

import pytest
import torch
from torch import nn
from torch.distributions import Categorical, Normal
from torch.nn import functional as F

import whynan
from whynan.watching.record import BAD_DATA, OPERATION, OVERFLOW
from whynan.watching.words import told


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def parts(*layers):
    """A plain sequence of layers with its optimizer."""
    model = nn.Sequential(*layers)
    return model, torch.optim.SGD(model.parameters(), lr=0.1)


def line_of(text):
    """The number of the line of this file that ends with a mark."""
    with open(__file__, encoding="utf-8") as file:
        return next(i for i, line in enumerate(file, 1) if line.rstrip().endswith(f"# {text}"))


@pytest.mark.parametrize("seed", [0, 12])  # the loss is not finite; the loss is, as relu stops the overflow, and a gradient is not
def test_an_overflow_before_a_cast_of_the_model_s_result_is_not_called_bad_data(seed):
    torch.manual_seed(seed)
    model, optimizer = parts(nn.Linear(3, 4), nn.ReLU(), nn.Linear(4, 1))
    criterion = nn.MSELoss()
    with whynan.watch(model, loss=criterion, optimizer=optimizer, policy="skip", folder=None) as watch:
        for micro in range(4):
            x = torch.ones(5, 3)
            x[3, 1] = 1e30 if micro == 2 else 1
            with torch.autocast("cpu", dtype=torch.float16):
                out = model(x)  # the model's call
                loss = criterion(out.float(), torch.zeros(5, 1)) / 4
            loss.backward()
        optimizer.step()
    incident = watch.incidents[0]
    assert incident.failed == ("gradient" if seed else "loss")
    assert (incident.kind, incident.suspects.samples, incident.suspects.call) == (OVERFLOW, (3,), 2), told(incident)
    assert incident.finding.site.file == __file__ and incident.finding.site.line == line_of("the model's call")


def test_a_value_that_lines_between_model_and_loss_have_made_is_not_called_bad_data():
    model, optimizer = parts(nn.Linear(3, 1))
    criterion = nn.MSELoss()
    with whynan.watch(model, loss=criterion, optimizer=optimizer, policy="skip", folder=None) as watch:
        out = model(torch.ones(4, 3))
        values = iter([out - out.detach()])
        ratio = next(values).log()  # taken from an iterator: cannot be run again
        criterion(ratio, torch.zeros(4, 1)).backward()
        optimizer.step()
    incident = watch.incidents[0]
    assert "bad data" not in told(incident) and "look at what is done between the model and this call" in " ".join(told(incident).split())


@pytest.mark.filterwarnings("error")  # a part of the batch alone does not fit the targets here: torch warns of it
def test_what_is_added_to_the_watched_loss_counts_as_the_loss_and_no_check_of_the_loop_is_advised():
    model, optimizer = parts(nn.Linear(3, 2))
    criterion = nn.MSELoss()

    def train_step():
        out = model(torch.ones(4, 3))
        loss = criterion(out, torch.zeros(4, 2)) + (out - out.detach()).log().mean()
        loss.backward()
        optimizer.step()

    with whynan.watch(model, loss=criterion, optimizer=optimizer, policy="skip", folder=None) as watch:
        train_step()
    incident = watch.incidents[0]
    assert incident.failed == "loss" and not math.isfinite(incident.loss) and incident.in_loop
    assert "whynan check" not in told(incident)


def test_the_headline_of_a_failed_derivative_names_what_was_computed():
    model, optimizer = parts(nn.Linear(3, 2))
    with whynan.watch(model, optimizer=optimizer, policy="skip", folder=None) as watch:
        out = model(torch.ones(4, 3))
        (out - out.detach()).pow(2).sum().sqrt().backward()  # the root
        optimizer.step()
    first = " ".join(told(watch.incidents[0]).split("Nothing was")[0].split())
    assert "div(1, 0) in the derivative of sqrt, " in first and first.endswith(f":{line_of('the root')}")


def test_a_gradient_penalty_is_run_again_with_its_own_interpolation():
    model, optimizer = parts(nn.Linear(3, 4), nn.LeakyReLU(0.2), nn.Linear(4, 1))

    def penalty(real, fake):
        share = torch.rand(real.size(0), 1)
        x = (share * real + (1 - share) * fake).requires_grad_(True)
        slope = torch.autograd.grad(model(x).sum(), x, create_graph=True)[0]
        return ((slope.pow(2).sum(1).sqrt() - 1) ** 2).mean()  # the slope's norm

    with whynan.watch(model, optimizer=optimizer, policy="skip", folder=None) as watch:
        with torch.no_grad():
            model[2].weight.zero_()
        (model(torch.ones(4, 3)).mean() + penalty(torch.ones(4, 3), torch.zeros(4, 3))).backward()
        optimizer.step()
    finding = watch.incidents[0].finding
    assert finding is not None and finding.site.line == line_of("the slope's norm")


def told_of(train_step, *layers, optimizer=torch.optim.SGD, loss=None):
    """The incident of a bad step, which must have changed nothing. `train_step` gets the model and its optimizer."""
    model = nn.Sequential(*layers)
    optimizer = optimizer(model.parameters(), lr=0.01)
    before = [p.detach().clone() for p in model.parameters()]
    with whynan.watch(model, loss=loss, optimizer=optimizer, policy="skip", folder=None) as watch:
        train_step(model, optimizer)
    assert all(torch.equal(a, b) for a, b in zip(before, model.parameters(), strict=True)) and watch.bad_steps == 1
    incident = watch.incidents[0]
    assert incident.finding is not None, incident.unexplained
    return incident


def test_a_weight_that_the_loop_computes_of_the_data_is_followed_to_where_it_fails():
    kept = torch.cat([torch.ones(1), torch.linspace(0.9, 0.1, 9)])  # of the signal, at each time of a diffusion

    def train_step(model, optimizer):
        x, t = torch.randn(6, 3), torch.tensor([3, 1, 4, 2, 0, 5])
        noise = torch.randn_like(x)
        ratio = kept[t] / (1 - kept[t])  # signal to noise
        weight = ratio.clamp(min=1e-3)
        loss = (F.mse_loss(model(x + noise), noise, reduction="none").mean(1) * weight).mean()
        loss.backward()
        optimizer.step()

    incident = told_of(train_step, nn.Linear(3, 3))
    site = incident.finding.site
    assert (site.text, site.line) == ("kept[t] / (1 - kept[t])", line_of("signal to noise"))
    assert incident.suspects.samples == (4,) and incident.kind != BAD_DATA


def test_an_anchor_without_positives_is_named():
    def contrast(features, labels):
        same = (labels[:, None] == labels[None]).float() * (1 - torch.eye(len(labels)))
        similarity = features @ features.T
        logits = similarity - similarity.max(dim=1, keepdim=True).values.detach()
        return -((same * logits.log_softmax(1)).sum(1) / same.sum(1)).mean()  # no positives

    def train_step(model, optimizer):
        labels = torch.tensor([0, 0, 1, 5, 1, 0])
        contrast(F.normalize(model(torch.randn(6, 4)), dim=1), labels).backward()
        optimizer.step()

    incident = told_of(train_step, nn.Linear(4, 3), loss=contrast)
    assert incident.suspects.samples == (3,) and incident.finding.site.line == line_of("no positives")
    assert incident.finding.cause == "zero-over-zero"


def test_what_a_derivative_inside_of_the_loss_fails_at_is_named_with_its_sample():
    points = torch.linspace(0.1, 1, 6)[:, None]
    points[2] = 0.0
    points.requires_grad_(True)

    def residual(model, points):
        u = torch.sqrt(points) * model(points)  # at zero
        first = torch.autograd.grad(u, points, torch.ones_like(u), create_graph=True)[0]
        second = torch.autograd.grad(first, points, torch.ones_like(u), create_graph=True)[0]
        return (second + u).square().mean() + model(torch.zeros(1, 1)).square().mean()

    def train_step(model, optimizer):
        def closure():
            optimizer.zero_grad()
            loss = residual(model, points)
            loss.backward()
            return loss

        optimizer.step(closure)

    incident = told_of(train_step, nn.Linear(1, 8), nn.Tanh(), nn.Linear(8, 1), optimizer=torch.optim.LBFGS)
    finding = incident.finding
    assert (finding.site.line, finding.cause) == (line_of("at zero"), "sqrt-grad-at-zero")
    assert incident.suspects.samples == (2,)


def test_a_flow_whose_value_a_distribution_would_refuse():
    def train_step(model, optimizer):
        x = torch.randn(8, 2)
        x[3] = 4000.0
        s = model(x)
        z = x * torch.exp(s.abs()) * 0 + x  # the scale
        (-Normal(torch.zeros(2), torch.ones(2)).log_prob(z).sum(1) - s.sum(1)).mean().backward()
        optimizer.step()

    incident = told_of(train_step, nn.Linear(2, 2))
    assert (incident.finding.cause, incident.finding.site.line) == ("exp-overflow", line_of("the scale"))
    assert incident.kind == OVERFLOW and incident.suspects.samples == (3,)


def test_a_policy_whose_actions_cannot_be_drawn():
    def train_step(model, optimizer):
        x = torch.randn(5, 4)
        x[2, 1] = math.nan
        policy = Categorical(logits=model(x))  # what it sees
        (-policy.log_prob(policy.sample()) * torch.randn(5)).mean().backward()
        optimizer.step()

    incident = told_of(train_step, nn.Linear(4, 3))
    assert incident.kind == BAD_DATA and incident.suspects.samples == (2,)


def test_a_node_without_neighbours_is_no_channel_s_fault():
    edges = torch.stack([torch.arange(9).roll(1), torch.arange(9)])[:, [0, 1, 2, 3, 5, 6, 7, 8]]

    def train_step(model, optimizer):
        h = model(torch.randn(9, 5))
        degree = torch.zeros(9).scatter_add_(0, edges[1], torch.ones(8))
        out = torch.zeros_like(h).index_add_(0, edges[1], h[edges[0]]) / degree[:, None]  # neighbours
        out.square().mean().backward()
        optimizer.step()

    incident = told_of(train_step, nn.Linear(5, 8))
    assert incident.finding.site.line == line_of("neighbours") and incident.finding.cause == "zero-over-zero"
    assert incident.suspects.samples in ((), (4,))


def test_lines_that_draw_other_numbers_the_second_time_are_not_believed():
    model, optimizer = parts(nn.Linear(2, 1))
    failed = set()
    with whynan.watch(model, optimizer=optimizer, policy="skip", folder=None) as watch:
        out = model.forward(torch.ones(20, 2))  # past the hooks: the random state is not known
        total = torch.zeros(())
        for _ in range(3):
            drawn = (torch.rand(20, 1) > 0.05).float()
            failed |= set((drawn == 0).nonzero()[:, 0].tolist())
            total = total + torch.log(drawn * out.square()).mean()
        total.backward()
        optimizer.step()
    incident = watch.incidents[0]
    assert failed and (incident.finding is None or set(incident.suspects.samples) <= failed)
    assert "gave another value" in incident.unexplained


class Attention(nn.Module):
    """One head over five places, with a mask of 0 and -inf that is added to the scores; `features` takes it for data instead."""

    def __init__(self, features=False):
        super().__init__()
        self.key, self.head, self.features = nn.Linear(4, 4), nn.Linear(5 if features else 4, 1), features

    def forward(self, mask, x):
        if self.features:
            return self.head(mask + x[:, :, 0])
        keys = self.key(x)
        weights = torch.softmax(keys @ keys.transpose(1, 2) + mask[:, None, :], -1)
        return self.head((weights @ keys).mean(1))


_NOTE = "mask has -inf where it masks, which is no failure"


@pytest.mark.parametrize(
    ("which", "kind", "cause", "sample", "element", "note"),
    [
        ("row", OPERATION, "all-masked-softmax", 4, ("mask", (4, 0), -math.inf), ()),
        ("log", OPERATION, "log-of-zero", 2, None, (_NOTE,)),
        ("nan", BAD_DATA, "nonfinite-input", 3, ("mask", (3, 1), math.nan), (_NOTE,)),
        ("x", BAD_DATA, "nonfinite-input", 3, ("x", (3, 1, 2), math.inf), (_NOTE,)),
        ("large", OVERFLOW, "sum-overflow", 3, None, (_NOTE,)),
        ("features", BAD_DATA, "nonfinite-input", None, ("mask", (0, 3), -math.inf), ()),
    ],
)
def test_a_mask_of_infinities_among_the_data_is_not_called_bad_data(which, kind, cause, sample, element, note):
    model = Attention(which == "features")
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    x, t, mask = torch.randn(6, 5, 4), torch.ones(6, 1), torch.zeros(6, 5)
    mask[:, 3:] = -math.inf
    place, index, value = {
        "row": (mask, (4,), -math.inf),
        "log": (t, (2,), 0.0),
        "nan": (mask, (3, 1), math.nan),
        "x": (x, (3, 1, 2), math.inf),
        "large": (x, (3,), 1e25),
        "features": (x, (0,), 0.0),
    }[which]
    place[index] = value

    def loss(p, t):
        return (p - t).square().mean() + t.log().mean()

    with whynan.watch(model, loss=loss, optimizer=optimizer, policy="skip", folder=None, fixes=False) as watch:
        loss(model(mask, x), t).backward()
        optimizer.step()
    incident = watch.incidents[0]
    assert (incident.kind, incident.finding.cause) == (kind, cause), told(incident)
    assert sample is None or incident.suspects.samples == (sample,)
    if element is not None:
        first = incident.suspects.elements[0]
        assert (first.name, first.index, str(first.value)) == (*element[:2], str(element[2]))
    assert incident.notes == note
