"""Front ends: one package per framework, each of which makes a `Program` of a loss. A framework is imported only when it is used."""

import importlib
import os
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from types import MappingProxyType
from typing import Any

from whynan.errors import FrameworkMissing, TargetError
from whynan.ir.frontend import Program


@dataclass(frozen=True, slots=True)
class Framework:
    """What is known of a framework without importing it: its name in prose, the programs it makes of a loss, those checked by default.

    `quick` is the mode in which a loss runs soonest on inputs of a new shape.
    """

    product: str
    modes: tuple[str, ...]
    default: tuple[str, ...]
    quick: str


FRAMEWORKS = MappingProxyType(
    {
        "torch": Framework("PyTorch", ("eager", "compile"), ("eager",), "eager"),
        "tensorflow": Framework("TensorFlow", ("eager", "function", "xla"), ("eager", "function"), "eager"),
        "jax": Framework("JAX", ("jit", "eager"), ("jit",), "jit"),
    }
)


def installed() -> tuple[str, ...]:
    """The frameworks that this Python could import; none is imported to find out."""
    return tuple(name for name in FRAMEWORKS if find_spec(name) is not None)


def quieten() -> None:
    """No chatter of TensorFlow's C++ part on stderr, unless the user asks for it. It reads this once, when it is first imported."""
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")


def load(target: Callable[..., Any], name: str, framework: str, seed: int = 0) -> Program:
    """The target as a program of that framework, whose random numbers are drawn under `seed`.

    Raises TargetError if whynan has no front end for it or the target cannot be called, FrameworkMissing if it is not installed.
    """
    if framework not in FRAMEWORKS:
        raise TargetError(f"whynan has no front end for {framework!r}.", f"Choose from {', '.join(FRAMEWORKS)}.")
    quieten()
    try:
        importlib.import_module(framework)
    except ImportError as error:
        product = FRAMEWORKS[framework].product
        raise FrameworkMissing(f"{product} cannot be imported ({error}).", f"Install it with: pip install 'whynan[{framework}]'") from error
    program: Program = importlib.import_module(f"{__name__}.{framework}").load(target, name, seed)
    return program
