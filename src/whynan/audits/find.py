"""Which of a module's public names are losses, by signature and name.

A loss is a function or a class whose name says so (`…Loss`, `cross_entropy`, `kl_div`), or, in a module of losses, one that takes a
target. What is found under two names is one loss with an alias.
"""

import inspect
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from itertools import pairwise
from types import ModuleType
from typing import Any

from whynan.domain.names import is_target, words_of
from whynan.target import arguments_of

_NAMES = frozenset(
    "loss losses bce nll mse mae kld crossentropy focal dice jaccard tversky lovasz hinge huber triplet ssim psnr ntxent giou ctc".split()
)
_PAIRS = frozenset({("cross", "entropy"), ("kl", "div"), ("kl", "divergence"), ("js", "div"), ("squared", "error"), ("total", "variation")})
_METHODS = ("forward", "call", "__call__")


@dataclass(frozen=True, slots=True)
class Found:
    """A loss that a module exports: its name there, the other names of the same object, and what it needs to be made (a class)."""

    name: str
    aliases: tuple[str, ...] = ()
    needs: tuple[str, ...] = field(default=())


def find_losses(module: ModuleType) -> tuple[list[Found], list[str]]:
    """The losses among a module's public names, in their order, and the callables that are none."""
    home = is_home(module.__name__)
    by_object: dict[int, list[str]] = {}
    others = []
    for name in public_names(module):
        value = getattr(module, name, None)
        if not callable(value) or inspect.ismodule(value):
            continue
        if is_loss(name, value, home):
            by_object.setdefault(id(value), []).append(name)
        else:
            others.append(name)
    found = []
    for names in by_object.values():
        value = getattr(module, names[0])
        own = getattr(value, "__name__", "")
        first = own if own in names else names[0]
        found.append(Found(first, tuple(n for n in names if n != first), _needed(value)))
    return found, others


def public_names(module: ModuleType) -> list[str]:
    """The names that a module exports: its `__all__`, else those without a leading underscore that it does not import from elsewhere."""
    stated = getattr(module, "__all__", None)
    if stated is not None:
        return list(dict.fromkeys(map(str, stated)))
    root = module.__name__.partition(".")[0]
    return [n for n, value in vars(module).items() if not n.startswith("_") and _home(value).partition(".")[0] in (root, "")]


def is_home(module: str) -> bool:
    """Whether a module is one of losses, by its name: `keras.losses`, `my_loss`."""
    return any(word in ("loss", "losses") for part in module.split(".") for word in words_of(part))


def is_loss(name: str, value: Any, home: bool) -> bool:
    """Whether a callable is a loss: it computes from at least one argument, and its name or, in a module of losses, a target says so."""
    if inspect.isclass(value):
        method = _method(value)
        if method is None or inspect.isabstract(value):
            return False
        return words_of(name)[-1:] == ["loss"] or (home and (_called_so(name) or _compares(method)))
    arguments = arguments_of(value)
    return bool(arguments) and (_called_so(name) or (home and _compares(value)))


def _called_so(name: str) -> bool:
    words = words_of(name)
    return bool(_NAMES & {*words}) or bool(_PAIRS & {*pairwise(words)})


def _compares(function: Callable[..., Any]) -> bool:
    """Whether a function takes a target beside something to compare it with."""
    names = [n for n in arguments_of(function) if n != "self"]
    return len(names) > 1 and any(is_target(n, names) for n in names)


def _method(cls: type) -> Any:
    """What computes when an object of the class is called; None if nothing does."""
    own = (vars(base).get(name) for name in _METHODS for base in cls.__mro__)
    return next((method for method in own if callable(method)), None)


def _needed(value: Any) -> tuple[str, ...]:
    """The arguments that a class cannot be made without."""
    if not inspect.isclass(value):
        return ()
    try:
        parameters = inspect.signature(value).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD))


def _home(value: Any) -> str:
    return str(getattr(value, "__module__", "") or "")


def versions(module: ModuleType) -> dict[str, str]:
    """The version of the module's own package and of the frameworks that it has loaded."""
    packages = [module.__name__.partition(".")[0], "torch", "tensorflow", "keras", "jax"]
    known = {name: getattr(sys.modules.get(name), "__version__", None) for name in dict.fromkeys(packages)}
    return {name: str(version) for name, version in known.items() if version is not None}
