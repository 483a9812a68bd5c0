"""The flight record of a watched PyTorch run: what the watcher measures, and what comes of it."""

import logging
import math
from itertools import pairwise

import pytest
import torch
from tests.watch.trainings import mlp, regression

import whynan
from whynan.errors import NonFiniteError
from whynan.watching.record import DIVERGENCE


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def run(model, optimizer, steps, data=regression, loss=torch.nn.functional.mse_loss, clip=None, **options):
    """Train a watched model; the watch and the error that ended it, if one did."""
    with whynan.watch(model, loss=loss, optimizer=optimizer, folder=None, **options) as watch:
        try:
            for step in range(steps):
                x, y = data(step)
                optimizer.zero_grad()
                loss(model(x), y).backward()
                if clip is not None:
                    torch.nn.utils.clip_grad_norm_(model.parameters(), clip)
                optimizer.step()
        except NonFiniteError as error:
            return watch, error
        return watch, None


@pytest.mark.parametrize("shape", [(10, 1), (10, 32, 1)], ids=str)
@pytest.mark.parametrize("rate", [3.0, 100.0, 1e15])
def test_a_learning_rate_too_high_is_a_divergence_and_not_blamed_on_an_operation(rate, shape):
    model = mlp(*shape)
    watch, error = run(model, torch.optim.SGD(model.parameters(), rate), 400)
    incident = error.incident
    assert incident.kind == DIVERGENCE and incident.cause == "divergence"
    assert incident.finding.site is None and incident.finding.op == "" and incident.layer == "" and incident.sample is None
    assert any("lower the learning rate to about" in a for a in incident.advice)
    assert all(p.isfinite().all() for p in model.parameters()), "the failing update was not applied"
    assert incident.moments[-1].step == incident.step == watch.step - 1


def test_it_is_warned_of_before_the_crash(caplog):
    model = mlp(10, 1)
    with caplog.at_level(logging.WARNING, "whynan.watch"):
        watch, error = run(model, torch.optim.SGD(model.parameters(), 10.0), 400, policy="skip", patience=2)
    assert error is not None
    first = caplog.records[0].getMessage()
    assert "the gradient norm is" in first and int(first.split()[1].strip(":")) < watch.incidents[0].step - 2


def test_a_rate_raised_after_a_healthy_time_has_its_quantile_and_its_step():
    model = mlp(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.02)

    def data(step):
        if step == 100:
            optimizer.param_groups[0]["lr"] = 2.0
        return regression(step)

    _, error = run(model, optimizer, 400, data)
    said = " ".join(error.incident.advice)
    assert error.incident.kind == DIVERGENCE
    assert "from step 100 on it was 2.0" in said and "clip the gradients to a norm of" in said


def test_a_sudden_fault_after_a_healthy_time_is_none():
    def data(step):
        x, y = regression(step)
        y[5] = -100 if step == 60 else y[5]
        return x, y

    def loss(p, y):
        q = torch.sigmoid(p) * (y > -50)
        return -torch.log(q).mean() + (p - y).square().mean()

    model = mlp(10, 16, 1)
    _, error = run(model, torch.optim.SGD(model.parameters(), 0.05), 100, data, loss)
    assert error.incident.step == 60 and error.incident.sample == 5
    assert error.incident.kind != DIVERGENCE and error.incident.cause == "log-of-zero"


def test_what_is_measured():
    model = mlp(10, 16, 1)
    watch, _ = run(model, torch.optim.SGD(model.parameters(), 0.05), 50, clip=0.5)
    assert [m.step for m in watch.flight] == list(range(50))
    assert all(m.gradient_norm <= 0.5001 < m.clipped_from or m.clipped_from <= 0.5 for m in watch.flight)
    assert all(m.learning_rates == (0.05,) and math.isfinite(m.loss) for m in watch.flight)
    norms = [m.parameter_norm for m in watch.flight if not math.isnan(m.parameter_norm)]
    assert len(norms) >= 50 // 8 and all(1 < n < 10 for n in norms)


@pytest.mark.parametrize(("width", "exactly"), [(16, True), (600, False)], ids=["all of it", "a part of it"])
def test_how_far_an_update_has_moved_the_parameters(width, exactly):
    model = mlp(10, width, 1)
    watch, _ = run(model, torch.optim.SGD(model.parameters(), 0.05), 30)
    known = [(m, after) for m, after in pairwise(watch.flight) if not math.isnan(after.update_ratio)]
    assert len(known) >= 8 and all(m.parameter_norm > 0 for m, _ in known)
    for m, after in known:
        ratio = 0.05 * m.gradient_norm / m.parameter_norm
        assert after.update_ratio == pytest.approx(ratio, rel=1e-3 if exactly else 0.9)


def test_a_dropped_update_has_moved_nothing():
    def data(step):
        x, y = regression(step)
        return x, y * (math.nan if step == 3 else 1)

    model = mlp(10, 16, 1)
    watch, _ = run(model, torch.optim.SGD(model.parameters(), 0.05), 6, data, policy="skip")
    ratios = [m.update_ratio for m in watch.flight]
    assert [math.isnan(r) for r in ratios] == [True, False, False, False, True, False]


def test_gradients_that_clipping_sets_to_zero_are_warned_of(caplog):
    def data(step):
        x, y = regression(step)
        return x, y * (1e23 if step == 30 else 1.0)

    model = torch.nn.Linear(10, 1)
    with caplog.at_level(logging.WARNING, "whynan.watch"):
        watch, _ = run(model, torch.optim.SGD(model.parameters(), 1e-6), 40, data, lambda p, y: (p * y / 100).abs().mean(), clip=1.0)
    assert watch.incidents == [] and [r for r in caplog.messages if "step 30: clipping by norm has set all gradients to zero" in r]


def test_an_optimizer_that_always_fails_beside_one_that_does_not_is_not_borne_for_ever():
    a, b = torch.nn.Linear(10, 1), torch.nn.Linear(10, 1)
    first, second = torch.optim.SGD(a.parameters(), 0.01), torch.optim.SGD(b.parameters(), 0.01)
    before = {k: v.clone() for k, v in b.state_dict().items()}
    with whynan.watch([a, b], optimizer=[first, second], folder=None, policy="skip", patience=3) as watch:

        def turns():
            for step in range(20):
                x, y = regression(step)
                first.zero_grad()
                (a(x) - y).square().mean().backward()
                first.step()
                second.zero_grad()
                (b(x) * math.nan).mean().backward()
                second.step()

        with pytest.raises(NonFiniteError) as raised:
            turns()
    assert raised.value.in_a_row == 3 and watch.bad_steps == 3
    assert {m.optimizer for m in watch.flight} == {0, 1}
    assert all(torch.equal(v, before[k]) for k, v in b.state_dict().items())
