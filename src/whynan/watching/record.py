"""The records of a watched run: a step in the flight record, where in the batch a failure lies, the incident. Plain data."""

import math
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

from whynan.analysis.finding import Finding

# the classes of causes, the first question about an incident
BAD_DATA, BAD_STATE, OPERATION, OVERFLOW, CUSTOM_BACKWARD, DIVERGENCE, UNEXPLAINED = (
    "bad data",
    "bad state",
    "an operation's domain",
    "overflow",
    "a backward of your own",
    "divergence",
    "unexplained",
)


class Moment(NamedTuple):
    """One step in the flight record. Norms are Euclidean; NaN stands for what was not measured.

    `gradient_norms` and `learning_rates` are by parameter group. `update_ratio` is the norm of the last update over that of the
    parameters. `scale` is the gradient scaler's. `outcome` is "applied", or what was done instead: "skipped", "rolled back".
    `clipped_from` is the total gradient norm that clipping by norm measured before it scaled the gradients. `parameter_norm` is that of
    the parameters before this step's update. `optimizer` tells apart the updates of a run with several optimizers. There is one for each
    step of a run, so it is a kind of record that is quickly made.
    """

    step: int
    loss: float = math.nan
    gradient_norms: tuple[float, ...] = ()
    parameter_norm: float = math.nan
    update_ratio: float = math.nan
    learning_rates: tuple[float, ...] = ()
    scale: float = math.nan
    clipped_from: float = math.nan
    outcome: str = "applied"
    optimizer: int = 0

    @property
    def gradient_norm(self) -> float:
        """The norm of all gradients together; NaN if none was measured."""
        return math.hypot(*self.gradient_norms) if self.gradient_norms else math.nan


@dataclass(frozen=True, slots=True)
class Element:
    """One number that a call was given: argument `name` ("x", "target") at `index`, whose first entry is the sample where there is one.

    `value` is None in an incident that was read from a bundle without the run's data.
    """

    name: str
    index: tuple[int, ...]
    value: float | None


@dataclass(frozen=True, slots=True)
class Suspects:
    """Where in the batch a failure lies.

    `samples` are the batch indices of the values that failed first. `alone` is the smallest part of the batch that was found to fail when
    run without the rest; empty if no smaller part fails than the whole, or if nobody is suspected and the rest fails as well. `elements`
    are values of those samples: what is not finite in the data, else what the failing operation was given. `batch` is the batch's size, 0
    where no axis of the data could be told to be it.
    `call` counts the micro-batches of a step from 0.
    """

    samples: tuple[int, ...] = ()
    alone: tuple[int, ...] = ()
    elements: tuple[Element, ...] = ()
    batch: int = 0
    call: int = 0


@dataclass(frozen=True, slots=True)
class Piece:
    """The user's model, loss or step, as a program on another machine gets it.

    `name` is what the recipe's lines call it. `path` is "package.module:Name", empty if no import leads to it; `missing` says what keeps
    another program from making it. `instance` says that `path` is a class to be called. `folder` is what its module was imported from,
    `shown` how the object prints, to fill in by hand. `settings` are its plain attributes (a loss's reduction, its label smoothing), which
    are set again. `prefix` begins the names of its parameters and buffers in the bundle. `training` says whether it was in training mode,
    `evaluating` are its submodules that were not. `text` is Python that makes it, where that is known better than by `path`.
    """

    name: str
    path: str = ""
    text: str = ""
    instance: bool = False
    folder: str = ""
    missing: str = ""
    shown: str = ""
    settings: Mapping[str, Any] = field(default_factory=dict)
    prefix: str = ""
    training: bool = True
    evaluating: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Recipe:
    """What `replay.py` needs besides the tensors to run the step again.

    `lines` are Python: the body of a generator in terms of the pieces' names and the bundle's tensors (`given["batch/x"]`), which yields
    each loss that is differentiated, or all that a step returns. `autocast` are, for each call in the lines, device type and dtype.
    `before` are lines of Python that come before anything is made, `dialect` is whose language all that is, if not the framework's own.
    """

    pieces: tuple[Piece, ...] = ()
    lines: tuple[str, ...] = ()
    autocast: tuple[tuple[tuple[str, str], ...], ...] = ()
    before: tuple[str, ...] = ()
    dialect: str = ""


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of a bundle. `samples` are the batch indices that it was cut to, None if it is whole; `left_out` says why it is missing."""

    name: str
    dtype: str
    shape: tuple[int, ...]
    size: int = 0  # bytes
    samples: tuple[int, ...] | None = None
    left_out: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Incident:
    """A training step that went bad, explained.

    `failed` says what was not finite when the step was looked at: "loss", "gradient", "scale" (of a gradient scaler), "update".
    `finding` names operation, expression, reason and chain as a check's finding does; None where the step could not be explained, and
    `unexplained` says why. `kind` is the class of the cause. `layer` is the module path of the operation ("encoder.0.norm"; empty: in the
    loss), `parameters` are those with a non-finite gradient, the failure's own first. `reproduced` says that the step, run again from
    the kept state, failed again, `how` in which program ("eager", "compiled", "function", ...). `moments` are the last steps, oldest first.
    `tensors` are what the step was run on, by name, for the bundle: "batch/x", "parameters/0.weight", "buffers/...", "rng/..."; nested
    mappings and sequences are taken apart. `recipe` tells how to run it again. `ranks` are the ranks whose own step failed, in a
    distributed run. `folder` is the bundle, `stored` what is in it, and `data_saved` whether numbers of the batch may be. `in_loop` says
    that the expression stands in the training loop itself, which is no function to check.
    """

    step: int
    when: str
    framework: str
    framework_version: str
    failed: str
    loss: float
    finding: Finding | None
    kind: str
    layer: str = ""
    parameters: tuple[str, ...] = ()
    suspects: Suspects = field(default_factory=Suspects)
    reproduced: bool = False
    how: str = "eager"
    unexplained: str = ""
    action: str = "raise"
    moments: tuple[Moment, ...] = ()
    advice: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()
    rank: int = 0
    world: int = 1
    ranks: tuple[int, ...] = ()
    tensors: Mapping[str, Any] = field(default_factory=dict)
    seconds: float = 0.0
    folder: Path | None = None
    recipe: Recipe | None = None
    stored: tuple[Stored, ...] = ()
    data_saved: bool = True
    in_loop: bool = False

    @property
    def cause(self) -> str:
        """The cause's stable id (contract, section 4)."""
        return self.finding.cause if self.finding else ""

    @property
    def sample(self) -> int | None:
        """The sample to look at first, None if it is not one sample's doing."""
        s = self.suspects
        first = tuple(i for i in s.alone if i in s.samples) or s.alone or s.samples
        return first[0] if first else None

    @property
    def parameter(self) -> str:
        """The parameter whose gradient failed first, empty if none did."""
        return self.parameters[0] if self.parameters else ""

    def __str__(self) -> str:
        from whynan.watching.words import told  # it reads this module's records

        return told(self)
