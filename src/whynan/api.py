"""The verbs: whynan.check, whynan.fix and whynan.explain. Targets and domains are made ready here and handed to the analysis."""

import inspect
import itertools
import os
import sys
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from whynan.analysis.check import check_program, explain_program
from whynan.analysis.refused import known_refusal
from whynan.config import OWN, Settings
from whynan.domain.declare import as_domain, declared_by, project_domains
from whynan.domain.names import candidates, domain_for, is_target, kind_of, with_grad_by_name
from whynan.domain.spec import Domain, const, dtype_name, retyped
from whynan.errors import DomainError, TargetError, WhynanError
from whynan.frontends import FRAMEWORKS, installed, load
from whynan.frontends.raised import site_of
from whynan.ir.dtype import FLOATS, Array
from whynan.ir.frontend import Program
from whynan.models import Composition, compose, goes_with
from whynan.patches.change import Fix
from whynan.report.script import witness_script
from whynan.result import Report
from whynan.target import Target, arguments_of, framework_of, instance, load_target, names_used, uses


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
    target = _target(loss, framework, name)
    stated = stated_domains(target) if isinstance(loss, str) else declared_by(target.callable)
    given = {**(domains or {}), **named}
    more = {"envelope": _envelope_dtypes(envelope), "accuracy": accuracy}
    if model is not None:
        return _check_composed(target, model, stated, given, (modes, dtype, budget, seed), framework, more)
    return _checked(target, {**stated, **given}, (modes, dtype, budget, seed), more)


_Options = tuple[Sequence[str] | str | None, Any, float | None, int]  # modes, dtype, budget, seed


def _envelope_dtypes(envelope: bool | str | Sequence[str]) -> tuple[str, ...]:
    """The dtypes in which safe ranges are wanted, as `Settings.envelope` has them."""
    if isinstance(envelope, bool):
        return (OWN,) if envelope else ()
    names = envelope.split(",") if isinstance(envelope, str) else envelope
    wanted = [f.name for f in FLOATS] if "all" in names else [dtype_name(n.strip() if isinstance(n, str) else n) for n in names]
    strange = [n for n in wanted if n not in {f.name for f in FLOATS}]
    if strange:
        raise DomainError(f"{strange[0]} has no safe range.", f"Use all or one of {', '.join(f.name for f in FLOATS)}.")
    return tuple(dict.fromkeys(wanted))


def _checked(target: Target, given: Mapping[str, Any], options: _Options, more: Mapping[str, Any]) -> Report:
    """The check; `more` are settings beside the options that every program is made ready with."""
    program = _program(target, options[-1])
    settings = replace(_settings(program.framework, *options), **more)
    _refuse_unusual(target, {**arguments_of(target.callable), **given})
    ready = _with_parameters(program, _domains(program, target.callable, given, settings))
    return Report.of(check_program(program, ready, settings, _script_of(program, target.callable, ready, settings.seed), site_of))


def _check_composed(
    target: Target,
    model: Any,
    stated: Mapping[str, Any],
    given: Mapping[str, Any],
    options: _Options,
    framework: str | None,
    more: Mapping[str, Any],
) -> Report:
    """The check of a loss of a model's outputs."""
    both, whole, known = _composed(target, _made(model), stated, given, framework, model)
    with both.explained():
        return _checked(whole, {**known, **_by_output(target, whole, both, known, options[-1])}, options, more)


def _made(model: Any) -> Any:
    return _target(model, None, "").callable if isinstance(model, str) or inspect.isclass(model) else model


def _composed(
    target: Target, made: Any, stated: Mapping[str, Any], given: Mapping[str, Any], framework: str | None, model: Any
) -> tuple[Composition, Target, dict[str, Any]]:
    """The loss of a model's outputs, as a target of its own, and what is known of its inputs' domains."""
    both = compose(target.callable, made, given, target.name)
    names = both.wiring.names
    known = {**{n: d for n, d in stated.items() if n in names and n not in both.wiring.predictions}, **given}
    if both.wiring.target in known:
        domain = as_domain(both.wiring.target, known[both.wiring.target])
        known[both.wiring.target] = domain if domain.grad_given else domain.but(grad=False, grad_given=True)
    called = f"{target.name} of {model if isinstance(model, str) else _model_name(made)}"
    return both, Target(both.callable, called, target.file, framework or target.framework or both.framework), known


def _by_output(target: Target, whole: Target, both: Composition, known: Mapping[str, Any], seed: int) -> dict[str, Domain]:
    """Domains of the loss's other arguments that go with the shape of the model's output: the first with which the loss runs."""
    wiring = both.wiring
    if all(n in known for n in wiring.loss) or not all(n in known for n in wiring.model):
        return {}
    program = _program(whole, seed)
    mode = FRAMEWORKS[program.framework].default[0]
    given = {n: as_domain(n, d) for n, d in known.items()}
    first = _program(Target(both.model, whole.name, whole.file, whole.framework), seed)
    first.run(_example({n: given[n] for n in wiring.model}), (), mode)
    hints = " ".join([target.name.rpartition(":")[2].partition("(")[0], *names_used(target.callable)])
    if not both.shapes:
        return {}
    outputs = {n: domain_for(n, shape, hints) for n, shape in zip(wiring.predictions, both.shapes, strict=True)}
    stated = {own: given[n] for n, own in wiring.loss.items() if n in given}
    for attempt in candidates([*wiring.predictions, *wiring.loss.values()], {**outputs, **stated}, hints):
        guessed = {n: attempt[own] for n, own in wiring.loss.items() if n not in given}
        fits = wiring.target not in guessed or goes_with(guessed[wiring.target], both.shapes[0])
        if fits and not program.run(_example({**given, **guessed}), (), mode).error:
            return guessed
    return {}


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
    return fixed(loss, domains, named, (modes, dtype, budget, seed), framework, name, model)[1]


def fixed(
    loss: Any,
    domains: Mapping[str, Any] | None,
    named: Mapping[str, Any],
    options: _Options,
    framework: str | None = None,
    name: str = "",
    model: Any = None,
) -> tuple[Report, list[Fix]]:
    """The report of a check with the fixes of what it found; the findings hold them too."""
    from whynan.fixing import Job, fixes  # here, since a check needs none of it

    target = _target(loss, framework, name)
    stated = stated_domains(target) if isinstance(loss, str) else declared_by(target.callable)
    given = {**stated, **(domains or {}), **named}
    whole, made, prediction = target, None if model is None else _made(model), ""
    if model is not None:
        both, whole, known = _composed(target, made, stated, {**(domains or {}), **named}, framework, model)
        with both.explained():
            given = {**known, **_by_output(target, whole, both, known, options[-1])}
        prediction = both.wiring.predictions[0] if len(both.wiring.predictions) == 1 else ""
    program = _program(whole, options[-1])
    settings = _settings(program.framework, *options)
    _refuse_unusual(whole, {**arguments_of(whole.callable), **given})
    ready = _with_parameters(program, _domains(program, whole.callable, given, settings))

    def checked(changed: Program) -> Report:
        return Report.of(check_program(changed, ready, settings, _script_of(changed, whole.callable, ready, settings.seed), site_of))

    def remade(changed: Any, beside: Any = None) -> Program:
        return load(changed if model is None else compose(changed, beside, given).callable, whole.name, program.framework, settings.seed)

    report = checked(program)
    job = Job(target.callable, _expression(target.name), program, ready, settings, remade, checked, made, _expression(model), prediction)
    found = fixes(job, report)
    mended = ("non-finite",) if report.verdict == "unsafe" else ("contract",)
    return replace(report, findings=tuple(replace(f, fixes=tuple(found)) if f.kind in mended else f for f in report.findings)), found


def _expression(target: Any) -> str:
    """What names a loss or a model in its module, where it was given as text."""
    if not isinstance(target, str):
        return ""
    return target.rpartition(".py:")[2] if ".py:" in target else target.partition(":")[2]


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
    target = _target(loss, framework, name)
    program = _program(target, seed)
    settings = _settings(program.framework, modes, dtype, None, seed)
    values = {n: _value(n, v) for n, v in {**(tensors or {}), **named}.items()}
    _known(target.callable, values)
    missing = [n for n, needed in arguments_of(target.callable).items() if needed and n not in values]
    if missing:
        raise DomainError(f"no value is given for {', '.join(missing)}.", "Explaining a run needs a value for every argument.")
    fixed = {n: d if d.grad_given else d.but(grad=d.format.is_float) for n, d in values.items()}
    retyped_ = {n: retyped(d, settings.dtype) if settings.dtype else d for n, d in with_grad_by_name(fixed).items()}
    ready = _with_parameters(program, retyped_)
    return Report.of(explain_program(program, ready, settings, _script_of(program, target.callable, ready, settings.seed)))


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
        return fixed(failing, given, {}, (None, None, FIX_SECONDS, 0))[1]

    return watched(what, loss, optimizer, options, fixes)


# ---------------------------------------------------------------- the program


def stated_domains(target: Target) -> dict[str, Any]:
    """What the nearest pyproject.toml and the loss's decorator say of a target's arguments; the decorator goes first."""
    named = arguments_of(target.callable)
    start = target.file.parent if target.file else Path.cwd()
    general = {name: domain for name, domain in project_domains(start, target.name).items() if name in named or not named}
    return {**general, **declared_by(target.callable)}


def _target(loss: Any, framework: str | None, name: str) -> Target:
    """The callable with its name and framework, from a target as text, a class or the loss itself."""
    if isinstance(loss, str):
        loaded = load_target(loss)
        return Target(loaded.callable, name or loaded.name, loaded.file, framework or loaded.framework)
    if inspect.isclass(loss):
        loss = instance(loss, loss.__name__)
    if not callable(loss):
        raise TargetError(f"{name or repr(loss)} is a {type(loss).__name__}, which cannot be called.", "Give a function or a module.")
    return Target(loss, name or _name_of(loss), None, framework or framework_of(loss))


def _refuse_unusual(target: Target, inputs: Collection[str]) -> None:
    """A function that does not compute when called, or that nothing can be passed to by name, cannot be checked."""
    function = inspect.unwrap(target.callable)
    for kind, test in (("generator", inspect.isgeneratorfunction), ("coroutine", inspect.iscoroutinefunction)):
        if test(function) or test(getattr(function, "forward", None)):
            raise TargetError(f"{target.name} is a {kind} function: calling it computes nothing.", "Give a function that returns the loss.")
    if not inputs:
        raise TargetError(f"{target.name} has no named arguments that could be its inputs.", "Wrap it: def loss(p, t): return ...")


def _program(target: Target, seed: int) -> Program:
    """The loss made ready by its framework's front end. A loss that names no framework is taken for one of the first installed."""
    found = target.framework or next(iter(installed()), "torch")
    return load(target.callable, target.name, found, seed)


def _value(name: str, value: Any) -> Domain:
    """A tensor, array, number or constant as a domain of one value."""
    domain = value if isinstance(value, Domain) else as_domain(name, value) if isinstance(value, str) else const(value)
    if domain.value is None:
        raise DomainError(f"{name} = {domain} is a domain, not a value.", "Give a tensor, an array or a number to explain.")
    return domain


def _model_name(model: Any) -> str:
    """A model in a report: a module's class, a function's name."""
    kind = model[0] if isinstance(model, tuple) and model else model
    return getattr(kind, "__qualname__", "") or type(kind).__name__


def _name_of(loss: Any) -> str:
    """`FILE.py:NAME` for what a file defines at its top, so that a script can load it again; else just the name."""
    found = getattr(loss, "__qualname__", "") or type(loss).__name__
    try:
        file = inspect.getsourcefile(inspect.unwrap(loss)) if inspect.isroutine(loss) else None
    except TypeError:
        file = None
    top = file is not None and found.isidentifier() and Path(file).suffix == ".py"
    return f"{file}:{found}" if top else found


def _script_of(program: Program, target: Any, domains: Mapping[str, Domain], seed: int) -> Callable[[Mapping[str, Array], str], str]:
    reachable = program.name if ".py:" in program.name or (":" in program.name and "<" not in program.name) else ""
    if getattr(target, "__module__", "") == compose.__module__:
        reachable = ""  # no text leads to a loss composed with a model
    gradients = tuple(n for n, d in domains.items() if d.grad)
    positional = _positional(target)
    parameters = dict(program.parameters)
    on_keras = "keras" in sys.modules and uses(target, "keras")

    def script(inputs: Mapping[str, Array], mode: str) -> str:
        return witness_script(
            reachable,
            inputs,
            gradients,
            framework=program.framework,
            mode=mode,
            positional=positional,
            parameters=parameters,
            seed=seed,
            environment={"KERAS_BACKEND": program.framework} if on_keras else {},  # Keras runs on the loss's framework
        )

    return script


def _positional(target: Any) -> tuple[str, ...]:
    try:
        parameters = inspect.signature(target).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)


def _settings(framework: str, modes: Sequence[str] | str | None, dtype: Any, budget: float | None, seed: int) -> Settings:
    facts = FRAMEWORKS[framework]
    wanted = tuple(modes.split(",")) if isinstance(modes, str) else tuple(modes or facts.default)
    wanted = facts.modes if "all" in wanted else tuple(m.strip() for m in wanted)
    for mode in wanted:
        if mode not in facts.modes:
            raise TargetError(f"{facts.product} has no mode {mode!r}.", f"Choose from {', '.join(facts.modes)}.")
    base = Settings(modes=wanted, dtype=dtype_name(dtype) if dtype is not None else None, seed=seed)
    if budget is None:
        return base
    return replace(
        base, budget=budget, evaluations=max(base.evaluations, int(budget * 4000)), boxes=int(max(base.boxes, budget * 100_000))
    )


# ---------------------------------------------------------------- the domains


def _domains(program: Program, target: Any, given: Mapping[str, Any], settings: Settings) -> dict[str, Domain]:
    """Domains for all arguments that need one: those given, the others inferred by name and by trying shapes."""
    known = {n: as_domain(n, v) for n, v in given.items()}
    _known(target, known)
    known = {n: retyped(d, settings.dtype) if settings.dtype else d for n, d in known.items()}
    arguments = arguments_of(target)
    missing = [n for n, needed in arguments.items() if needed and n not in known]
    if not missing and not known:  # a signature of defaults alone, `loss(labels=None, logits=None)`: what is an input its name says
        missing = [n for n in arguments if is_target(n, arguments) or kind_of(n) != "real"]
    if not missing:
        return with_grad_by_name(known)
    return _inferred(program, target, known, settings, missing)


def _inferred(program: Program, target: Any, known: Mapping[str, Domain], settings: Settings, missing: Sequence[str]) -> dict[str, Domain]:
    arguments = arguments_of(target)
    wanted = [n for n in arguments if n in missing or n in known]
    logits = ["from_logits=True"] if getattr(target, "from_logits", False) is True else []
    hints = " ".join([program.name.rpartition(":")[2].partition("(")[0], *logits, *names_used(target)])
    optional = [n for n in arguments if n not in wanted and is_target(n, arguments)][:1]  # labels=None, without which some losses raise
    tries = [candidates(wanted, known, hints), *([candidates([*wanted, *optional], known, hints)] if optional else [])]
    refused: list[tuple[str, dict[str, Domain]]] = []
    for attempt in _typed(itertools.chain(*tries), known, settings):
        run = program.run(_example(attempt), tuple(n for n, d in attempt.items() if d.grad), FRAMEWORKS[program.framework].quick)
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


def _example(domains: Mapping[str, Domain]) -> dict[str, Array]:
    import numpy as np

    from whynan.domain import sample

    rng = np.random.default_rng(0)
    return {n: sample.ordinary(d, rng) for n, d in domains.items()}


def _known(target: Any, given: Mapping[str, Any]) -> None:
    """Every domain must belong to an argument."""
    try:
        takes_any = any(p.kind is p.VAR_KEYWORD for p in inspect.signature(getattr(target, "forward", target)).parameters.values())
    except (TypeError, ValueError):
        return
    arguments = arguments_of(target)
    strange = [n for n in given if n not in arguments]
    if strange and arguments and not takes_any:
        raise DomainError(f"the loss has no argument {strange[0]!r}.", f"It takes {', '.join(arguments)}.")


def _with_parameters(program: Program, domains: Mapping[str, Domain]) -> dict[str, Domain]:
    """The parameters of the loss itself are inputs with one value each, differentiated by."""
    own = {n: const(v, grad=True) for n, v in program.parameters.items()}
    return {**domains, **own}
