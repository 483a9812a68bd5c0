"""Domains stated beside the code: the `@whynan.domains(...)` decorator and the tables of `pyproject.toml`.

    [tool.whynan.domains]
    p = "prob(8, 1)"                          # for every loss of the project that has an argument p

    [tool.whynan.domains."losses.py:focal"]
    t = "binary(8, 1)"                        # for this target alone
"""

import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, TypeVar

from whynan.domain.names import of_array
from whynan.domain.parse import parse
from whynan.domain.spec import Domain, const
from whynan.errors import DomainError

Loss = TypeVar("Loss", bound=Callable[..., Any])

_ATTRIBUTE = "__whynan_domains__"


def domains(**declared: Any) -> Callable[[Loss], Loss]:
    """A decorator that states a loss's domains where the loss is defined.

    Values are domains, their notation as text, or arrays. The loss itself is returned unchanged but for one attribute.
    Domains given to a verb or on the command line go before those declared so.
    """
    ready = {name: as_domain(name, value) for name, value in declared.items()}

    def mark(loss: Loss) -> Loss:
        setattr(loss, _ATTRIBUTE, {**declared_by(loss), **ready})
        return loss

    return mark


def declared_by(loss: Any) -> dict[str, Domain]:
    """What `@whynan.domains(...)` said of the loss (or of its class), else nothing."""
    found = getattr(loss, _ATTRIBUTE, None)
    return dict(found) if isinstance(found, Mapping) else {}


def as_domain(name: str, value: Any) -> Domain:
    """A domain from a domain, its notation, a number or list (a constant), or an array or tensor (its shape, dtype and kind)."""
    if isinstance(value, Domain):
        return value
    try:
        if isinstance(value, int | float | list | tuple):
            return const(value)
        return parse(value) if isinstance(value, str) else of_array(value, name)
    except DomainError as error:
        raise DomainError(f"{name}: {error.message}", error.hint) from None


def project_domains(start: Path, target: str = "") -> dict[str, Domain]:
    """The domains that the nearest `pyproject.toml` at or above `start` gives for a target, the target's own before the general ones.

    Raises DomainError if the file or one of its domains is malformed.
    """
    file = next((f for folder in (start, *start.parents) if (f := folder / "pyproject.toml").is_file()), None)
    if file is None:
        return {}
    try:
        table = tomllib.loads(file.read_text(encoding="utf-8")).get("tool", {}).get("whynan", {}).get("domains", {})
    except (OSError, UnicodeDecodeError, tomllib.TOMLDecodeError) as error:
        raise DomainError(f"{file} cannot be read: {error}.", "Mend the file.") from None
    return from_table(table, target)


def from_table(table: Any, target: str = "") -> dict[str, Domain]:
    """The domains of a `[tool.whynan.domains]` table: its own entries, then those of the sub-table named like the target."""
    if not isinstance(table, Mapping):
        raise DomainError("[tool.whynan.domains] is not a table.", 'Write lines like p = "prob(8, 1)" in it.')
    own = table.get(target, {}) if target else {}
    general = {name: value for name, value in table.items() if not isinstance(value, Mapping)}
    return {name: as_domain(f"[tool.whynan.domains] {name}", value) for name, value in {**general, **own}.items()}
