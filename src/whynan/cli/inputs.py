"""What a command is given: the target, its domains, arrays in files."""

import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from typing import Any

from whynan.domain.parse import parse_assignments
from whynan.errors import DomainError
from whynan.target import Target, arguments_of, load_target


def load_quietly(target: str) -> Target:
    """The target. What its file prints when imported goes to stderr: stdout is the report's."""
    with redirect_stdout(sys.stderr):
        return load_target(target)


@contextmanager
def silent() -> Iterator[None]:
    """What the loss prints is dropped: it is run hundreds of times."""
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        yield


def passed_on(target: Target, options: Mapping[str, Any]) -> dict[str, Any]:
    """The options of the api's verbs."""
    return {
        "name": target.name,
        "framework": options["framework"] or target.framework,
        "modes": modes_of(options["modes"]),
        "dtype": options["dtype"],
        "seed": options["seed"],
    }


def modes_of(given: Sequence[str]) -> tuple[str, ...] | None:
    """The modes of repeated --mode options, which may have commas; None if there is none."""
    return tuple(mode.strip() for text in given for mode in text.split(",") if mode.strip()) or None


def domains_given(target: Target, options: Mapping[str, Any], stated: bool = True, composed: bool = False) -> dict[str, Any]:
    """Domains by argument: what is stated in pyproject.toml and by the decorator, the sample file, -d; later ones win.

    A loss composed with a model has other arguments: the sample file's arrays are taken as they are, and the api knows what is stated.
    """
    named = {} if composed else arguments_of(target.callable)
    given = {**_samples(options["samples"], named), **parse_assignments(options["domains"])}
    if not stated or composed:
        return given
    from whynan.preparing.inputs import stated_domains  # imported late: usage errors need none of it

    return {**stated_domains(target), **given}


def _samples(file: Path | None, named: Mapping[str, bool]) -> dict[str, Any]:
    """The arrays of a sample file that the loss has arguments for; it is an error if there are none."""
    if file is None:
        return {}
    from whynan.samples import load_samples

    arrays = load_samples(file)
    used = {name: array for name, array in arrays.items() if name in named or not named}
    if not used:
        raise DomainError(f"{file} holds {', '.join(arrays)}, but the loss takes {', '.join(named)}.", "Save the arrays by those names.")
    return used


def constants(domains: Mapping[str, Any]) -> dict[str, Any]:
    """The concrete arrays that `explain` runs on; a domain that is no single value is an error."""
    values = {name: getattr(domain, "value", domain) for name, domain in domains.items()}
    vague = [name for name, value in values.items() if value is None]
    if vague or not values:
        which = f"{', '.join(vague)}: that is a domain, not a value." if vague else "there is no input to explain."
        raise DomainError(which, 'Give one with --samples FILE or -d "p=[1.0, 0.5]".')
    return values
