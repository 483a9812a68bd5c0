"""What the flight record suggests: sentences with numbers that would have helped."""

import math
import re

import pytest
import torch
from tests.watch.trainings import mlp, regression, train

from whynan.watching.advice import advice_from
from whynan.watching.divergence import as_divergence, diverged
from whynan.watching.flight import FlightRecord
from whynan.watching.record import BAD_DATA, DIVERGENCE, OPERATION, OVERFLOW, Incident, Moment


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def incident(kind=OVERFLOW, failed="loss", framework="torch", parameters=()):
    return Incident(0, "", framework, "2", failed, math.inf, None, kind, parameters=parameters)


def advice(flight, failed, found=None):
    found = as_divergence(found or incident(), diverged(flight, failed))
    return advice_from(flight, failed, found)


def recorded(moments):
    flight = FlightRecord(200)
    for m in moments:
        flight.add(m)
    return flight


# ---------------------------------------------------------------- divergence


@pytest.mark.slow
@pytest.mark.parametrize("shape", [(10, 1), (10, 32, 1), (10, 64, 64, 1)], ids=str)
@pytest.mark.parametrize("rate", [1.0, 10.0, 1000.0])
def test_the_proposed_learning_rate_trains(rate, shape):
    model = mlp(*shape)
    start = {k: v.clone() for k, v in model.state_dict().items()}
    run = train(model, torch.optim.SGD(model.parameters(), rate), 400)
    (said,) = [a for a in advice(run.flight, run.failed) if "learning rate to about" in a]
    proposed = float(re.search(r"to about (\S+):", said)[1])
    assert proposed < rate
    model.load_state_dict(start)
    again = train(model, torch.optim.SGD(model.parameters(), proposed), 200, memory=500)
    assert again.failed is None
    assert again.flight.moments[-1].loss < 0.9 * again.flight.moments[0].loss


def test_a_rate_that_was_raised_is_named_with_its_step():
    model = mlp(10, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.02)

    def raised(step):
        if step == 150:
            optimizer.param_groups[0]["lr"] = 2.0

    run = train(model, optimizer, 400, before=raised)
    said = " ".join(advice(run.flight, run.failed))
    assert "with 0.020 the steps were healthy, from step 150 on it was 2.0" in said
    assert "warm-up" not in said


def test_a_warm_up_for_a_divergence_in_the_first_steps():
    model = mlp(10, 1)
    run = train(model, torch.optim.SGD(model.parameters(), 10.0), 400)
    assert any("a warm-up" in a for a in advice(run.flight, run.failed))


@pytest.mark.parametrize(
    ("framework", "call"), [("torch", "clip_grad_norm_"), ("keras", "global_clipnorm"), ("jax", "clip_by_global_norm"), ("", "norm of")]
)
def test_the_clipping_norm_is_a_quantile_of_the_healthy_steps(framework, call):
    healthy = [Moment(i, 1.0, (1.0 + i % 100 / 100,), 3.0) for i in range(100)]
    grown = [Moment(100 + i, 10.0 ** (4 * i), (10.0 ** (2 * i),), 3 * 10.0 ** (2 * i)) for i in range(1, 6)]
    failed = Moment(106, math.inf, (math.nan,), 3e12)
    (said,) = [a for a in advice(recorded([*healthy, *grown]), failed, incident(framework=framework)) if "clip" in a]
    assert "to a norm of 1.9" in said and "95% had a smaller one" in said and call in said


def test_where_gradients_are_clipped_already_no_norm_is_proposed():
    healthy = [Moment(i, 1.0, (1.0,), 3.0, clipped_from=4.0) for i in range(100)]
    grown = [Moment(100 + i, 10.0 ** (4 * i), (1.0,), 3 * 10.0 ** (2 * i), clipped_from=10.0 ** (2 * i)) for i in range(1, 6)]
    said = advice(recorded([*healthy, *grown]), Moment(106, math.inf, (math.nan,), 3e12))
    assert any("clipped already" in a for a in said) and not any("to a norm of" in a for a in said)


def test_few_healthy_steps_give_no_quantile():
    grown = [Moment(i, 10.0 ** (4 * i), (10.0 ** (2 * i),), 3 * 10.0 ** (2 * i)) for i in range(6)]
    said = advice(recorded(grown), Moment(6, math.inf, (math.nan,), 3e12))
    assert said and not any("to a norm of" in a for a in said)


# ---------------------------------------------------------------- a sudden fault


def test_a_sudden_fault_of_an_operation_needs_nothing_from_the_flight_record():
    flight = recorded(Moment(i, 1.0, (1.0,), 3.0) for i in range(100))
    assert advice(flight, Moment(100, math.inf, (math.nan,), 3.0), incident(OPERATION)) == ()


def test_the_batch_that_blew_up_the_parameters_one_step_before_is_named():
    def data(step):
        x, y = regression(step)
        return (torch.cat([x[:1] * 1e12, x[1:]]) if step == 61 else x), y

    model = mlp(10, 32, 1)
    run = train(model, torch.optim.SGD(model.parameters(), 0.05), 100, data=data)
    (said,) = advice(run.flight, run.failed)
    assert "look at step 61, 1 step before this one" in said and "the parameters were as before" in said
    assert advice(run.flight, run.failed, incident(BAD_DATA)) == ()


def test_clipping_makes_all_gradients_nan_and_the_first_to_fail_is_named():
    model = mlp(10, 16, 1)

    class Wrong(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x.clone()

        @staticmethod
        def backward(ctx, g):
            return g

    def loss(p, y):
        return torch.nn.functional.mse_loss(p, y)

    seen = []

    def planted(grad):
        seen.append(grad)
        return torch.full_like(grad, math.nan) if len(seen) == 30 else grad

    model[0].bias.register_hook(planted)
    run = train(model, torch.optim.SGD(model.parameters(), 0.05), 60, loss=loss, clip=1.0)
    assert run.failed is not None and all(p.grad.isnan().all() for p in model.parameters()), "PyTorch does so"
    (said,) = advice(run.flight, run.failed, incident(OPERATION, "gradient", parameters=("0.bias",)))
    assert "one NaN makes all of them NaN" in said and "0.bias" in said and "error_if_nonfinite" in said


def test_a_gradient_that_fails_without_clipping_says_nothing_of_it():
    flight = recorded(Moment(i, 1.0, (1.0,), 3.0) for i in range(100))
    assert advice(flight, Moment(100, 1.0, (math.nan,), 3.0), incident(OPERATION, "gradient")) == ()


def test_a_scale_that_collapses():
    scales = [65536.0] * 50 + [65536.0 / 2**i for i in range(1, 14)]
    flight = recorded(Moment(i, 1.0, (1.0,), 3.0, scale=s) for i, s in enumerate(scales))
    (said,) = advice(flight, Moment(63, 1.0, scale=4.0), incident(OVERFLOW, "scale"))
    assert "fell from 66,000 to 4.0 since step 0" in said and "bfloat16" in said


def test_an_ordinary_scale_says_nothing():
    flight = recorded(Moment(i, 1.0, (1.0,), 3.0, scale=65536.0 / 2 ** (i % 3)) for i in range(60))
    assert advice(flight, Moment(60, math.inf, scale=16384.0), incident(OPERATION)) == ()


def test_an_empty_record():
    for kind in (OPERATION, OVERFLOW, DIVERGENCE, BAD_DATA):
        advice_from(FlightRecord(5), Moment(0, math.nan), incident(kind))
