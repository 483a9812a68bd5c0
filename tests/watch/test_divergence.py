"""A divergence is told from a sudden fault: real trainings of both kinds, and series made by chance."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tests.watch.trainings import mlp, regression, train

from whynan.analysis.finding import ERROR, Finding
from whynan.ir.where import Site
from whynan.watching.divergence import as_divergence, diverged, outlier
from whynan.watching.flight import FlightRecord
from whynan.watching.record import BAD_DATA, BAD_STATE, CUSTOM_BACKWARD, DIVERGENCE, OVERFLOW, Incident, Moment

SHAPES = ((10, 1), (10, 32, 1), (10, 64, 64, 1), (10, 32, 32, 32, 1))


@pytest.fixture(autouse=True)
def _seed():
    torch.manual_seed(0)


def recorded(moments, memory=200):
    flight = FlightRecord(memory)
    for m in moments:
        flight.add(m)
    return flight


def series(values, parameters=None):
    """A flight whose losses and gradient norms are the same numbers."""
    return recorded(Moment(i, v, (v,), parameters[i] if parameters else math.nan) for i, v in enumerate(values))


# ---------------------------------------------------------------- divergence


@pytest.mark.parametrize("every", [1, 8], ids=["norms each step", "norms every eighth"])
@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("rate", [1.0, 10.0, 100.0, 1e4, 1e8, 1e15])
def test_a_learning_rate_that_is_too_high_from_the_start(rate, shape, every):
    model = mlp(*shape)
    run = train(model, torch.optim.SGD(model.parameters(), rate), 400, parameters_every=every)
    assert run.failed is not None
    assert "grew" in diverged(run.flight, run.failed)


@pytest.mark.parametrize("rate", [1.0, 3.0, 10.0, 100.0])
def test_a_linear_model_is_seen_to_diverge_without_the_norm_of_its_parameters(rate):
    model = mlp(10, 1)
    run = train(model, torch.optim.SGD(model.parameters(), rate), 400, parameters_every=0)
    reason = diverged(run.flight, run.failed)
    assert "the loss from" in reason and "the gradient norm from" in reason


@pytest.mark.parametrize("shape", SHAPES[:3], ids=str)
def test_a_learning_rate_that_is_raised_a_hundredfold_after_a_healthy_time(shape):
    model = mlp(*shape)
    optimizer = torch.optim.SGD(model.parameters(), 0.02)

    def raised(step):
        if step == 150:
            optimizer.param_groups[0]["lr"] = 2.0

    run = train(model, optimizer, 400, before=raised)
    assert run.failed is not None and run.failed.step > 150
    assert diverged(run.flight, run.failed)


def test_momentum_with_a_rate_too_high():
    model = mlp(10, 32, 1)
    run = train(model, torch.optim.SGD(model.parameters(), 0.5, momentum=0.9), 400)
    assert diverged(run.flight, run.failed)


def test_the_reason_names_numbers_and_steps():
    flight = series([1.0] * 50 + [20.0, 5e3, 7e7, 2e14], [3.0] * 51 + [90.0, 5e4, 1e9])
    reason = diverged(flight, Moment(54, math.inf, (math.nan,), 6e18))
    assert reason == (
        "the loss from 1.0 to 2e+14, the gradient norm from 1.0 to 2e+14 and the norm of the parameters from 3.0 to 6e+18 "
        "grew over 5 updates (steps 49 to 54)"
    )


def test_growth_by_a_twentieth_a_step_is_seen_beyond_the_ring():
    model_of_growth = [1.05**i for i in range(1500)]
    flight = series(model_of_growth, [math.sqrt(v) for v in model_of_growth])
    assert diverged(flight, Moment(1500, math.inf, (math.nan,), 1e20))


def test_an_exploding_gradient_with_a_level_loss():
    flight = recorded(Moment(i, 2.0 + 0.001 * i, (max(1.0, 100.0 ** (i - 40)),), 5.0) for i in range(50))
    assert "gradient norm" in diverged(flight, Moment(50, 2.05, (math.inf,), 5.0))


def test_growth_goes_on_where_squares_no_longer_tell_the_parameters_apart():
    """A momentum of 1e22 hides how the parameters move, and the loss goes on growing a thousandfold in each step."""
    losses, norms = [4.7, 310.0, 1e5, 1.9e8, 1.7e11, 2.6e14, 4.4e17, 5.1e20, 5.2e23], [26.0, 1.5e3, 5e4, 1e7, 1e9, 1e12]
    flight = series(losses + [3.3e26, 1.5e29, 1.3e32, 2.9e35], norms + [2.9e19] * 7)
    assert "grew" in diverged(flight, Moment(13, math.inf, (math.nan,), 3.1e19))


def test_parameters_that_grow_unseen_by_the_loss():
    flight = recorded(Moment(i, 1.0, (1e-3,), 10.0 * 8.0**i) for i in range(12))
    assert "norm of the parameters" in diverged(flight, Moment(12, math.nan, (math.nan,), 1e12))


def test_one_update_that_blows_everything_up():
    assert "in one update" in diverged(recorded([Moment(0, 1.0, (2.0,), 3.0)]), Moment(1, math.inf, (math.nan,), 3e15))


def test_each_of_two_optimizers_has_its_own_series():
    steps = []
    for i in range(120):  # the generator diverges, the discriminator does not
        grown = 10.0 ** max(0, (i - 100) // 2 * 2)
        steps.append(Moment(i, 0.7, (1.0,), 5.0, optimizer=0) if i % 2 else Moment(i, grown, (grown,), 3 * grown, optimizer=1))
    flight = recorded(steps)
    assert diverged(flight, Moment(120, math.inf, (math.nan,), 1e25, optimizer=1))
    assert not diverged(flight, Moment(121, math.nan, (math.nan,), 5.0, optimizer=0))


# ---------------------------------------------------------------- sudden faults


@pytest.mark.parametrize("every", [0, 1, 8])
@pytest.mark.parametrize("at", [0, 1, 2, 3, 10, 150])
def test_a_sudden_log_of_zero_is_none(at, every):
    model, step = mlp(10, 32, 1), iter(range(1000))

    def loss(p, y):
        q = torch.sigmoid(p) * (next(step) != at)
        return -torch.log(q).mean() + torch.nn.functional.mse_loss(p, y)

    run = train(model, torch.optim.SGD(model.parameters(), 0.05), 200, loss=loss, parameters_every=every)
    assert run.failed is not None and run.failed.step == at
    assert diverged(run.flight, run.failed) == ""


@pytest.mark.parametrize("value", [math.nan, math.inf, 1e25])
def test_a_bad_row_in_the_failing_batch_is_none(value):
    def data(step):
        x, y = regression(step)
        x[3, 2] = value if step == 60 else x[3, 2]
        return x, y

    model = mlp(10, 32, 1)
    run = train(model, torch.optim.SGD(model.parameters(), 0.05), 100, data=data)
    assert run.failed is not None and run.failed.step == 60
    assert diverged(run.flight, run.failed) == ""


@pytest.mark.parametrize("every", [0, 1, 8])
@pytest.mark.parametrize("factor", [1e10, 1e15])
@pytest.mark.parametrize("shape", [(10, 32, 1), (10, 64, 64, 1)], ids=str)
def test_a_finite_bad_row_one_step_before_is_none_but_is_pointed_out(shape, factor, every):
    def data(step):
        x, y = regression(step)
        return (torch.cat([x[:1] * factor, x[1:]]) if step == 61 else x), y

    model = mlp(*shape)
    run = train(model, torch.optim.SGD(model.parameters(), 0.05), 100, data=data, parameters_every=every)
    assert run.failed is not None and run.failed.step == 62
    assert diverged(run.flight, run.failed) == ""
    found = outlier(run.flight, run.failed)
    assert found is not None and found.step == 61


def test_a_gradient_scaler_that_doubles_its_scale_is_none():
    scaled = recorded(Moment(i, 1.0, (2.0**i,), 5.0, scale=2.0**i) for i in range(60))
    assert diverged(scaled, Moment(60, 1.0, (math.inf,), 5.0, scale=2.0**60)) == ""


def test_a_loss_that_also_carries_the_scale_is_none():
    scaled = recorded(Moment(i, 2.0**i, (2.0**i,), 5.0, scale=2.0**i) for i in range(60))
    assert diverged(scaled, Moment(60, math.inf, (math.inf,), 5.0, scale=2.0**60)) == ""


def test_leaving_a_saddle_is_none():
    flight = recorded(Moment(i, 1.0 - 1e-4 * i, (1e-6 * 1.2**i,), 1e-3 * 1.1**i) for i in range(80))
    assert diverged(flight, Moment(80, math.inf, (math.nan,), 1e-3 * 1.1**80)) == ""


def test_parameters_that_start_at_zero_are_none():
    flight = recorded(Moment(i, 1 / (i + 1), (1.0,), 0.01 * i) for i in range(100))
    assert diverged(flight, Moment(100, math.nan, (math.nan,), 1.0)) == ""


def test_a_spike_that_has_recovered_is_none():
    spike = [1.0] * 50 + [1e3, 1e6, 1e9, 1e6, 1e3, 1.0, 1.0, 1.0]
    assert diverged(series(spike), Moment(58, math.inf, (math.nan,))) == ""


def test_rollbacks_begin_the_record_anew():
    grown = [Moment(i, 10.0**i, (10.0**i,), 3 * 10.0**i) for i in range(20)]
    back = [Moment(20, math.inf, (math.nan,), outcome="rollback"), *(Moment(21 + i, 1.0, (1.0,), 3.0) for i in range(5))]
    assert diverged(recorded([*grown, *back]), Moment(26, math.nan, (math.nan,), 3.0)) == ""
    again = [Moment(26 + i, 10.0 ** (3 * i), (10.0 ** (3 * i),), 3 * 10.0 ** (3 * i)) for i in range(5)]
    assert diverged(recorded([*grown, *back, *again]), Moment(31, math.inf, (math.nan,), 1e20))


def test_nothing_on_record():
    assert diverged(FlightRecord(10), Moment(0, math.nan, (math.nan,), 1.0)) == ""
    assert outlier(FlightRecord(10), Moment(0, math.nan)) is None


# ---------------------------------------------------------------- series made by chance

healthy = st.integers(0, 2**32 - 1).map(lambda seed: torch.Generator().manual_seed(seed))
spread = st.floats(0.0, 2.0)


@given(healthy, spread, st.integers(3, 300), st.sampled_from([math.nan, 5.0]))
def test_noise_is_never_a_divergence(rng, sigma, n, norm):
    losses = torch.exp(sigma * torch.randn(n, generator=rng)).tolist()
    gradients = torch.exp(sigma * torch.randn(n, generator=rng)).tolist()
    flight = recorded(Moment(i, a, (b,), norm) for i, (a, b) in enumerate(zip(losses, gradients, strict=True)))
    assert diverged(flight, Moment(n, math.nan, (math.nan,), norm)) == ""


@given(healthy, st.floats(1.3, 1e6), st.floats(0.0, 0.5), st.integers(0, 150))
def test_geometric_growth_to_overflow_always_is(rng, factor, sigma, before):
    steps = [1.0] * before + [factor**i for i in range(1, int(80 / math.log(factor)) + 1)]
    noise = torch.exp(sigma * torch.randn(len(steps), generator=rng)).tolist()
    flight = recorded(Moment(i, v * v * z, (v * z,), 3 * v) for i, (v, z) in enumerate(zip(steps, noise, strict=True)))
    assert diverged(flight, Moment(len(steps), math.inf, (math.nan,), 3 * steps[-1] * factor))


@given(healthy, st.floats(1e-6, 1e6), st.integers(1, 250))
def test_the_unit_of_the_loss_does_not_matter(rng, unit, n):
    losses = torch.exp(torch.randn(n, generator=rng)).cumsum(0).exp2().clamp(max=1e30).tolist()
    plain, scaled = (recorded(Moment(i, v * u, (v * u,)) for i, v in enumerate(losses)) for u in (1.0, 2.0 ** round(math.log2(unit))))
    failed = Moment(n, math.nan, (math.nan,))
    assert bool(diverged(plain, failed)) == bool(diverged(scaled, failed))


@given(st.lists(st.floats(allow_nan=True, allow_infinity=True), max_size=40), st.lists(st.floats(), min_size=5, max_size=5))
def test_no_record_makes_it_raise(values, last):
    flight = recorded((Moment(i, v, (v, -v), v, v, (v,), v, v) for i, v in enumerate(values)), memory=8)
    a, b, c, d, e = last
    assert isinstance(diverged(flight, Moment(len(values), a, (b,), c, d, (e,), e)), str)
    outlier(flight, Moment(len(values), a, (b,), c))


# ---------------------------------------------------------------- what it makes of an incident


def incident(kind=OVERFLOW, finding=True):
    site = Site("model.py", 12, 12, 4, 10, "exp(x)", "forward")
    found = Finding("WN1", "non-finite", ERROR, "exp-overflow", "exp(x) is inf", "exp", "forward", site, related=("sum-overflow",))
    return Incident(7, "", "torch", "2", "loss", math.inf, found if finding else None, kind)


def test_a_divergence_is_not_blamed_on_the_operation_at_which_it_ended():
    told = as_divergence(incident(), "the loss grew")
    assert told.kind == DIVERGENCE and told.cause == "divergence"
    assert told.finding.site is None and told.finding.op == "" and told.finding.chain == ()
    assert told.finding.related == ("exp-overflow", "sum-overflow")
    assert "the loss grew" in told.finding.message and "ended at model.py:12, exp(x)" in told.finding.message
    assert "not to blame" in str(told)


def test_a_divergence_needs_no_finding():
    told = as_divergence(incident(finding=False), "the loss grew")
    assert told.kind == DIVERGENCE and told.cause == "divergence" and "the loss grew" in str(told)


@pytest.mark.parametrize("kind", [BAD_DATA, BAD_STATE, CUSTOM_BACKWARD])
def test_bad_data_and_a_wrong_backward_stay_what_they_are(kind):
    before = incident(kind)
    assert as_divergence(before, "the loss grew") is before


def test_a_sudden_fault_stays_what_it_is():
    before = incident()
    assert as_divergence(before, "") is before
