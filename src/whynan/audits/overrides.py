"""Overrides: what inference cannot know about a package's losses, in a small TOML file.

    module = "torch.nn.functional"

    [domains]                                  # of any loss that has an argument of that name
    embeddings = "real(4, 3, low=-10, high=10)"

    [losses.ArcFaceLoss]
    call = "ArcFaceLoss(num_classes=3, embedding_size=3)"   # an expression in the module; without it the name itself
    domains = { labels = "classes(3, 4)", mask = "" }       # an empty text: this argument is not given, whatever [domains] says

    [losses.PerceptualLoss]
    exclude = "it loads the weights of a network from the web"

Files for known packages stand in `overrides/`, one per module, named like it.
"""

import difflib
import tomllib
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any

from whynan.domain.parse import parse
from whynan.errors import DomainError, TargetError

_HINT = "Each [losses.NAME] may say call, domains and exclude (see `whynan audit --help`)."


@dataclass(frozen=True, slots=True)
class Override:
    """What is said of one loss. `call` is an expression in the module, `exclude` the reason why the loss is left out."""

    call: str = ""
    domains: Mapping[str, str] = field(default_factory=dict)
    exclude: str = ""


@dataclass(frozen=True, slots=True)
class Overrides:
    """What is said of a module's losses by name, and the domains of arguments that any of them may have."""

    module: str = ""
    losses: Mapping[str, Override] = field(default_factory=dict)
    domains: Mapping[str, str] = field(default_factory=dict)

    def of(self, name: str) -> Override:
        """What is said of one loss; nothing if it is not named."""
        return self.losses.get(name, Override())

    def plus(self, other: "Overrides") -> "Overrides":
        """Both; where they say different things of a loss or an argument, `other` counts."""
        return Overrides(other.module or self.module, {**self.losses, **other.losses}, {**self.domains, **other.domains})


def shipped(module: str) -> Overrides:
    """The overrides that come with whynan for a known module; empty for any other."""
    file = resources.files("whynan.audits").joinpath("overrides", f"{module}.toml")
    return _read(file.read_text("utf-8"), file.name) if file.is_file() else Overrides(module)


def from_file(file: Path) -> Overrides:
    """The overrides of a user's file. Raises TargetError if it is missing or no TOML, or says what is not known."""
    try:
        text = file.read_text("utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise TargetError(f"{file} cannot be read: {error}.", "Check the path given to --overrides.") from None
    return _read(text, str(file))


def unused(overrides: Overrides, names: set[str]) -> str:
    """A complaint about the first override of a loss that the module does not have; empty if there is none."""
    strange = next((n for n in overrides.losses if n not in names), None)
    if strange is None:
        return ""
    close = difflib.get_close_matches(strange, names, 1)
    return f"there is no loss {strange!r}" + (f"; did you mean {close[0]}?" if close else ".")


def _read(text: str, place: str) -> Overrides:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        raise TargetError(f"{place} is no TOML: {error}.", "Mend the file.") from None
    _only(table, {"module", "domains", "losses"}, place)
    losses = table.get("losses", {})
    if not isinstance(losses, Mapping) or not all(isinstance(entry, Mapping) for entry in losses.values()):
        raise TargetError(f"{place}: losses must be tables.", _HINT)
    module = table.get("module", "")
    return Overrides(
        module if isinstance(module, str) else "",
        {name: _override(entry, f"{place}, {name}") for name, entry in losses.items()},
        _domains(table.get("domains", {}), place),
    )


def _override(entry: Mapping[str, Any], place: str) -> Override:
    _only(entry, {"call", "domains", "exclude"}, place)
    texts = {key: entry.get(key, "") for key in ("call", "exclude")}
    for key, text in texts.items():
        if not isinstance(text, str) or (key in entry and not text.strip()):
            raise TargetError(f"{place}: {key} must be a text that is not empty.", _HINT)
    return Override(texts["call"], _domains(entry.get("domains", {}), place), texts["exclude"])


def _domains(entry: Any, place: str) -> dict[str, str]:
    if not isinstance(entry, Mapping) or not all(isinstance(text, str) for text in entry.values()):
        raise TargetError(f'{place}: domains must be texts by argument, as in {{ p = "prob(8, 1)" }}.', _HINT)
    for name, text in entry.items():
        try:
            if text:
                parse(text)
        except DomainError as error:
            raise DomainError(f"{place}: {name}: {error.message}", error.hint) from None
    return dict(entry)


def _only(entry: Mapping[str, Any], known: set[str], place: str) -> None:
    strange = next((key for key in entry if key not in known), None)
    if strange is not None:
        raise TargetError(f"{place}: {strange!r} is not known there.", _HINT)
