"""`whynan.huggingface.Watch` in a real Trainer of transformers, and whynan.watch under Accelerate."""

import pytest
import torch
from torch import nn
from torch.utils.data import Dataset

import whynan

transformers = pytest.importorskip("transformers", reason="transformers is not installed")

LINE = "torch.log(p.gather(1, labels[:, None]))"
BAD = 37


class Config(transformers.PretrainedConfig):
    model_type = "tiny"


class Model(transformers.PreTrainedModel):
    """A classifier that computes its own loss, the unstable way."""

    config_class = Config

    def __init__(self, config):
        super().__init__(config)
        self.net = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        with torch.no_grad():
            self.net[2].bias.copy_(torch.tensor([0.0, 0.0]))
        self.post_init()

    def forward(self, x=None, labels=None):
        z = self.net(x)
        p = torch.softmax(z, 1)
        loss = -torch.log(p.gather(1, labels[:, None])).mean()
        return {"loss": loss, "logits": z}


class Rows(Dataset):
    """64 rows; two of them are alike, huge and of different classes, so that one has a probability of 0."""

    def __len__(self):
        return 64

    def __getitem__(self, i):
        x = torch.ones(4) * 1e6 if i in (BAD - 1, BAD) else torch.randn(4, generator=torch.Generator().manual_seed(i))
        return {"x": x, "labels": torch.tensor(i % 2)}


def trained(tmp_path, callback, accumulation=1):
    torch.manual_seed(0)
    arguments = transformers.TrainingArguments(
        str(tmp_path),
        per_device_train_batch_size=8,
        num_train_epochs=1,
        report_to=[],
        disable_tqdm=True,
        use_cpu=True,
        save_strategy="no",
        logging_strategy="no",
        gradient_accumulation_steps=accumulation,
        seed=1,
    )
    model = Model(Config())
    trainer = transformers.Trainer(model, arguments, train_dataset=Rows(), callbacks=[callback])
    trainer.train()
    return model


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("accumulation", [1, 2])
def test_a_bad_step_ends_training_with_the_line_in_the_model_and_the_sample(tmp_path, accumulation):
    from whynan.huggingface import Watch

    with pytest.raises(whynan.NonFiniteError) as caught:
        trained(tmp_path, Watch(folder=None), accumulation)
    incident = caught.value.incident
    assert incident.cause == "log-of-zero"
    assert incident.finding.site.text == LINE
    (sample,) = incident.suspects.samples
    labels = incident.suspects.elements
    assert {e.name: e.value for e in labels if e.index[0] == sample}["x"] == 1e6


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_skip_goes_on_to_the_end(tmp_path):
    from whynan.huggingface import Watch

    callback = Watch(folder=None, policy="skip")
    model = trained(tmp_path, callback)
    assert callback.watch.bad_steps in (1, 2) and callback.watch.step == 8
    assert all(torch.isfinite(p).all() for p in model.parameters())


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_accelerate_prepared_can_be_watched():
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerator = accelerate.Accelerator(cpu=True)
    model = nn.Linear(4, 1)
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 0.1))
    before = [p.clone() for p in model.parameters()]
    with whynan.watch(model, optimizer=optimizer, folder=None):
        loss = torch.log(model(torch.zeros(2, 4)) - model.bias).sum()
        accelerator.backward(loss)
        with pytest.raises(whynan.NonFiniteError) as caught:
            optimizer.step()
    assert caught.value.incident.cause == "log-of-zero"
    assert all(torch.equal(p, q) for p, q in zip(model.parameters(), before, strict=True))


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore")
def test_what_accelerate_accumulates_is_looked_into_by_micro_batch():
    accelerate = pytest.importorskip("accelerate", reason="accelerate is not installed")
    accelerate.state.GradientState._reset_state()  # what the other tests have left
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    model = nn.Linear(3, 1, bias=False)
    nn.init.ones_(model.weight)
    x = torch.rand(4, 4, 3) + 0.1
    x[3, 1] = 0
    model, optimizer = accelerator.prepare(model, torch.optim.SGD(model.parameters(), 1e-3))

    def train():
        for rows in x:
            with accelerator.accumulate(model):
                loss = -torch.log(model(rows)).mean()
                accelerator.backward(loss)
                optimizer.step()
                optimizer.zero_grad()

    with whynan.watch(model, optimizer=optimizer, folder=None), pytest.raises(whynan.NonFiniteError) as caught:
        train()
    incident = caught.value.incident
    assert (incident.step, incident.cause, incident.finding.site.text) == (1, "log-of-zero", "torch.log(model(rows))")
    assert (incident.suspects.call, incident.sample) == (1, 1)
