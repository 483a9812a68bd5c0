"""Front ends: one package per framework, each of which makes a `Program` of a loss. A framework is imported only when it is used."""

import importlib
from collections.abc import Callable
from typing import Any

from whynan.errors import FrameworkMissing, TargetError
from whynan.ir.frontend import Program

FRAMEWORKS = ("torch",)


def load(target: Callable[..., Any], name: str, framework: str) -> Program:
    """The target as a program of that framework.

    Raises TargetError if whynan has no front end for it or the target cannot be called, FrameworkMissing if it is not installed.
    """
    if framework not in FRAMEWORKS:
        raise TargetError(f"whynan has no front end for {framework!r}.", f"Choose from {', '.join(FRAMEWORKS)}.")
    try:
        importlib.import_module(framework)
    except ImportError as error:
        raise FrameworkMissing(f"{name} needs {framework}, which cannot be imported ({error}).", f"Install {framework}.") from error
    program: Program = importlib.import_module(f"{__name__}.{framework}").load(target, name)
    return program
