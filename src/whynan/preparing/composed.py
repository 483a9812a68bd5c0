"""The loss of a model's outputs: as a target of its own, with domains that go with what the model gives."""

import inspect
from collections.abc import Mapping
from typing import Any

from whynan.domain.declare import as_domain
from whynan.domain.names import candidates, domain_for
from whynan.domain.spec import Domain
from whynan.frontends import FRAMEWORKS
from whynan.models import Composition, compose, goes_with
from whynan.preparing.inputs import example, hints
from whynan.preparing.loss import program_of, target_of
from whynan.target import Target


def made(model: Any) -> Any:
    """The model itself, from a target as text, a class, or as it is."""
    return target_of(model, None, "").callable if isinstance(model, str) or inspect.isclass(model) else model


def composed(
    target: Target, model: Any, stated: Mapping[str, Any], given: Mapping[str, Any], framework: str | None, called: str
) -> tuple[Composition, Target, dict[str, Any]]:
    """The loss of a model's outputs, as a target of its own, and what is known of its inputs' domains."""
    both = compose(target.callable, model, given, target.name)
    names = both.wiring.names
    known = {**{n: d for n, d in stated.items() if n in names and n not in both.wiring.predictions}, **given}
    if both.wiring.target in known:
        domain = as_domain(both.wiring.target, known[both.wiring.target])
        known[both.wiring.target] = domain if domain.grad_given else domain.but(grad=False, grad_given=True)
    whole = Target(both.callable, f"{target.name} of {called}", target.file, framework or target.framework or both.framework)
    return both, whole, known


def by_output(target: Target, whole: Target, both: Composition, known: Mapping[str, Any], seed: int) -> dict[str, Domain]:
    """Domains of the loss's other arguments that go with the shape of the model's output: the first with which the loss runs."""
    wiring = both.wiring
    if all(n in known for n in wiring.loss) or not all(n in known for n in wiring.model):
        return {}
    program = program_of(whole, seed)
    mode = FRAMEWORKS[program.framework].default[0]
    given = {n: as_domain(n, d) for n, d in known.items()}
    first = program_of(Target(both.model, whole.name, whole.file, whole.framework), seed)
    first.run(example({n: given[n] for n in wiring.model}), (), mode)
    if not both.shapes:
        return {}
    words = hints(target.callable, target.name)
    outputs = {n: domain_for(n, shape, words) for n, shape in zip(wiring.predictions, both.shapes, strict=True)}
    stated = {own: given[n] for n, own in wiring.loss.items() if n in given}
    for attempt in candidates([*wiring.predictions, *wiring.loss.values()], {**outputs, **stated}, words):
        guessed = {n: attempt[own] for n, own in wiring.loss.items() if n not in given}
        fits = wiring.target not in guessed or goes_with(guessed[wiring.target], both.shapes[0])
        if fits and not program.run(example({**given, **guessed}), (), mode).error:
            return guessed
    return {}


def model_name(model: Any) -> str:
    """A model in a report: the text that it was given as, a module's class, a function's name."""
    if isinstance(model, str):
        return model
    kind = model[0] if isinstance(model, tuple) and model else model
    return getattr(kind, "__qualname__", "") or type(kind).__name__
