"""What a search for fixes is given and what it goes through: the loss, sources under repair, changed sources not yet checked."""

import sys
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from whynan.analysis.finding import Finding, Report
from whynan.config import Settings
from whynan.domain.spec import Domain
from whynan.fixes import Proposal
from whynan.frontends.source import USER, kind_of
from whynan.ir.frontend import Program
from whynan.ir.where import Site
from whynan.patches.change import PatchError, read_file
from whynan.patches.load import module_of


@dataclass(frozen=True, eq=False)
class Job:
    """A loss to be fixed: the program, its ready domains, the options, and how to make a program of another callable and check it.

    With a `model`, the program is the loss of its outputs, which become the loss's argument `prediction`; then `remake` takes the loss
    and the model, else the loss alone.
    """

    target: Any
    expression: str  # what names the target in its module; "" where nothing does
    program: Program
    domains: Mapping[str, Domain]
    settings: Settings
    remake: Callable[..., Program]
    check: Callable[[Program], Report]
    model: Any = None
    model_expression: str = ""
    prediction: str = ""

    @property
    def model_home(self) -> ModuleType | None:
        """The module that the model is written in: its function's or its class's, or the one that its expression names it in."""
        home = module_of(self.model)
        if home is not None and kind_of(str(getattr(home, "__file__", ""))) == USER:
            return home
        named = [m for m in list(sys.modules.values()) if self.model_expression and vars(m).get(self.model_expression) is self.model]
        return named[0] if named else None


@dataclass(frozen=True, slots=True)
class Place:
    """An expression to be mended, why ("" if it is only not proven finite), and the modes in which it fails."""

    site: Site
    cause: str
    modes: tuple[str, ...]


@dataclass(frozen=True, eq=False)
class State:
    """A source under repair: the texts of the changed files, the check's answer, and what was done so far."""

    texts: Mapping[Path, str]
    report: Report
    titles: tuple[str, ...] = ()
    proposals: tuple[Proposal, ...] = ()
    notes: tuple[str, ...] = ()  # what a user must know of what was done

    @property
    def place(self) -> Place | None:
        """What is mended next: the first failure, or what the check left open; None if there is nothing."""
        finding = first(self.report)
        if finding is not None:
            return Place(finding.site, finding.cause, finding.modes) if finding.site is not None else None
        return next((Place(o.site, "", ()) for o in self.report.undecided if o.site is not None), None)


@dataclass(frozen=True, eq=False)
class Candidate:
    """A changed source that has not been checked yet."""

    texts: Mapping[Path, str]
    proposal: Proposal
    rank: tuple[int, ...]


def first(report: Report) -> Finding | None:
    """The failure that is mended first; None if there is none."""
    return next((f for f in report.findings if f.kind == "non-finite" and f.severity == "error"), None)


def key_of(finding: Finding | None) -> tuple[object, ...]:
    """What tells failures apart in different states of a source: the file, the function, the expression and its operation, not the line."""
    return () if finding is None or finding.site is None else (finding.site.file, finding.site.function, finding.site.text, finding.op)


def keys(report: Report) -> set[tuple[object, ...]]:
    """The keys of all failures of a report."""
    return {key_of(f) for f in report.findings if f.kind == "non-finite"}


def text_of(path: Path) -> str | None:
    """The text of a source file; None if it cannot be read."""
    try:
        return read_file(path)[0]
    except PatchError:
        return None
