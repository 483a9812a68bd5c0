"""Losses to attack, by theme. A module's `CASES` maps a function's name to its domains."""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whynan.domain.declare import as_domain
from whynan.domain.spec import Domain

GALLERY = Path(__file__).resolve().parents[4] / "examples" / "gallery"


@dataclass(frozen=True)
class Case:
    """A loss and its domains (in float32)."""

    name: str
    loss: Callable[..., Any]
    domains: Mapping[str, Domain]


def cases() -> Iterator[Case]:
    """The collection."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        module = importlib.import_module(f"{__name__}.{path.stem}")
        for name, domains in module.CASES.items():
            yield Case(f"{path.stem}.{name}", getattr(module, name), domains)


def gallery() -> Iterator[Case]:
    """The gallery's losses."""
    for path in sorted(GALLERY.glob("*.py")):
        spec = importlib.util.spec_from_file_location(f"gallery_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name in getattr(module, "EXPECTED", {}):
            domains = {n: as_domain(n, d) for n, d in module.DOMAINS.items()}
            yield Case(f"gallery.{path.stem}.{name}", getattr(module, name), domains)
