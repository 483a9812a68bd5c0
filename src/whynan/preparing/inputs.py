"""A domain for each of a loss's arguments: what is stated, what is given, and for the others what the loss runs on."""

import inspect
import itertools
from collections.abc import Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

from whynan.analysis.refused import known_refusal
from whynan.config import Settings
from whynan.domain import sample
from whynan.domain.declare import as_domain, declared_by, project_domains
from whynan.domain.names import candidates, is_target, kind_of, with_grad_by_name
from whynan.domain.spec import Domain, const, retyped
from whynan.errors import DomainError, TargetError, WhynanError
from whynan.frontends import FRAMEWORKS
from whynan.ir.dtype import Array
from whynan.ir.frontend import Program
from whynan.target import Target, arguments_of, names_used


def stated_domains(target: Target) -> dict[str, Any]:
    """What the nearest pyproject.toml and the loss's decorator say of a target's arguments; the decorator goes first."""
    named = arguments_of(target.callable)
    start = target.file.parent if target.file else Path.cwd()
    general = {name: domain for name, domain in project_domains(start, target.name).items() if name in named or not named}
    return {**general, **declared_by(target.callable)}


def domains_of(program: Program, target: Any, given: Mapping[str, Any], settings: Settings) -> dict[str, Domain]:
    """Domains for all arguments that need one: those given, the others inferred by name and by trying shapes.

    Raises DomainError if an argument is none of the loss's or no usual domain fits, TargetError if no gradient reaches the inputs.
    """
    known = {n: as_domain(n, v) for n, v in given.items()}
    refuse_strange(target, known)
    known = {n: retyped(d, settings.dtype) if settings.dtype else d for n, d in known.items()}
    arguments = arguments_of(target)
    missing = [n for n, needed in arguments.items() if needed and n not in known]
    if not missing and not known:  # a signature of defaults alone, `loss(labels=None, logits=None)`: what is an input its name says
        missing = [n for n in arguments if is_target(n, arguments) or kind_of(n) != "real"]
    if not missing:
        return with_grad_by_name(known)
    return _inferred(program, target, known, settings, missing)


def values_of(target: Any, given: Mapping[str, Any], dtype: str | None) -> dict[str, Domain]:
    """One value for each argument, as domains. Raises DomainError if one is missing or is no single value."""
    values = {n: _value(n, v) for n, v in given.items()}
    refuse_strange(target, values)
    missing = [n for n, needed in arguments_of(target).items() if needed and n not in values]
    if missing:
        raise DomainError(f"no value is given for {', '.join(missing)}.", "Explaining a run needs a value for every argument.")
    marked = {n: d if d.grad_given else d.but(grad=d.format.is_float) for n, d in values.items()}
    return {n: retyped(d, dtype) if dtype else d for n, d in with_grad_by_name(marked).items()}


def with_parameters(program: Program, domains: Mapping[str, Domain]) -> dict[str, Domain]:
    """The parameters of the loss itself are inputs with one value each, differentiated by."""
    own = {n: const(v, grad=True) for n, v in program.parameters.items()}
    return {**domains, **own}


def example(domains: Mapping[str, Domain]) -> dict[str, Array]:
    """One ordinary input, always the same."""
    rng = np.random.default_rng(0)
    return {n: sample.ordinary(d, rng) for n, d in domains.items()}


def hints(target: Any, name: str) -> str:
    """Words that tell what a loss's inputs are: its name and those that its source uses."""
    logits = ["from_logits=True"] if getattr(target, "from_logits", False) is True else []
    return " ".join([name.rpartition(":")[2].partition("(")[0], *logits, *names_used(target)])


def refuse_strange(target: Any, given: Collection[str]) -> None:
    """Every domain must belong to an argument. Raises DomainError."""
    try:
        takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(getattr(target, "forward", target)).parameters.values())
    except (TypeError, ValueError):
        return
    arguments = arguments_of(target)
    strange = [n for n in given if n not in arguments]
    if strange and arguments and not takes_any:
        raise DomainError(f"the loss has no argument {strange[0]!r}.", f"It takes {', '.join(arguments)}.")


def _value(name: str, value: Any) -> Domain:
    """A tensor, array, number or constant as a domain of one value."""
    domain = value if isinstance(value, Domain) else as_domain(name, value) if isinstance(value, str) else const(value)
    if domain.value is None:
        raise DomainError(f"{name} = {domain} is a domain, not a value.", "Give a tensor, an array or a number to explain.")
    return domain


def _inferred(program: Program, target: Any, known: Mapping[str, Domain], settings: Settings, missing: Sequence[str]) -> dict[str, Domain]:
    arguments = arguments_of(target)
    wanted = [n for n in arguments if n in missing or n in known]
    words = hints(target, program.name)
    optional = [n for n in arguments if n not in wanted and is_target(n, arguments)][:1]  # labels=None, without which some losses raise
    tries = [candidates(wanted, known, words), *([candidates([*wanted, *optional], known, words)] if optional else [])]
    refused: list[tuple[str, dict[str, Domain]]] = []
    for attempt in _typed(itertools.chain(*tries), known, settings):
        run = program.run(example(attempt), tuple(n for n, d in attempt.items() if d.grad), FRAMEWORKS[program.framework].quick)
        if not run.error and (run.gradients or not any(d.grad for d in attempt.values())):
            return attempt
        refused.append((run.error, attempt))
    told = next((attempt for error, attempt in refused if known_refusal(error)), None)
    if told is not None:
        return told  # no other input helps: the check says what is wrong
    raise _not_inferred(program.name, [n for n in wanted if n not in known], refused)


def _not_inferred(name: str, missing: Sequence[str], refused: Sequence[tuple[str, Mapping[str, Domain]]]) -> WhynanError:
    """What to tell when no usual domain fits: the loss's own complaint, on what, and how to say what the inputs are."""
    error, attempt = next((r for r in refused if not r[0]), refused[0] if refused else ("", {}))
    tried = ", ".join(f"{n}={attempt[n]}" for n in missing if n in attempt)
    if not error:
        return TargetError(f"no gradient of {name} reaches its inputs (tried {tried}).", _CUT)
    if _RETURNED in error:
        return TargetError(f"{name} returned {error.partition(_RETURNED)[2]} (tried {tried}).", "Return the loss as a tensor.")
    say = " ".join(f'-d "{n}={attempt.get(n, "prob(8, 1)")}"' for n in missing)
    return DomainError(
        f"no usual domain fits {', '.join(missing)}: {name} raised {error.rstrip('.')} on {tried}.", f"Say what they are, as in {say}."
    )


_RETURNED = "the loss returned "
_CUT = "Check that it uses its arguments and returns a tensor: .item(), float() and .detach() cut it off from its gradients."


def _typed(attempts: Iterator[dict[str, Domain]], known: Mapping[str, Domain], settings: Settings) -> Iterator[dict[str, Domain]]:
    """Inferred domains take the dtype asked for, or that of the given ones if they share one."""
    given = {d.dtype for d in known.values() if d.format.is_float}
    dtype = settings.dtype or (given.pop() if len(given) == 1 else None)
    for attempt in attempts:
        yield {n: retyped(d, dtype) if dtype and d.assumed else d for n, d in attempt.items()}
