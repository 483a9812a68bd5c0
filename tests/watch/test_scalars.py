"""Numbers to the run's own loggers. The real packages are used where they are installed, else small ones with the same public calls.

The stand-ins have what whynan calls and no more: `wandb.run` with `log(data, commit=)`, `mlflow.active_run` and
`mlflow.log_metrics(metrics, step=, synchronous=)`, and `SummaryWriter.add_scalar(tag, value, step)` with `file_writer`, which is None
when it is closed.
"""

import logging
import math
import sys
import types

import pytest

from whynan.errors import WhynanError
from whynan.watching import scalars
from whynan.watching.overseer import Overseer
from whynan.watching.policy import SKIP, Options
from whynan.watching.record import OPERATION, Incident, Moment
from whynan.watching.scalars import Scalars

NAMES = {"whynan/bad_steps", "whynan/skipped_updates", "whynan/gradient_norm"}


@pytest.fixture(autouse=True)
def _every_step(monkeypatch):
    monkeypatch.setattr(scalars, "SECONDS", 0.0)
    for name in ("wandb", "mlflow", "tensorboardX.writer", "torch.utils.tensorboard.writer"):
        monkeypatch.delitem(sys.modules, name, raising=False)


def moment(step, norm=2.0):
    return Moment(step, 1.0, (norm,))


class Writer:
    """A SummaryWriter without files."""

    def __init__(self):
        self.file_writer = object()
        self.seen = []

    def add_scalar(self, tag, value, step):
        self.seen.append((tag, value, step))

    def close(self):
        self.file_writer = None


@pytest.fixture
def writers(monkeypatch):
    """The class SummaryWriter of a module that the program has loaded."""
    own = type("SummaryWriter", (Writer,), {})
    module = types.ModuleType("tensorboardX.writer")
    module.SummaryWriter = own
    monkeypatch.setitem(sys.modules, "tensorboardX.writer", module)
    return own


@pytest.fixture
def wandb(monkeypatch):
    module = types.ModuleType("wandb")
    module.run, module.rows = None, []
    run = types.SimpleNamespace(log=lambda data, commit: module.rows.append((data, commit)))
    module.start = lambda: setattr(module, "run", run)
    monkeypatch.setitem(sys.modules, "wandb", module)
    return module


@pytest.fixture
def mlflow(monkeypatch):
    module = types.ModuleType("mlflow")
    module.runs, module.rows = [], []
    module.active_run = lambda: module.runs[-1] if module.runs else None
    module.log_metrics = lambda metrics, step, synchronous: module.rows.append((metrics, step, synchronous))
    monkeypatch.setitem(sys.modules, "mlflow", module)
    return module


# ---------------------------------------------------------------- what is used is found


def test_nothing_is_imported_and_nothing_sent_where_nothing_is_used():
    before = set(sys.modules)
    s = Scalars()
    s.healthy(moment(0), 0, 0)
    s.bad(moment(1), 1, 1)
    assert set(sys.modules) == before


def test_an_open_run_of_wandb_gets_values_with_its_own_next_row(wandb):
    s = Scalars()
    s.healthy(moment(0), 0, 0)
    assert wandb.rows == []
    wandb.start()
    s.healthy(moment(1, 5.0), 0, 0)
    s.bad(moment(2), 1, 1)
    assert wandb.rows == [
        ({"whynan/bad_steps": 0, "whynan/skipped_updates": 0, "whynan/gradient_norm": 5.0}, False),
        ({"whynan/bad_steps": 1, "whynan/skipped_updates": 1}, False),
    ]


def test_an_active_run_of_mlflow_gets_values_in_the_background(mlflow):
    s = Scalars()
    s.healthy(moment(0), 0, 0)
    assert mlflow.rows == [], "no run is begun by whynan"
    mlflow.runs.append("mine")
    s.healthy(moment(7, 3.0), 2, 1)
    assert mlflow.rows == [({"whynan/bad_steps": 2, "whynan/skipped_updates": 1, "whynan/gradient_norm": 3.0}, 7, False)]


def test_the_only_open_summary_writer_is_found(writers):
    closed, writer = writers(), writers()
    closed.close()
    s = Scalars()
    s.healthy(moment(4), 0, 0)
    assert {(name, step) for name, _, step in writer.seen} == {(n, 4) for n in NAMES} and closed.seen == []
    writer.close()
    s.healthy(moment(5), 0, 0)
    assert len(writer.seen) == 3, "a closed one is not written to"


def test_a_summary_writer_that_is_opened_later_is_found(writers):
    s = Scalars()
    s.healthy(moment(0), 0, 0)
    writer = writers()
    for step in range(1, 5):
        s.healthy(moment(step), 0, 0)
    assert writer.seen


def test_of_several_open_ones_none_is_guessed(writers, caplog):
    train, test = writers(), writers()
    s = Scalars()
    with caplog.at_level(logging.WARNING, "whynan.watch"):
        for step in range(20):
            s.healthy(moment(step), 0, 0)
    assert train.seen == test.seen == [] and len(caplog.records) == 1 and "pass writer=" in caplog.text
    given = Scalars(writer=test)
    given.healthy(moment(0), 0, 0)
    assert test.seen and not train.seen


# ---------------------------------------------------------------- writers that are given


def test_a_function_and_a_writer_of_flax():
    seen = []
    Scalars(writer=lambda name, value, step: seen.append(name)).healthy(moment(0), 0, 0)
    assert set(seen) == NAMES
    flax = types.SimpleNamespace(scalar=lambda tag, value, step: seen.append((tag, step)))
    Scalars(writer=flax).healthy(moment(3), 0, 0)
    assert ("whynan/gradient_norm", 3) in seen


def test_what_is_no_writer():
    with pytest.raises(WhynanError, match="cannot be written to as writer="):
        Scalars(writer="runs")


# ---------------------------------------------------------------- never in the way


def test_a_logger_that_fails_is_told_of_once_and_left_alone(wandb, writers, caplog):
    wandb.start()
    tries = []

    def log(data, commit):
        tries.append(data)
        raise ConnectionError("planted")

    wandb.run.log = log
    writer, s = writers(), Scalars()
    with caplog.at_level(logging.WARNING, "whynan.watch"):
        for step in range(5):
            s.healthy(moment(step), 0, 0)
    assert len(tries) == 1 and len(caplog.records) == 1 and "Weights & Biases: ConnectionError: planted" in caplog.text
    assert len(writer.seen) == 15, "the others go on"


def test_switched_off(wandb, writers):
    wandb.start()
    writer, s = writers(), Scalars(False)
    s.healthy(moment(0), 0, 0)
    s.bad(moment(1), 1, 1)
    assert wandb.rows == writer.seen == []


def test_a_fast_loop_is_not_slowed_down_and_loses_no_peak(wandb, monkeypatch):
    clock = [100.0]
    monkeypatch.setattr(scalars, "SECONDS", 1.0)
    monkeypatch.setattr(scalars.time, "monotonic", lambda: clock[0])
    wandb.start()
    s = Scalars()
    for step in range(2500):
        s.healthy(moment(step, 1e6 if step == 1500 else 1.0), 0, 0)
        clock[0] += 0.001
    assert [data["whynan/gradient_norm"] for data, _ in wandb.rows] == [1.0, 1.0, 1e6]


def test_norms_that_are_not_finite_are_no_points(wandb):
    wandb.start()
    s = Scalars()
    s.healthy(moment(0, math.inf), 0, 0)
    s.healthy(Moment(1), 0, 0)
    assert all(set(data) == NAMES - {"whynan/gradient_norm"} for data, _ in wandb.rows)


def test_the_overseer_sends_its_counts(wandb):
    wandb.start()
    o = Overseer(Options(SKIP, folder=None))
    o.healthy(moment(0))
    o.bad(Moment(1, math.nan), lambda: Incident(1, "", "torch", "2", "loss", math.nan, None, OPERATION))
    o.passed_over(Moment(2, 1.0, outcome="left out by the gradient scaler"))
    o.healthy(moment(3))
    assert [(d["whynan/bad_steps"], d["whynan/skipped_updates"]) for d, _ in wandb.rows] == [(0, 0), (1, 1), (1, 2)]


# ---------------------------------------------------------------- the real packages


def test_tensorflows_default_writer(tmp_path):
    tf = pytest.importorskip("tensorflow")
    pytest.importorskip("tensorboard")
    s = Scalars()
    s.healthy(moment(0), 0, 0)
    writer = tf.summary.create_file_writer(str(tmp_path))
    with writer.as_default():
        s.healthy(moment(1), 0, 0)
    Scalars(writer=writer).healthy(moment(2), 0, 0)
    writer.close()
    assert logged(tmp_path) == NAMES and not s._failed


@pytest.mark.parametrize("package", ["torch.utils.tensorboard", "tensorboardX"])
def test_a_real_summary_writer(package, tmp_path):
    pytest.importorskip("tensorboard")
    module = pytest.importorskip(package, exc_type=ImportError)
    sys.modules[f"{package}.writer"] = sys.modules[module.SummaryWriter.__module__]
    writer, s = module.SummaryWriter(str(tmp_path)), Scalars()
    s.healthy(moment(1), 0, 0)
    writer.close()
    assert logged(tmp_path) == NAMES and not s._failed


def logged(folder):
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    found = EventAccumulator(str(folder))
    found.Reload()
    return {*found.Tags()["scalars"], *found.Tags()["tensors"]}


def test_a_real_run_of_wandb(tmp_path, monkeypatch):
    wandb = pytest.importorskip("wandb")
    monkeypatch.setitem(sys.modules, "wandb", wandb)
    with wandb.init(mode="offline", dir=tmp_path) as run:
        s = Scalars()
        s.healthy(moment(0), 0, 0)
        run.log({"mine": 1})
        assert set(dict(run.summary)) >= NAMES and not s._failed


def test_a_real_run_of_mlflow(tmp_path, monkeypatch):
    mlflow = pytest.importorskip("mlflow")
    monkeypatch.setitem(sys.modules, "mlflow", mlflow)
    monkeypatch.setenv("MLFLOW_ALLOW_FILE_STORE", "true")
    mlflow.set_tracking_uri(f"file:{tmp_path / 'runs'}")
    with mlflow.start_run() as run:
        s = Scalars()
        s.healthy(moment(3), 0, 0)
        mlflow.flush_async_logging()
    assert set(mlflow.MlflowClient().get_run(run.info.run_id).data.metrics) == NAMES and not s._failed
