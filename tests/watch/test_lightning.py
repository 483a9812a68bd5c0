"""`whynan.lightning.Watch` in a real Lightning Trainer."""

import logging

import pytest
import torch
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

import whynan

lightning = pytest.importorskip("lightning.pytorch", reason="Lightning is not installed")

BAD = 37


class Model(lightning.LightningModule):
    """A regression whose second term has no gradient for a row of zeros."""

    def __init__(self):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, 8), nn.BatchNorm1d(8), nn.ReLU(), nn.Linear(8, 1))
        self.logged = 0

    def training_step(self, batch, number):
        x, y = batch
        z = self.net(x).squeeze(1)
        loss = ((z - y) ** 2).mean() + torch.sqrt((x * z[:, None]).abs().sum(1)).mean()
        self.log("loss", loss)
        self.logged += 1
        return {"loss": loss}

    def configure_optimizers(self):
        return torch.optim.Adam(self.parameters(), 1e-2)


def data():
    torch.manual_seed(0)
    x, y = torch.randn(64, 4), torch.randn(64)
    x[BAD] = 0
    return DataLoader(TensorDataset(x, y), 16)


def trained(callback, model):
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    trainer = lightning.Trainer(max_epochs=2, callbacks=[callback], accelerator="cpu", **quiet)
    trainer.fit(model, data())
    return trainer


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_bad_step_ends_fit_before_its_update_with_the_line_and_the_sample():
    from whynan.lightning import Watch

    model, callback = Model(), Watch(folder=None)
    with pytest.raises(whynan.NonFiniteError) as caught:
        trained(callback, model)
    incident = caught.value.incident
    assert incident.step == 2
    assert incident.cause == "sqrt-grad-at-zero"
    assert incident.finding.site.text == "torch.sqrt((x * z[:, None]).abs().sum(1))"
    assert incident.sample == BAD % 16
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("policy", ["skip", "stop"])
def test_the_other_policies_go_through_the_trainer(policy):
    from whynan.lightning import Watch

    model, callback = Model(), Watch(folder=None, policy=policy)
    trainer = trained(callback, model)
    assert callback.watch.bad_steps == (2 if policy == "skip" else 1)
    assert trainer.global_step == (8 if policy == "skip" else 3)
    assert all(torch.isfinite(t).all() for t in model.state_dict().values())
    assert "log" not in model.__dict__ and not model._forward_hooks and not model._forward_pre_hooks


class Rivals(lightning.LightningModule):
    """Two parts with an optimizer each, which the module steps itself."""

    def __init__(self):
        super().__init__()
        self.automatic_optimization = False
        self.makes, self.judges = nn.Linear(4, 4), nn.Linear(4, 1, bias=False)
        nn.init.ones_(self.judges.weight)

    def training_step(self, batch, number):
        first, second = self.optimizers()
        x, _ = batch
        real = torch.sigmoid(self.judges(x))
        loss = -torch.log(real).mean()
        second.zero_grad()
        self.manual_backward(loss)
        second.step()
        first.zero_grad()
        self.manual_backward(self.judges(self.makes(x[:1])).mean())
        first.step()

    def configure_optimizers(self):
        return [torch.optim.SGD(part.parameters(), 1e-3) for part in (self.makes, self.judges)]


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_a_module_that_steps_its_optimizers_itself():
    from whynan.lightning import Watch

    rows = data()
    rows.dataset.tensors[0][BAD] = -1000.0
    logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
    quiet = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False, "enable_model_summary": False}
    model = Rivals()
    with pytest.raises(whynan.NonFiniteError) as caught:
        lightning.Trainer(max_epochs=1, callbacks=[Watch(folder=None)], accelerator="cpu", **quiet).fit(model, rows)
    incident = caught.value.incident
    assert (incident.cause, incident.finding.site.text) == ("log-of-zero", "torch.log(real)")
    assert incident.sample == BAD % 16 and all(torch.isfinite(p).all() for p in model.parameters())


def test_an_option_that_does_not_exist_is_refused_at_once():
    from whynan.lightning import Watch

    with pytest.raises(whynan.WhynanError, match="polcy"):
        Watch(polcy="skip")
