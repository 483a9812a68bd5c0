"""The flight record: bounded, and it warns of a run that is about to fail, and of no other."""

import math
import sys

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.trainings import mlp, regression, train

from whynan.watching.flight import FlightRecord, norm_of, short, warning
from whynan.watching.record import Moment


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def warned(moments, memory=200):
    """The warnings that the steps give, with the step after which each came."""
    flight, found = FlightRecord(memory), []
    for m in moments:
        flight.add(m)
        assert warning(flight) == warning(flight)
        found += [(m.step, warning(flight))] if warning(flight) else []
    return found


def norms(values, losses=None):
    return [Moment(i, losses[i] if losses else v, (v,)) for i, v in enumerate(values)]


# ---------------------------------------------------------------- memory


def test_memory_does_not_grow_with_the_run():
    def size(steps):
        flight = FlightRecord(200)
        for i in range(steps):
            flight.add(Moment(i, 1.0 + i, (2.0 + i,), 3.0 + i, 1e-3, (0.1,)))
        kept = (*flight.past, *flight.moments)
        return len(kept), sum(sys.getsizeof(m) + sys.getsizeof(m.gradient_norms) for m in kept)

    assert size(10_000) == size(4_000) == (400, size(4_000)[1])
    assert size(10_000)[1] < 200_000


def test_the_last_steps_and_a_thinned_past():
    flight = FlightRecord(10)
    for i in range(100):
        flight.add(Moment(i))
    assert [m.step for m in flight.moments] == list(range(90, 100))
    assert [m.step for m in flight.past] == [0, 16, 32, 48, 64, 80]


# ---------------------------------------------------------------- a warning before the crash


def test_a_linear_model_with_a_learning_rate_too_high_is_warned_of_once_and_in_time():
    model = mlp(10, 1)
    run = train(model, torch.optim.SGD(model.parameters(), 10.0), 400)
    assert run.failed is not None and len(run.warnings) == 1
    said = run.warnings[0]
    assert "the gradient norm is" in said and "Lower the learning rate (now 10)" in said
    assert int(said.split()[1].strip(":")) <= run.failed.step - 3


@pytest.mark.parametrize("shape", [(10, 1), (10, 32, 1), (10, 64, 64, 1)], ids=str)
def test_a_rate_that_is_raised_a_hundredfold_is_warned_of(shape):
    model = mlp(*shape)
    optimizer = torch.optim.SGD(model.parameters(), 0.02)

    def raised(step):
        if step == 150:
            optimizer.param_groups[0]["lr"] = 2.0

    run = train(model, optimizer, 400, before=raised)
    assert run.failed is not None and len(run.warnings) == 1


@given(st.floats(1.04, 1e4), st.integers(0, 300))
def test_geometric_growth_is_warned_of_once_before_it_overflows(factor, before):
    values = [1.0] * before + [factor**i for i in range(1, int(60 / math.log(factor)))]
    found = warned(norms(values))
    assert len(found) == 1 and found[0][0] > before


def test_each_episode_is_warned_of_once():
    episode = [1.0] * 60 + [8.0**i for i in range(1, 11)]
    assert len(warned(norms(episode))) == 1
    assert len(warned(norms(episode * 3))) == 3


def test_what_was_not_applied_or_not_measured_is_passed_over():
    values = [1.0] * 50 + [8.0**i for i in range(1, 20)]
    assert not warned([Moment(i, v, (v,), outcome="skip") for i, v in enumerate(values)])
    assert not warned([Moment(i, v) for i, v in enumerate(values)])


# ---------------------------------------------------------------- no warning


@pytest.mark.slow
@pytest.mark.parametrize("make", [lambda p: torch.optim.SGD(p, 0.05), lambda p: torch.optim.Adam(p, 1e-2)], ids=["sgd", "adam"])
def test_a_noisy_healthy_run_of_two_thousand_steps(make):
    def data(step):
        x, y = regression(step)
        return x[:4], y[:4] + torch.randn(4, 1)

    model = mlp(10, 16, 1)
    run = train(model, make(model.parameters()), 2000, data=data)
    assert run.failed is None and run.warnings == []


def test_a_plateau():
    def data(step):
        x, _ = regression(step)
        return x, torch.randn(32, 1)

    model = mlp(10, 16, 1)
    assert train(model, torch.optim.SGD(model.parameters(), 0.01), 800, data=data).warnings == []


@pytest.mark.slow
def test_a_loss_with_heavy_tails():
    def data(step):
        x, y = regression(step)
        return x, y + torch.distributions.StudentT(1.1).sample((32, 1))

    model = mlp(10, 1)
    run = train(model, torch.optim.SGD(model.parameters(), 1e-4), 1500, data=data)
    assert run.failed is None and run.warnings == []


def test_a_warm_up_and_a_decay():
    model = mlp(10, 32, 1)
    optimizer = torch.optim.SGD(model.parameters(), 0.0)

    def schedule(step):
        optimizer.param_groups[0]["lr"] = 0.1 * min(step / 100, 1.0) * 0.5 ** (step / 200)

    assert train(model, optimizer, 800, before=schedule).warnings == []


@pytest.mark.slow
def test_a_deep_linear_network_that_leaves_its_saddle():
    model = torch.nn.Sequential(*(torch.nn.Linear(10, 10, bias=False) for _ in range(3)), torch.nn.Linear(10, 1, bias=False))
    for p in model.parameters():
        torch.nn.init.normal_(p, std=0.02)
    run = train(model, torch.optim.SGD(model.parameters(), 0.05), 2000)
    kept = [m.gradient_norm for m in (*run.flight.past, *run.flight.moments)]
    assert run.failed is None and max(kept) > 1000 * kept[0], "the gradient norm did grow a thousandfold"
    assert run.warnings == []


def test_last_layers_that_start_at_zero():
    model = mlp(10, 32, 32, 1)
    torch.nn.init.zeros_(model[-1].weight)
    assert train(model, torch.optim.SGD(model.parameters(), 0.02), 500).warnings == []


healthy = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))


@given(healthy, st.floats(0.0, 2.0))
def test_noise_is_not_warned_of(rng, sigma):
    values, losses = torch.exp(sigma * torch.randn(2, 600, generator=rng)).tolist()
    assert not warned(norms(values, losses))


@given(healthy, st.floats(0.5, 3.0))
def test_heavy_tails_are_not_warned_of(rng, alpha):
    values = (torch.rand(600, generator=rng).clamp(min=1e-9) ** (-1 / alpha)).tolist()
    assert not warned(norms(values))


@given(healthy, st.integers(1, 4), st.floats(10.0, 1e12))
def test_a_spike_that_comes_at_once_is_not_warned_of(rng, length, height):
    values = torch.exp(0.3 * torch.randn(300, generator=rng))
    values[200 : 200 + length] *= height
    assert not warned(norms(values.tolist()))


def test_two_optimizers_with_very_different_gradients():
    steps = [Moment(i, 0.7, (1e6 if i % 2 else 1e-3,), optimizer=i % 2) for i in range(600)]
    assert not warned(steps)


def test_a_norm_that_falls():
    assert not warned(norms([0.9**i for i in range(500)]))


# ---------------------------------------------------------------- the trap of clipping


def huge(step):
    """A batch whose gradients are finite and about 1e21 from step 50 to 59."""
    x, y = regression(step)
    return x, y * (1e23 if 50 <= step < 60 else 1.0)


def absolute(p, y):
    return (p * y / 100).abs().mean()


def test_finite_gradients_that_clipping_sets_to_zero_are_warned_of_once():
    model = torch.nn.Linear(10, 1)
    run = train(model, torch.optim.SGD(model.parameters(), 0.0), 80, data=huge, loss=absolute, clip=1.0)
    emptied = [m for m in run.flight.moments if m.clipped_from == math.inf]
    assert [m.step for m in emptied] == list(range(50, 60)) and all(m.gradient_norms == (0.0,) for m in emptied), "PyTorch does so"
    assert len(run.warnings) == 1 and "clipping by norm has set all gradients to zero" in run.warnings[0] and "step 50" in run.warnings[0]


def test_a_norm_that_overflows_without_clipping():
    steps = norms([1.0] * 30) + [Moment(30 + i, 1.0, (math.inf,)) for i in range(5)]
    (found,) = warned(steps)
    assert found[0] == 30 and "their norm overflows to inf" in found[1]


def test_zeros_right_after_a_climb_are_what_an_unseen_clipping_leaves():
    values = [1.0] * 50 + [8.0**i for i in range(1, 12)] + [0.0] * 5
    assert [step for step, said in warned(norms(values, [float(i) for i in range(66)])) if "set all gradients to zero" in said] == [61]


def test_gradients_that_are_zero_for_other_reasons():
    assert not warned(norms([1.0] * 20 + [0.0] * 20 + [1.0] * 20))


# ---------------------------------------------------------------- words


def test_the_norm_before_clipping_counts():
    assert norm_of(Moment(0, gradient_norms=(3.0, 4.0))) == 5.0
    assert norm_of(Moment(0, gradient_norms=(3.0, 4.0), clipped_from=50.0)) == 50.0
    assert math.isnan(norm_of(Moment(0)))


@pytest.mark.parametrize(
    ("x", "text"),
    [(0.0, "0"), (0.0123, "0.012"), (1.0, "1.0"), (12.3, "12"), (1234.0, "1,200"), (3.4e8, "3.4e+08"), (1e-5, "1e-05"), (math.inf, "inf")],
)
def test_numbers_have_two_digits(x, text):
    assert short(x) == text
