"""Everything that an analysis is given, from what the user gave."""

from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import dataclass
from typing import Any

from whynan.analysis.check import check_program
from whynan.config import Settings
from whynan.domain.declare import declared_by
from whynan.domain.spec import Domain
from whynan.frontends import load
from whynan.frontends.raised import site_of
from whynan.ir.frontend import Program
from whynan.models import Composition, compose
from whynan.preparing.composed import by_output, composed, made, model_name
from whynan.preparing.inputs import domains_of, stated_domains, with_parameters
from whynan.preparing.loss import program_of, refuse_unusual, script_of, target_of
from whynan.preparing.options import Options, settings_of
from whynan.result import Report
from whynan.target import Target, arguments_of


@dataclass(frozen=True, slots=True)
class Ready:
    """A loss that can be checked.

    `loss` is the loss itself, `whole` what is checked: the same, or the loss of a `model`'s outputs (then `both` is the composition).
    `given` is what is known of the inputs, `domains` holds a domain for each of them.
    """

    loss: Target
    whole: Target
    model: Any
    both: Composition | None
    given: Mapping[str, Any]
    program: Program
    domains: Mapping[str, Domain]
    settings: Settings

    def checked(self, program: Program) -> Report:
        """The report on this program, which is this loss's, or one of the loss after a change of its source."""
        script = script_of(program, self.whole.callable, self.domains, self.settings.seed)
        with _explained(self.both):
            return Report.of(check_program(program, self.domains, self.settings, script, site_of))

    def remade(self, loss: Callable[..., Any], model: Any = None) -> Program:
        """The program of another loss, of that model's outputs if this is one of a model's."""
        whole = loss if self.both is None else compose(loss, model, self.given).callable
        return load(whole, self.whole.name, self.program.framework, self.settings.seed)


def made_ready(loss: Any, domains: Mapping[str, Any], options: Options, framework: str | None, name: str, model: Any) -> Ready:
    """Load the loss, compose it with the model if there is one, and find a domain for every input.

    Raises TargetError or DomainError if the loss cannot be loaded or run on its domain.
    """
    target = target_of(loss, framework, name)
    stated = stated_domains(target) if isinstance(loss, str) else declared_by(target.callable)
    whole, given, both = target, {**stated, **domains}, None
    model_itself = None if model is None else made(model)
    if model is not None:
        both, whole, given = composed(target, model_itself, stated, domains, framework, model_name(model))
    with _explained(both):
        if both is not None:
            given = {**given, **by_output(target, whole, both, given, options.seed)}
        program = program_of(whole, options.seed)
        settings = settings_of(program.framework, options)
        refuse_unusual(whole, {**arguments_of(whole.callable), **given})
        ready = with_parameters(program, domains_of(program, whole.callable, given, settings))
    return Ready(target, whole, model_itself, both, given, program, ready, settings)


def _explained(both: Composition | None) -> AbstractContextManager[None]:
    return nullcontext() if both is None else both.explained()
