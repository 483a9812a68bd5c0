"""The loss as a program: what the user gave, loaded by its framework's front end."""

import inspect
import sys
from collections.abc import Callable, Collection, Mapping
from pathlib import Path
from typing import Any

from whynan.domain.spec import Domain
from whynan.errors import TargetError
from whynan.frontends import installed, load
from whynan.ir.dtype import Array
from whynan.ir.frontend import Program
from whynan.models import compose
from whynan.report.script import witness_script
from whynan.target import Target, framework_of, instance, load_target, positional_only, uses

Script = Callable[[Mapping[str, Array], str], str]  # of the inputs and the mode


def target_of(loss: Any, framework: str | None, name: str) -> Target:
    """The callable with its name and framework, from a target as text, a class or the loss itself. Raises TargetError."""
    if isinstance(loss, str):
        loaded = load_target(loss)
        return Target(loaded.callable, name or loaded.name, loaded.file, framework or loaded.framework)
    if inspect.isclass(loss):
        loss = instance(loss, loss.__name__)
    if not callable(loss):
        raise TargetError(f"{name or repr(loss)} is a {type(loss).__name__}, which cannot be called.", "Give a function or a module.")
    return Target(loss, name or _name_of(loss), None, framework or framework_of(loss))


def program_of(target: Target, seed: int) -> Program:
    """The loss made ready by its framework's front end. A loss that names no framework is taken for one of the first installed."""
    found = target.framework or next(iter(installed()), "torch")
    return load(target.callable, target.name, found, seed)


def refuse_unusual(target: Target, inputs: Collection[str]) -> None:
    """A function that does not compute when called, or that nothing can be passed to by name, cannot be checked. Raises TargetError."""
    function = inspect.unwrap(target.callable)
    for kind, test in (("generator", inspect.isgeneratorfunction), ("coroutine", inspect.iscoroutinefunction)):
        if test(function) or test(getattr(function, "forward", None)):
            raise TargetError(f"{target.name} is a {kind} function: calling it computes nothing.", "Give a function that returns the loss.")
    if not inputs:
        raise TargetError(f"{target.name} has no named arguments that could be its inputs.", "Wrap it: def loss(p, t): return ...")


def script_of(program: Program, target: Any, domains: Mapping[str, Domain], seed: int) -> Script:
    """What writes the program that repeats a failure."""
    reachable = program.name if ".py:" in program.name or (":" in program.name and "<" not in program.name) else ""
    if getattr(target, "__module__", "") == compose.__module__:
        reachable = ""  # no text leads to a loss composed with a model
    gradients = tuple(n for n, d in domains.items() if d.grad)
    positional = positional_only(target)
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


def expression_of(target: Any) -> str:
    """What names a loss or a model in its module, where it was given as text."""
    if not isinstance(target, str):
        return ""
    return target.rpartition(".py:")[2] if ".py:" in target else target.partition(":")[2]


def _name_of(loss: Any) -> str:
    """`FILE.py:NAME` for what a file defines at its top, so that a script can load it again; else just the name."""
    found = getattr(loss, "__qualname__", "") or type(loss).__name__
    try:
        file = inspect.getsourcefile(inspect.unwrap(loss)) if inspect.isroutine(loss) else None
    except TypeError:
        file = None
    top = file is not None and found.isidentifier() and Path(file).suffix == ".py"
    return f"{file}:{found}" if top else found
