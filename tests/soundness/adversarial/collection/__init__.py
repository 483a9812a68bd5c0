"""Losses to attack, by theme. A module's `CASES` maps a function's name to its domains, a name that ends
in _jax or _tensorflow says what it is written in (else PyTorch).

Beside them stand the gallery's losses and those of the suite that is spelt in every framework (tests/conformance/losses).
"""

import importlib
import importlib.util
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from whynan.domain.declare import as_domain
from whynan.domain.names import with_grad_by_name
from whynan.domain.spec import Domain

GALLERY = Path(__file__).resolve().parents[4] / "examples" / "gallery"


@dataclass(frozen=True)
class Case:
    """A loss and its domains (in float32)."""

    name: str
    loss: Callable[..., Any]
    domains: Mapping[str, Domain]


FOLDERS = {"torch": ("",), "jax": ("jax_losses",), "tensorflow": ("tensorflow_losses", "keras_losses")}
SPELLINGS = {"torch": "pytorch", "jax": "jax_", "tensorflow": "tensorflow_"}


def cases(framework: str = "torch") -> Iterator[Case]:
    """The collection."""
    for path in sorted(Path(__file__).parent.glob("[a-z]*.py")):
        if (path.stem.rpartition("_")[2] if path.stem.endswith(("_jax", "_tensorflow")) else "torch") != framework:
            continue
        module = importlib.import_module(f"{__name__}.{path.stem}")
        for name, domains in module.CASES.items():
            yield Case(f"{path.stem}.{name}", getattr(module, name), domains)


def suite(framework: str = "torch") -> Iterator[Case]:
    """The losses of the suite that is spelt in every framework."""
    from tests.conformance.losses.cases import CASES

    module = importlib.import_module(f"tests.conformance.losses.{SPELLINGS[framework]}")
    for case in CASES:
        domains = with_grad_by_name({n: as_domain(n, d) for n, d in case.domains.items()})
        yield Case(f"suite.{case.name}", getattr(module, case.name), domains)


def gallery(framework: str = "torch") -> Iterator[Case]:
    """The gallery's losses."""
    for path in (p for folder in FOLDERS[framework] for p in sorted((GALLERY / folder).glob("*.py"))):
        spec = importlib.util.spec_from_file_location(f"gallery_{path.stem}", path)
        assert spec is not None and spec.loader is not None
        module = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
        for name in getattr(module, "EXPECTED", {}):
            domains = {n: as_domain(n, d) for n, d in module.DOMAINS.items()}
            yield Case(f"gallery.{path.stem}.{name}", getattr(module, name), domains)
