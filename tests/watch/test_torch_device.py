"""Whole steps on a device that is pretended: what the host waits for, what is mixed, what is told of a bad step. No GPU takes part."""

from collections.abc import Callable, Iterator
from contextlib import nullcontext
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
import torch
from tests.watch.pretended import BENEATH, Device, moved, pretended
from tests.watch.torch_steps import BAD_SAMPLE, batch, log_loss, net, same, watched
from torch import nn

from whynan.watching.torch import calls, notes

STEPS, SETTLED = 11, 9  # steps that are made; from which on the watch takes down several at a time


@pytest.fixture(params=["flags come soon", "flags come late"])
def device(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[Device]:
    monkeypatch.setattr(notes, "SECONDS", float("inf"))
    monkeypatch.setattr(calls, "_BUILT_FOR", (torch.cuda,))
    monkeypatch.setattr(calls, "_DEVICES", ("cpu", BENEATH))
    with pretended(monkeypatch, slow=request.param.endswith("late")) as found:
        yield found


class Convolved(nn.Module):
    """Convolution, batch norm, dropout, linear."""

    def __init__(self) -> None:
        super().__init__()
        self.convolution, self.norm, self.last = nn.Conv1d(1, 4, 2), nn.BatchNorm1d(4), nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        hidden = torch.relu(self.norm(self.convolution(x[:, None])))
        return self.last(nn.functional.dropout(hidden.flatten(1), 0.1, self.training))


class Attending(nn.Module):
    """A transformer's layer over three tokens."""

    def __init__(self) -> None:
        super().__init__()
        self.first = nn.Linear(1, 8)
        self.layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
        self.last = nn.Linear(8, 1)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.last(self.layer(self.first(x[..., None])).mean(1))


MODELS: dict[str, Callable[[], nn.Module]] = {"mlp": net, "cnn": Convolved, "transformer": Attending}
OPTIMIZERS: dict[str, Callable[[Any], torch.optim.Optimizer]] = {
    "fused adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, fused=True),
    "fused sgd": lambda p: torch.optim.SGD(p, lr=1e-3, momentum=0.9, fused=True),
    "fused adamw, rate on the device": lambda p: torch.optim.AdamW(p, lr=torch.tensor(1e-3, device="cuda:0"), fused=True),
    "foreach adamw": lambda p: torch.optim.AdamW(p, lr=1e-3, foreach=True),
    "plain sgd": lambda p: torch.optim.SGD(p, lr=1e-3, foreach=False),
}


@dataclass
class Loop:
    """A training loop on the device. `waited` is what the host has waited for, step by step; `events` of them by an event."""

    device: Device
    model: str
    optimizer: str
    scaled: bool = False
    autocast: bool = False
    micro_batches: int = 1
    clip: float = 0.0
    waited: list[list[str]] = field(default_factory=list)
    events: int = 0

    def __post_init__(self) -> None:
        torch.manual_seed(0)
        self.net = moved(MODELS[self.model]())
        self.steps = OPTIMIZERS[self.optimizer](self.net.parameters())
        self.scaler = torch.amp.GradScaler("cuda", init_scale=256.0, enabled=self.scaled)

    def step(self, number: int, bad: bool = False) -> None:
        data = [[t.to("cuda:0") for t in batch(number, bad and i == 0)] for i in range(self.micro_batches)]
        self.device.waits.clear()
        self.device.events = 0
        self.steps.zero_grad()
        for x, t in data:
            with torch.autocast(BENEATH, dtype=torch.bfloat16) if self.autocast else nullcontext():
                loss = log_loss(self.net(x).float(), t)
            self.scaler.scale(loss).backward()
        if self.clip:
            self.scaler.unscale_(self.steps)
            nn.utils.clip_grad_norm_(self.net.parameters(), self.clip)
        self.scaler.step(self.steps)
        self.scaler.update()
        self.waited.append(list(self.device.waits))
        self.events += self.device.events

    def values(self) -> list[torch.Tensor]:
        state = [v for s in self.steps.state.values() for v in s.values() if isinstance(v, torch.Tensor)]
        return [t.detach().cpu() for t in (*self.net.parameters(), *self.net.buffers(), *state)]


HELD: dict[str, dict[str, Any]] = {
    "mlp": {"model": "mlp", "optimizer": "fused adamw"},
    "cnn": {"model": "cnn", "optimizer": "fused sgd", "clip": 0.01},
    "transformer": {"model": "transformer", "optimizer": "fused adamw", "autocast": True, "micro_batches": 3, "clip": 0.01},
    "rate": {"model": "mlp", "optimizer": "fused adamw, rate on the device"},
}
WAITED_FOR: dict[str, dict[str, Any]] = {
    "mlp": {"model": "mlp", "optimizer": "foreach adamw", "clip": 0.01},
    "cnn": {"model": "cnn", "optimizer": "plain sgd", "micro_batches": 3},
    "transformer": {"model": "transformer", "optimizer": "foreach adamw", "autocast": True},
    "scaled": {"model": "mlp", "optimizer": "foreach adamw", "scaled": True, "autocast": True, "clip": 0.01},
    "scaled and fused": {"model": "cnn", "optimizer": "fused adamw", "scaled": True},
}


def both(device: Device, **options: Any) -> tuple[Loop, Loop]:
    """The loop unwatched and watched, which must come to the same numbers."""
    plain, loop = Loop(device, **options), Loop(device, **options)
    torch.manual_seed(1)
    for number in range(STEPS):
        plain.step(number)
    torch.manual_seed(1)
    with watched(loop.net, loop.steps) as watch:
        for number in range(STEPS):
            loop.step(number)
    assert same(plain.values(), loop.values())
    assert watch.step == STEPS and not watch.bad_steps
    assert all(m.loss > 0 and m.gradient_norm > 0 and m.learning_rates == pytest.approx((1e-3,)) for m in watch.flight)
    assert all((m.clipped_from > 0) == bool(loop.clip) for m in watch.flight)
    return plain, loop


@pytest.mark.parametrize("case", HELD)
def test_with_a_fused_optimizer_nothing_waits_for_the_device(case: str, device: Device) -> None:
    plain, loop = both(device, **HELD[case])
    assert plain.waited == loop.waited == [[]] * STEPS
    assert loop.events == (STEPS - 2 if device.slow else 0), "a slow device is waited for when it is two steps behind"


@pytest.mark.parametrize("case", WAITED_FOR)
@pytest.mark.parametrize("device", ["flags come soon"], indirect=True)
def test_with_others_there_is_one_wait_a_step(case: str, device: Device) -> None:
    plain, loop = both(device, **WAITED_FOR[case])
    for number, (before, now) in enumerate(zip(plain.waited, loop.waited, strict=True)):
        assert len(now) - len(before) == 1 if number >= SETTLED else len(now) - len(before) <= 2, (number, before, now)


@pytest.mark.parametrize("options", [HELD["transformer"], HELD["cnn"], WAITED_FOR["scaled"]], ids=["held", "held, momentum", "waited for"])
def test_a_bad_step_is_explained_and_dropped(options: dict[str, Any], device: Device, tmp_path: Path) -> None:
    loop = Loop(device, **options)
    with watched(loop.net, loop.steps, policy="skip", fixes=False, folder=tmp_path) as watch:
        before = loop.values()
        for number in range(3 if device.slow else 2):
            loop.step(number, bad=number == 0)
    (incident,) = watch.incidents
    assert incident.step == 0 and incident.reproduced and incident.suspects.samples == (BAD_SAMPLE,)
    assert incident.finding is not None and incident.finding.site is not None and "t.log()" in incident.finding.site.text
    assert len(list(tmp_path.glob("*/tensors.safetensors"))) == 1
    if options in HELD.values():
        assert same(loop.values(), before), "what was made before its flag came is dropped with it"
    else:
        assert all(bool(torch.isfinite(t).all()) for t in loop.values())


def test_the_device_is_as_strict_as_a_real_one(device: Device) -> None:
    there, here = torch.ones(2, device="cuda"), torch.ones(2)
    assert str(there.device) == "cuda:0" and same((there + 1.0).cpu(), here + 1)
    for mixed in (lambda: there + here, lambda: torch.cat([there, here]), lambda: torch.stack([there.sum(), here.sum()]), there.numpy):
        with pytest.raises((RuntimeError, TypeError), match="device"):
            mixed()
    for read in (
        there.sum().item,
        there.tolist,
        lambda: bool(there.all()),
        lambda: there.equal(there),
        lambda: there[there > 0],
        there.cpu,
    ):
        device.waits.clear()
        read()
        assert len(device.waits) == 1
    arrived = torch.empty_like(there, device="cpu", pin_memory=True).copy_(there, non_blocking=True)
    event: Any = torch.cuda.Event()
    event.record()
    assert bool(arrived.isnan().all()), "nothing has come yet"
    event.synchronize()
    assert same(arrived, here)
