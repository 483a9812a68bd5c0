"""What strangers' loops are told: places in their own lines, micro-batches by their numbers, and no data called bad that are not."""

import math

import pytest
import torch
from torch import nn

import whynan
from whynan.watching.record import OVERFLOW
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
