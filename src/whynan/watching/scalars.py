"""Numbers to where the run already logs: TensorBoard, Weights & Biases, MLflow. Nothing is imported, and nothing fails because of it.

What is used is seen from the modules that the program has loaded itself: an open run of `wandb` or `mlflow`, the one open
`SummaryWriter` of PyTorch or tensorboardX, TensorFlow's default summary writer. A logger that fails is told of once and then left alone.
"""

import gc
import logging
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

from whynan.errors import WhynanError
from whynan.watching.flight import norm_of
from whynan.watching.record import Moment

log = logging.getLogger("whynan.watch")

Send = Callable[[Mapping[str, float], int], None]

SECONDS = 1.0  # between two points of a healthy run; bad steps are logged at once


class Scalars:
    """Sends the gradient norm, bad steps and skipped updates of one watched run.

    A point is sent at most once a second while the run is healthy, and has the largest gradient norm since the last one: a peak is not
    lost, and a fast loop is not slowed down. The counts are of the whole run.
    """

    def __init__(self, wanted: bool = True, writer: Any = None) -> None:
        self._wanted = wanted
        self._given = _sender(writer) if writer is not None else None
        self._failed: set[str] = set()
        self._next = 0.0
        self._peak = 0.0
        self._writers = OpenWriters()

    def healthy(self, moment: Moment, bad_steps: int, skipped: int) -> None:
        """A step was applied."""
        if not self._wanted:
            return
        norm = norm_of(moment)
        if norm > self._peak:
            self._peak = norm
        now = time.monotonic()
        if now >= self._next:
            self._next = now + SECONDS
            self._send(moment.step, bad_steps, skipped)

    def bad(self, moment: Moment, bad_steps: int, skipped: int) -> None:
        """A step was not applied."""
        if self._wanted:
            self._send(moment.step, bad_steps, skipped)

    def _send(self, step: int, bad_steps: int, skipped: int) -> None:
        values = {"whynan/bad_steps": float(bad_steps), "whynan/skipped_updates": float(skipped)}
        if 0 < self._peak < math.inf:
            values["whynan/gradient_norm"] = self._peak
        self._peak = 0.0
        for name, find in self._loggers().items():
            if name in self._failed:
                continue
            try:
                send = find()
                if send is not None:
                    send(values, step)
            except Exception as error:  # whatever a logger raises must not end the training
                self._failed.add(name)
                log.warning("whynan logs no more to %s: %s: %s", name, type(error).__name__, error)

    def _loggers(self) -> Mapping[str, Callable[[], Send | None]]:
        given = self._given
        tensorboard = {"the writer": lambda: given} if given is not None else {"TensorFlow": _tensorflow, "TensorBoard": self._writers.one}
        return {"Weights & Biases": _wandb, "MLflow": _mlflow, **tensorboard}


def _wandb() -> Send | None:
    """The open run. `commit=False` joins the values to the run's own next row instead of making a row, and a step of its own, of them."""
    wandb = sys.modules.get("wandb")
    run = getattr(wandb, "run", None)
    return (lambda values, step: run.log(dict(values), commit=False)) if run is not None else None


def _mlflow() -> Send | None:
    """The active run. Values are sent in the background, so that the loop does not wait for a server."""
    mlflow = sys.modules.get("mlflow")
    active = getattr(mlflow, "active_run", None)
    if mlflow is None or active is None or active() is None:
        return None
    return lambda values, step: mlflow.log_metrics(dict(values), step=step, synchronous=False)


def _tensorflow() -> Send | None:
    """TensorFlow's default summary writer, if there is one and it is recording."""
    tf = sys.modules.get("tensorflow")
    summary = getattr(tf, "summary", None)
    if summary is None or not bool(summary.should_record_summaries()):
        return None
    return _by_name(lambda name, value, step: summary.scalar(name, value, step=step))


class OpenWriters:
    """Finds the open SummaryWriter that the program has made, among the objects that Python's garbage collector knows."""

    def __init__(self) -> None:
        self._found: Any = None
        self._calls = 0
        self._told = False

    def one(self) -> Send | None:
        """What sends to the only open writer; None if there is none, or if it is not clear which is meant."""
        if self._found is None or not _is_open(self._found):
            self._found = self._looked_for()
        return _sender(self._found) if self._found is not None else None

    def _looked_for(self) -> Any:
        self._calls += 1
        if self._calls.bit_count() != 1:
            return None  # a look takes milliseconds, so it is made the 1st, 2nd, 4th, 8th, ... time
        modules = (sys.modules.get(name) for name in ("torch.utils.tensorboard.writer", "tensorboardX.writer"))
        classes = [c for c in (getattr(m, "SummaryWriter", None) for m in modules) if isinstance(c, type)]
        found = [w for c in classes for w in gc.get_referrers(c) if isinstance(w, c) and _is_open(w)]
        if len(found) > 1 and not self._told:
            self._told = True
            log.warning("whynan logs to none of %d open SummaryWriters: pass writer= to say which", len(found))
        return found[0] if len(found) == 1 else None


def _is_open(writer: Any) -> bool:
    """Whether a SummaryWriter is open; one that is closed would begin a new file."""
    return getattr(writer, "file_writer", None) is not None


def _sender(writer: Any) -> Send:
    """What sends to a writer that the user gives: PyTorch's or tensorboardX's, TensorFlow's, flax's, or a function of name, value, step."""
    if hasattr(writer, "add_scalar"):
        return _by_name(writer.add_scalar)
    if hasattr(writer, "as_default"):
        return _by_default(writer)
    if hasattr(writer, "scalar"):
        return _by_name(writer.scalar)
    if callable(writer):
        return _by_name(writer)
    raise WhynanError(
        f"a {type(writer).__name__} cannot be written to as writer=.",
        "Give a SummaryWriter of PyTorch, tensorboardX, TensorFlow or flax, or a function of (name, value, step).",
    )


def _by_name(put: Callable[[str, float, int], Any]) -> Send:
    def send(values: Mapping[str, float], step: int) -> None:
        for name, value in values.items():
            put(name, value, step)

    return send


def _by_default(writer: Any) -> Send:
    """For a writer of TensorFlow, which has to be the default one while it is written to."""

    def send(values: Mapping[str, float], step: int) -> None:
        scalar = sys.modules["tensorflow"].summary.scalar
        with writer.as_default():
            for name, value in values.items():
                scalar(name, value, step=step)

    return send
