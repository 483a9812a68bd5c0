"""The records that a check ends in: findings, witnesses, open sites, the report. Plain data, fixed by the public contract."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from whynan.ir.dtype import Array
from whynan.ir.where import Site

SAFE, UNSAFE, UNDECIDED = "safe", "unsafe", "undecided"
ERROR, WARNING, NOTE = "error", "warning", "note"


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """One link of the chain from the first non-finite value to the loss or gradient.

    `inputs` and `output` say in words what went in and came out ("0.0", "5 of 8 elements are inf").
    """

    op: str
    site: Site | None
    phase: str
    inputs: tuple[str, ...]
    output: str


@dataclass(frozen=True, slots=True, eq=False)
class Witness:
    """A concrete input inside the domain on which the real framework gave what the finding says.

    `inputs` maps name to a NumPy array of the input's dtype (ml_dtypes for bfloat16). `loss` and `gradients` are what came out.
    `source` is the text that `script()` returns, or what writes it. `runner` repeats the run (set by the api). `exact` are, where
    digits are counted, the real values of the loss and the gradients by name, rounded to float64.
    """

    inputs: Mapping[str, Array]
    loss: Array
    gradients: Mapping[str, Array]
    source: str | Callable[[], str] = ""
    runner: Any = None
    exact: Mapping[str, Array] = field(default_factory=dict)

    def script(self) -> str:
        """A Python program that repeats the failure without whynan; empty if none could be written."""
        return self.source if isinstance(self.source, str) else self.source()

    def replay(self) -> Any:
        """Run the real function on the witness again and return the loss and gradients."""
        if self.runner is None:
            raise RuntimeError("this witness was read from a file; run its script instead.")
        return self.runner(self.inputs)


@dataclass(frozen=True, slots=True)
class Accuracy:
    """How few digits of an output are right on the witness, and where.

    `output` is "loss" or an input's name (the gradient by it), `digits` of `of` decimal digits are correct in its worst element, which is
    `computed` and should be `exact`. `where` are intervals by input in which more than half of the digits are lost, the other inputs being
    the witness's; `share` is the part of evenly drawn inputs that lose as many.
    """

    output: str
    digits: float
    of: float
    computed: float
    exact: float
    where: Mapping[str, tuple[tuple[float, float], ...]]
    share: float


@dataclass(frozen=True, slots=True, eq=False)
class Finding:
    """One defect: what, where, why, and the input that shows it. Kinds and causes are those of the contract, sections 3 and 4."""

    id: str
    kind: str
    severity: str
    cause: str
    message: str
    op: str
    phase: str
    site: Site | None
    modes: tuple[str, ...] = ()
    related: tuple[str, ...] = ()
    chain: tuple[Step, ...] = ()
    witness: Witness | None = None
    fixes: tuple[Any, ...] = ()
    details: Mapping[str, Any] = field(default_factory=dict)  # what the message says, as data; its keys depend on the kind
    accuracy: Accuracy | None = None


@dataclass(frozen=True, slots=True)
class Open:
    """A site that is neither proven nor refuted, and why."""

    op: str
    site: Site | None
    phase: str
    reason: str


@dataclass(frozen=True, slots=True, eq=False)
class SafeRange:
    """How large the elements of some inputs may be, all other inputs within their domains, in one dtype and mode.

    `inputs` are varied together, mostly one alone. For |x| <= `proven` everything is proven finite (None: for no range at all);
    `failing` is the smallest largest |x| at which a real run failed, the `witness` (None: no failure was found). Between the two nothing
    is known. `whole` says that `proven` is the dtype's largest number. `reason` says in words why there is no proof.
    """

    inputs: tuple[str, ...]
    dtype: str
    mode: str
    proven: float | None
    failing: float | None = None
    witness: Witness | None = None
    whole: bool = False
    reason: str = ""


@dataclass(frozen=True, slots=True, eq=False)
class Report:
    """The answer of a check. `verdict` is "safe", "unsafe" or "undecided" as section 3 of the contract defines them."""

    target: str
    framework: str
    framework_version: str
    dtype: str
    modes: tuple[str, ...]
    verdict: str
    seconds: float
    domain: Mapping[str, Any]  # name -> Domain
    sites: Mapping[str, int]  # total, proven, refuted, undecided
    findings: tuple[Finding, ...] = ()
    undecided: tuple[Open, ...] = ()
    search: Mapping[str, float] = field(default_factory=dict)  # evaluations, seconds
    envelope: Mapping[str, Any] = field(default_factory=dict)  # input -> dtype -> largest |value| with all proven finite, in all modes
    safe_ranges: tuple[SafeRange, ...] = ()  # what the envelope is taken from: both ends, by mode
    notes: tuple[str, ...] = ()
