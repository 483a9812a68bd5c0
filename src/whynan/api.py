"""The verbs: whynan.check, whynan.fix, whynan.explain and whynan.watch."""

import os
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whynan.analysis.check import explain_program
from whynan.patches.change import Fix
from whynan.preparing.inputs import values_of, with_parameters
from whynan.preparing.loss import expression_of, program_of, script_of, target_of
from whynan.preparing.options import Options, settings_of
from whynan.preparing.ready import made_ready
from whynan.result import Report


def check(
    loss: Any,
    /,
    *,
    domains: Mapping[str, Any] | None = None,
    framework: str | None = None,
    modes: Sequence[str] | str | None = None,
    dtype: Any = None,
    budget: float | None = None,
    seed: int = 0,
    name: str = "",
    model: Any = None,
    envelope: bool | str | Sequence[str] = False,
    accuracy: bool = False,
    **named: Any,
) -> Report:
    """Can this loss, or a gradient of it, become NaN or Inf on these inputs? Where, why, on which input?

    `loss` is a function, a module, or a target as text ("losses.py:focal"). Domains are given by argument name: a domain
    (`whynan.prob(8, 1)`), its notation as text, or a concrete array, which stands for its shape, dtype and kind of values. What is
    not given comes from the loss's `@whynan.domains(...)`, for a target as text from `[tool.whynan.domains]` of the nearest
    `pyproject.toml`, and else from the arguments' names; then it is reported as assumed. `dtype` overrides the dtype of all
    floating domains. With a `model`, a callable or a target as text, the loss is that of the model's outputs: its predictions are no
    inputs any more, `x` is the model's input and `y` the loss's target (or each by its own name). `budget` is the search's time in
    seconds per mode, `seed` starts its and the loss's own random numbers. With `envelope` the report also says up to which magnitude of
    each unbounded input everything is proven finite: True for the dtypes of the domains, "all" or dtypes for those. With `accuracy` the
    correct digits of the loss and its gradients are counted, too: where more than half are lost, a warning names the expression that
    loses them.

    Raises TargetError or DomainError if the loss cannot be loaded or run on its domain.
    """
    options = Options(modes, dtype, budget, seed, envelope, accuracy)
    ready = made_ready(loss, {**(domains or {}), **named}, options, framework, name, model)
    return ready.checked(ready.program)


def fix(
    loss: Any,
    /,
    *,
    domains: Mapping[str, Any] | None = None,
    framework: str | None = None,
    modes: Sequence[str] | str | None = None,
    dtype: Any = None,
    budget: float | None = None,
    seed: int = 0,
    name: str = "",
    model: Any = None,
    **named: Any,
) -> list[Fix]:
    """Which change of the source keeps this loss and its gradients finite, and what is proven about that change? Best first.

    The loss is checked as by `check`, whose arguments these are; the list is empty if it has no failure. Nothing is changed on disk:
    `fixes[0].apply()` does that. A fix whose `applicability` is "verified" is proven finite on the same domains and has the original's
    value wherever that is finite. With a `model` that ends in a sigmoid or a softmax, one of the changes may be that it returns logits.
    Raises as `check` does.
    """
    options = {"modes": modes, "dtype": dtype, "budget": budget, "seed": seed}
    return fixed(loss, {**(domains or {}), **named}, framework=framework, name=name, model=model, **options)[1]


def fixed(
    loss: Any, domains: Mapping[str, Any], *, framework: str | None = None, name: str = "", model: Any = None, **options: Any
) -> tuple[Report, list[Fix]]:
    """The report of a check with the fixes of what it found; the findings hold them too. `options` are those of `Options`."""
    from whynan.fixing import Job, fixes  # here, since a check needs none of it

    ready = made_ready(loss, domains, Options(**options), framework, name, model)
    report = ready.checked(ready.program)
    predictions = ready.both.wiring.predictions if ready.both is not None else ()
    job = Job(
        ready.loss.callable,
        expression_of(ready.loss.name),
        ready.program,
        ready.domains,
        ready.settings,
        ready.remade,
        ready.checked,
        ready.model,
        expression_of(model),
        predictions[0] if len(predictions) == 1 else "",
    )
    found = fixes(job, report)
    mended = ("non-finite",) if report.verdict == "unsafe" else ("contract",)
    return replace(report, findings=tuple(replace(f, fixes=tuple(found)) if f.kind in mended else f for f in report.findings)), found


def explain(
    loss: Any,
    /,
    *,
    tensors: Mapping[str, Any] | None = None,
    framework: str | None = None,
    modes: Sequence[str] | str | None = None,
    dtype: Any = None,
    seed: int = 0,
    name: str = "",
    **named: Any,
) -> Report:
    """What happens on this concrete input, step by step? The report names the first non-finite value and how it travelled.

    Tensors are given by argument name. Raises TargetError if the loss raises on them. Given the folder of a recorded incident instead
    (a path, or the text of one), it tells that, and executes nothing from it; raises IncidentError if the folder holds none.
    """
    if isinstance(loss, os.PathLike) or (isinstance(loss, str) and os.path.isdir(loss)):
        from whynan.watching.explained import explain_incident  # here, since nothing else needs it

        return explain_incident(Path(loss))
    target = target_of(loss, framework, name)
    program = program_of(target, seed)
    settings = settings_of(program.framework, Options(modes, dtype, None, seed))
    ready = with_parameters(program, values_of(target.callable, {**(tensors or {}), **named}, settings.dtype))
    return Report.of(explain_program(program, ready, settings, script_of(program, target.callable, ready, settings.seed)))


FIX_SECONDS = 2.0  # of search, for the fixes of a loss that has failed in training


def watch(what: Any, /, *, loss: Any = None, optimizer: Any = None, **options: Any) -> Any:
    """Watch a training run: a step whose loss or gradients are not finite is not applied, and is explained.

    In PyTorch `what` is the model (or several), `loss` the criterion, a module or a function, and `optimizer` the optimizer (or several);
    the loop stays as it is. The result is a context manager and has `close()`, `incidents`, `step`, `bad_steps` and `flight`. `options` are
    those of `whynan.watching.policy.Options`: policy, patience, every, on_incident, folder, save_batch, ... By default the first bad step
    raises NonFiniteError before the update, with the explanation.

    Raises WhynanError if this cannot be watched or an option is unknown.
    """
    from whynan.watching.doors import watched  # a check needs none of it

    def fixes(failing: Any, given: Mapping[str, Any]) -> Sequence[Fix]:
        return fixed(failing, given, budget=FIX_SECONDS)[1]

    return watched(what, loss, optimizer, options, fixes)
