"""Losses composed with a model: which argument is which, what is found, what does not fit."""

from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import whynan
from whynan import binary, classes, cli, prob, real
from whynan.errors import DomainError, TargetError
from whynan.models import compose, goes_with, spread, wire

X = real(4, 5, low=-3, high=3)


def network(*last: nn.Module, outputs: int = 1) -> nn.Sequential:
    """A small network on five features; the same one each time."""
    torch.manual_seed(0)
    return nn.Sequential(nn.Linear(5, 8), nn.ReLU(), nn.Linear(8, outputs), *last)


def bce(p, t):
    q = p.clamp(1e-7, 1 - 1e-7)
    return -(t * torch.log(q) + (1 - t) * torch.log(1 - q)).mean()


def causes(report) -> list[str]:
    """The causes of the contract findings."""
    return [f.cause for f in report.findings if f.kind == "contract"]


# ---------------------------------------------------------------- which argument is which


ARGUMENTS = {
    "torch": ({"input": True, "target": True, "weight": False}, ("input",), "target"),
    "keras": ({"y_true": True, "y_pred": True}, ("y_pred",), "y_true"),
    "optax": ({"logits": True, "labels": True}, ("logits",), "labels"),
    "optional target": ({"logits": True, "labels": False}, ("logits",), "labels"),
    "nothing told": ({"a": True, "b": True}, ("a",), "b"),
    "weighted": ({"p": True, "t": True, "weights": True}, ("p",), "t"),
    "not a target": ({"input": True, "target": True, "label_smoothing": False}, ("input",), "target"),
    "the prediction is called x": ({"x": True, "y": True}, ("x",), "y"),
    "an input and its reconstruction": ({"recon": True, "y": True}, ("recon",), "y"),
}


@pytest.mark.parametrize("case", ARGUMENTS)
def test_the_prediction_is_found_and_the_target_is_called_y(case):
    loss, predictions, target = ARGUMENTS[case]
    w = wire(loss, ["input"], {"x": 1, "y": 1})
    assert w.predictions == predictions and w.model == {"x": "input"}
    assert (w.target, w.loss["y"]) == ("y", target)


def test_names_of_the_users_own_are_kept():
    w = wire({"y_true": True, "y_pred": True}, ["images"], {"images": 1, "y_true": 1})
    assert (w.names, w.target) == (("images", "y_true"), "y_true")


def test_what_model_and_loss_both_take_is_one_input():
    w = wire({"recon_x": True, "x": True, "mu": True, "logvar": True}, ["x"], {"x": 1})
    assert (w.predictions, w.names) == (("recon_x", "mu", "logvar"), ("x",))


def test_a_target_that_was_not_named_is_not_called_y_beside_an_x():
    assert wire({"p": True, "y": True}, ["x"], {"x": 1}).names == ("x", "y_true")


def test_a_loss_of_targets_alone_has_no_place_for_the_output():
    with pytest.raises(TargetError, match="no argument for the model's output"):
        wire({"labels": True}, ["x"], {})


def test_outputs_are_spread_in_order_or_by_name():
    assert spread(1, ["p"]) == {"p": 1}
    assert spread((1, 2, 3), ["p", "mu"]) == {"p": 1, "mu": 2}
    assert spread({"mu": 2, "p": 1}, ["p", "mu"]) == {"p": 1, "mu": 2}
    assert spread({"logits": 1}, ["p"]) == {"p": 1}
    with pytest.raises(TypeError, match="one output, but the loss takes p, mu"):
        spread(1, ["p", "mu"])
    with pytest.raises(TypeError, match="gives a, b by name, but the loss takes p"):
        spread({"a": 1, "b": 2}, ["p", "mu"][:1])


def test_the_composition_computes_the_loss_of_the_outputs():
    model = network()
    both = compose(bce, model, {"x", "y"})
    x, y = torch.randn(4, 5), torch.ones(4, 1)
    assert torch.equal(both.callable(x=x, y=y), bce(model(x), y))
    assert torch.equal(both.callable(x, y), bce(model(x), y))
    assert both.shapes == ((4, 1),)


@pytest.mark.parametrize(("target", "fits"), [(classes(3, 4), True), (classes(2, 4), False), (binary(4, 3), True), (binary(4), False)])
def test_a_target_goes_with_an_output(target, fits):
    assert goes_with(target, (4, 3)) is fits


# ---------------------------------------------------------------- what is found


def test_a_last_layer_without_activation_before_a_loss_of_probabilities():
    report = whynan.check(bce, model=network(), x=real(4, 5, low=-30, high=30), y=binary(4, 1))
    (one,) = [f for f in report.findings if f.kind == "contract"]
    assert (one.cause, one.severity, one.site.text) == ("logits-as-probabilities", "error", "p.clamp(1e-7, 1 - 1e-7)")
    assert not any(g.any() for g in one.witness.gradients.values())
    assert set(report.domain) == {"x", "y", "model.0.weight", "model.0.bias", "model.2.weight", "model.2.bias"}
    assert report.target.endswith("bce of Sequential")


def test_the_range_of_the_outputs_is_computed_through_the_model():
    assert whynan.check(bce, model=network(nn.Sigmoid()), x=X, y=binary(4, 1)).verdict == "safe"
    unsafe = whynan.check(lambda p, t: -torch.log(p).mean(), model=network(nn.ReLU()), x=X, y=binary(4, 1))
    assert unsafe.verdict == "unsafe"
    assert not np.isfinite(unsafe.findings[0].witness.replay().loss)


@pytest.mark.parametrize(
    ("loss", "last", "target"),
    [
        (F.cross_entropy, nn.Softmax(-1), classes(3, 4)),
        (F.binary_cross_entropy_with_logits, nn.Sigmoid(), binary(4, 3)),
    ],
)
def test_an_activation_that_the_loss_applies_again(loss, last, target):
    assert causes(whynan.check(loss, model=network(last, outputs=3), x=X, y=target)) == ["double-softmax"]


@pytest.mark.parametrize(
    ("loss", "last", "target"),
    [
        (F.cross_entropy, nn.Identity(), classes(3, 4)),
        (F.nll_loss, nn.LogSoftmax(-1), classes(3, 4)),
        (F.binary_cross_entropy_with_logits, nn.Identity(), binary(4, 3)),
        (F.binary_cross_entropy, nn.Sigmoid(), binary(4, 3)),
        (nn.MSELoss(), nn.Identity(), real(4, 3)),
    ],
)
def test_models_that_fit_their_loss_are_no_alarm(loss, last, target):
    assert causes(whynan.check(loss, model=network(last, outputs=3), x=X, y=target)) == []


def test_a_model_of_several_outputs_and_a_loss_of_its_input():
    class Autoencoder(nn.Module):
        def __init__(self):
            super().__init__()
            torch.manual_seed(0)
            self.down, self.up = nn.Linear(5, 4), nn.Linear(2, 5)

        def forward(self, x):
            mu, logvar = self.down(x).chunk(2, -1)
            return torch.sigmoid(self.up(mu)), mu, logvar

    def elbo(recon_x, x, mu, logvar):
        return F.binary_cross_entropy(recon_x, x) - 0.5 * (1 + logvar - mu**2 - logvar.exp()).mean()

    report = whynan.check(elbo, model=Autoencoder(), x=prob(4, 5))
    assert report.verdict == "safe" and "x" in report.domain and "mu" not in report.domain


def test_the_model_is_used_as_it_is_and_left_as_it_was():
    model = nn.Sequential(nn.Linear(5, 4), nn.BatchNorm1d(4), nn.Linear(4, 1)).train()
    before = {name: value.clone() for name, value in model.state_dict().items()}
    whynan.check(F.mse_loss, model=model, x=X, y=real(4, 1, low=-1, high=1))
    assert model.training and all(torch.equal(value, before[name]) for name, value in model.state_dict().items())


def test_the_target_is_not_differentiated_by_unless_asked():
    report = whynan.check(F.mse_loss, model=network(), x=X, y=real(4, 1, low=-1, high=1))
    assert (report.domain["y"].grad, report.domain["x"].grad) == (False, True)
    assert whynan.check(F.mse_loss, model=network(), x=X, y=real(4, 1, grad=True)).domain["y"].grad


def test_a_target_that_is_not_given_goes_with_the_output():
    assert str(whynan.check(F.cross_entropy, model=network(outputs=3), x=X).domain["target"]) == "classes(3, 4)"
    assert str(whynan.check(bce, model=network(nn.Sigmoid()), x=X).domain["t"]) == "binary(4, 1)"


def test_arrays_stand_for_their_domains():
    report = whynan.check(F.cross_entropy, model=network(outputs=3), x=np.ones((4, 5), np.float32), y=np.array([0, 1, 2, 1]))
    assert (report.domain["x"].shape, str(report.domain["y"])) == ((4, 5), "classes(3, 4)")


def test_a_decorator_speaks_of_the_arguments_that_are_left():
    @whynan.domains(p=prob(4, 1), t=binary(4, 1))
    def loss(p, t):
        return bce(p, t)

    report = whynan.check(loss, model=network(nn.Sigmoid()), x=X)
    assert "p" not in report.domain and str(report.domain["t"]) == "binary(4, 1)"


# ---------------------------------------------------------------- what does not fit


@pytest.mark.parametrize(
    ("loss", "model", "domains", "said"),
    [
        (bce, network(), {"x": X, "y": binary(7, 3)}, r"the model's output, \(4, 1\), went to the loss as p"),
        (bce, network(), {"x": real(4, 6), "y": binary(4, 1)}, "cannot be multiplied"),
        (bce, 3, {"x": X, "y": binary(4, 1)}, "the model is a int, which cannot be called"),
        (lambda p, q, t: (p - q - t).mean(), network(), {"x": X, "y": binary(4, 1)}, "one output, but the loss takes p, q"),
    ],
)
def test_each_misfit_is_told_in_plain_words(loss, model, domains, said):
    with pytest.raises(TargetError, match=said) as error:
        whynan.check(loss, model=model, **domains)
    assert "model.0.weight" not in str(error.value)


def test_a_name_that_is_neither_the_models_nor_the_losss():
    with pytest.raises(DomainError, match=r"no argument 'q'\. It takes x, t"):
        whynan.check(bce, model=network(), x=X, q=binary(4, 1))


def test_a_model_of_another_framework():
    def loss(p, t):
        return ((p - t) ** 2).mean()

    loss.__module__ = "optax.losses"
    with pytest.raises(TargetError, match="the loss is written in jax, the model in torch"):
        whynan.check(loss, model=network(), x=X, y=binary(4, 1))


# ---------------------------------------------------------------- on the command line


FILES = {
    "losses.py": """
import torch

def bce(p, t):
    q = p.clamp(1e-7, 1 - 1e-7)
    return -(t * torch.log(q) + (1 - t) * torch.log(1 - q)).mean()
""",
    "nets.py": """
import torch

class Net(torch.nn.Module):
    def __init__(self, last=True):
        super().__init__()
        torch.manual_seed(0)
        self.line, self.last = torch.nn.Linear(5, 1), last

    def forward(self, x):
        return torch.sigmoid(self.line(x)) if self.last else self.line(x)
""",
}


@pytest.mark.parametrize(("model", "code"), [("nets.py:Net", 0), ("nets.py:Net(last=False)", 1)])
def test_the_command_line_takes_a_model(tmp_path, monkeypatch, capsys, model, code):
    for name, text in FILES.items():
        Path(tmp_path, name).write_text(text, encoding="utf-8")
    monkeypatch.chdir(tmp_path)
    arguments = ["check", "losses.py:bce", "--model", model, "-d", "x=real(4, 5, low=-30, high=30)", "-d", "y=binary(4, 1)"]
    assert cli.main(arguments) == code
    out = capsys.readouterr().out
    assert f"bce of {model}" in out and ("logits-as-probabilities" in out) == bool(code)
