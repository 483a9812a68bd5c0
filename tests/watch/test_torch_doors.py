"""How the calls of a module are seen, and that the quick look notes what the whole one does."""

import copy
import pickle
import traceback

import pytest
import torch
from torch import nn

import whynan
from whynan.watching.torch import stepping
from whynan.watching.torch.intercept import DOOR, watch_module


def noting(into, name):
    def around(original, args, kwargs):
        into.append(name)
        return original(*args, **kwargs)

    return around


@pytest.mark.parametrize("first", [0, 1])
def test_two_watch_a_module_and_end_in_any_order(first):
    module, seen = nn.Linear(2, 2), []
    ends = [watch_module(module, noting(seen, name)) for name in "ab"]
    module(torch.ones(1, 2))
    ends[first]()
    module(torch.ones(1, 2))
    ends[1 - first]()
    module(torch.ones(1, 2))
    assert seen == ["b", "a", "ba"[first]]
    assert DOOR not in vars(module)


def test_a_module_that_was_compiled_in_place_is_watched_and_stays_compiled():
    module, seen = nn.Linear(2, 2), []
    module.compile(backend="eager")
    compiled = vars(module)[DOOR]
    end = watch_module(module, noting(seen, "a"))
    module(torch.ones(1, 2))
    end()
    assert seen == ["a"] and vars(module)[DOOR] is compiled


def test_what_compiles_the_module_later_is_left_in_place():
    module = nn.Linear(2, 2)
    end = watch_module(module, noting([], "a"))
    module.compile(backend="eager")
    compiled = vars(module)[DOOR]
    end()
    assert vars(module)[DOOR] is compiled


def test_a_watched_module_is_compiled_as_a_whole_by_a_function_around_it():
    module, seen = nn.Sequential(nn.Linear(2, 2), nn.ReLU()), []
    end = watch_module(module, noting(seen, "a"))
    step = torch.compile(lambda x: module(x).sum(), backend="eager", fullgraph=True)
    assert torch.equal(step(torch.ones(1, 2)), nn.Sequential.forward(module, torch.ones(1, 2)).sum())
    assert seen == []  # what is compiled is not seen
    end()


def replicated(module):
    return module._replicate_for_data_parallel()


@pytest.mark.parametrize("copied", [copy.copy, copy.deepcopy, lambda m: pickle.loads(pickle.dumps(m)), replicated])
def test_a_copy_is_called_by_itself(copied):
    module = nn.Linear(2, 2)
    optimizer = torch.optim.SGD(module.parameters(), 0.1)
    with whynan.watch(module, optimizer=optimizer, folder=None):
        twin = copied(module)
    assert DOOR not in vars(twin)


def trained(quick, monkeypatch, sparse=False, grouped=False, steps=40):
    torch.manual_seed(0)
    looks = []
    whole = stepping.look
    monkeypatch.setattr(stepping, "look", lambda run, *rest, **more: looks.append(run.overseer.step) or whole(run, *rest, **more))
    model = nn.Sequential(nn.Embedding(5, 4, sparse=sparse), nn.Linear(4, 3))
    groups = [{"params": part.parameters(), "lr": rate} for part, rate in zip(model, (0.1, 0.2), strict=True)]
    optimizer, loss = torch.optim.SGD(groups if grouped else model.parameters(), 0.1), nn.CrossEntropyLoss()
    with whynan.watch(model, loss=loss, optimizer=optimizer, folder=None) as watch:
        if not quick:
            watch.run.quick = None
        for _ in range(steps):
            optimizer.zero_grad()
            loss(model(torch.randint(0, 5, (6,))), torch.randint(0, 3, (6,))).backward()
            optimizer.step()
    monkeypatch.undo()
    known = [(m.step, m.loss, m.gradient_norms, m.learning_rates, m.outcome) for m in watch.flight]
    return known, looks, [p.detach().clone() for p in model.parameters()]


@pytest.mark.parametrize("grouped", [False, True])
def test_the_quick_look_notes_what_the_whole_one_does(grouped, monkeypatch):
    slow, all_looks, ends = trained(False, monkeypatch, grouped=grouped)
    quick, few_looks, same = trained(True, monkeypatch, grouped=grouped)
    assert quick == slow
    assert all(torch.equal(a, b) for a, b in zip(ends, same, strict=True))
    assert all_looks == list(range(40)) and len(few_looks) < 25


def test_sparse_gradients_get_the_whole_look(monkeypatch):
    slow, _, _ = trained(False, monkeypatch, sparse=True)
    quick, looks, _ = trained(True, monkeypatch, sparse=True)
    assert quick == slow and looks == list(range(40))


def test_the_frames_of_a_watched_closure_can_be_read():
    """Debuggers and test runners read every frame's locals; cells that are not there would crash Python."""
    half = 0.5

    def loss(p):
        if half:
            raise KeyError(half)

    model = nn.Linear(2, 2)
    with whynan.watch(model, loss=loss, optimizer=torch.optim.SGD(model.parameters(), 0.1), folder=None):
        with pytest.raises(KeyError) as failure:
            loss(model(torch.ones(1, 2)))
        read = [frame.f_locals.get("half") for frame, _ in traceback.walk_tb(failure.value.__traceback__)]
    assert read.count(0.5) == 3  # of the test, of the watched function, of the original


def log_loss(p, t):
    return -(t * torch.log(p)).mean()


def test_a_scripted_model_is_watched():
    model = torch.jit.script(nn.Sequential(nn.Linear(2, 1), nn.Sigmoid()))
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.ones(4, 2)
    x[2] = -1e9
    with torch.no_grad():
        model[0].weight.fill_(1.0)
    with whynan.watch(model, loss=log_loss, optimizer=optimizer, folder=None):
        log_loss(model(x), torch.ones(4, 1)).backward()
        with pytest.raises(whynan.NonFiniteError) as failure:
            optimizer.step()
    incident = failure.value.incident
    assert incident.finding.site.text == "torch.log(p)" and incident.sample == 2
    assert model[0].weight.tolist() == [[1.0, 1.0]]


def test_a_model_that_was_compiled_in_place_is_explained():
    model = nn.Sequential(nn.Linear(2, 1), nn.Sigmoid())
    model.compile(backend="eager")
    optimizer = torch.optim.SGD(model.parameters(), 0.1)
    x = torch.ones(4, 2)
    with torch.no_grad():
        model[0].weight.fill_(1.0)
        x[2] = -1e9
    with whynan.watch(model, loss=log_loss, optimizer=optimizer, policy="skip", folder=None) as watch:
        log_loss(model(x), torch.ones(4, 1)).backward()
        optimizer.step()
    (incident,) = watch.incidents
    assert incident.finding.site.text == "torch.log(p)" and incident.sample == 2 and incident.parameter == "0.weight"


def test_buffers_are_kept_where_the_model_is_compiled_after_many_ordinary_steps():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3), nn.Linear(3, 1), nn.Sigmoid())
    optimizer, target = torch.optim.SGD(model.parameters(), 0.01), torch.ones(6, 1)

    def step(x):
        optimizer.zero_grad()
        log_loss(model(x), target).backward()
        optimizer.step()

    with whynan.watch(model, loss=log_loss, optimizer=optimizer, policy="skip", folder=None) as watch:
        for _ in range(20):
            step(torch.randn(6, 2))
        model.compile(backend="eager")  # its calls are not seen any more
        for _ in range(3):
            step(torch.randn(6, 2))
        before = [b.clone() for b in model.buffers()]
        step(torch.full((6, 2), torch.nan))
        assert watch.bad_steps == 1
        assert all(torch.equal(a, b) for a, b in zip(before, model.buffers(), strict=True))
