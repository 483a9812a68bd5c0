"""Training runs in PyTorch that go bad: expression, line, cause, layer, parameter, sample and values are named; nothing is updated."""

import contextlib
import math

import pytest
import torch
from tests.watch import torch_more_scenarios, torch_scenarios
from tests.watch.marked import marked
from tests.watch.torch_scenarios import BAD_STEP, Scenario

import whynan
from whynan.errors import NonFiniteError


def several(x):
    """Arguments given alone or as a tuple, as a tuple."""
    return x if isinstance(x, tuple) else (x,)


def trained(scenario: Scenario):
    """Run until the bad step; returns the watcher's error, and whether parameters and buffers were as before the step."""
    torch.manual_seed(0)
    model, loss, batch = scenario.make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4, momentum=0.9)
    with whynan.watch(model, loss=loss, optimizer=optimizer, folder=None):
        for step in range(BAD_STEP + 1):
            (x, targets), error = batch(step), None
            targets = several(targets)
            before = [t.detach().clone() for t in (*model.parameters(), *model.buffers())]
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=scenario.autocast) if scenario.autocast else contextlib.nullcontext():
                out = model(*several(x))
                value = loss(out, *targets)  # at nan_target
            value.backward()
            try:
                optimizer.step()
            except NonFiniteError as raised:
                error = raised
                break
    after = [t.detach() for t in (*model.parameters(), *model.buffers())]
    same = all(torch.equal(torch.nan_to_num(a), torch.nan_to_num(b)) for a, b in zip(before, after, strict=True))
    return error, same


def check(scenario: Scenario):
    """Everything that a scenario says is found."""
    error, same = trained(scenario)
    assert error is not None, "no incident"
    assert same, "parameters have changed"
    incident = error.incident
    finding, suspects = incident.finding, incident.suspects
    assert finding is not None, incident.unexplained
    assert (incident.step, incident.failed) == (BAD_STEP, scenario.failed)
    assert (finding.site.text if finding.site else "", finding.cause) == (scenario.at, scenario.cause)
    line = scenario.line or marked(__file__).get(scenario.name)
    assert line is None or finding.site.line == line
    assert (finding.phase, incident.kind, incident.layer) == (scenario.phase, scenario.kind, scenario.layer)
    if scenario.parameter:
        assert incident.parameter == scenario.parameter
    assert suspects.samples == scenario.samples
    assert incident.sample == (scenario.samples[0] if scenario.samples else None)
    told = [(e.name, e.index, e.value) for e in suspects.elements]
    for name, index, value in scenario.values:
        assert any((n, i) == (name, index) and (v == value or (math.isnan(value) and math.isnan(v))) for n, i, v in told), told
    assert str(incident)


@pytest.mark.parametrize("scenario", torch_scenarios.FOUND, ids=lambda s: s.name)
def test_found(scenario):
    check(scenario)


@pytest.mark.parametrize("scenario", torch_more_scenarios.FOUND, ids=lambda s: s.name)
def test_found_in_other_layers(scenario):
    check(scenario)


@pytest.mark.parametrize("make", torch_more_scenarios.HARMLESS, ids=lambda f: f.__name__)
def test_nothing_is_wrong(make):
    torch.manual_seed(0)
    model, loss, batch = make()
    optimizer = torch.optim.SGD(model.parameters(), lr=1e-4)
    with whynan.watch(model, loss=loss, optimizer=optimizer, folder=None) as watch:
        for step in range(BAD_STEP + 1):
            x, targets = batch(step)
            optimizer.zero_grad()
            loss(model(*several(x)), *several(targets)).backward()
            optimizer.step()
    assert (watch.step, watch.bad_steps) == (BAD_STEP + 1, 0)
    assert not watch.incidents
