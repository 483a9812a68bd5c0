"""How a step is run again elsewhere: the user's model, loss or step as an import, and calls of them as Python text. Knows no framework."""

import ast
import functools
import inspect
import math
import os
import sys
import textwrap
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields, is_dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

from whynan.watching.record import Piece, Recipe

_LONGEST_TEXT = 2000  # of how an object prints
_PLAIN = (bool, int, float, str, type(None))


def piece(name: str, thing: Any) -> Piece:
    """How another program gets this function, class instance or class: by import, as far as an import leads to it."""
    if isinstance(thing, functools.partial):
        return Piece(name, missing="it is a functools.partial", shown=_shown(thing))
    if inspect.ismethod(thing):
        return Piece(name, missing="it is a method of an object", shown=_shown(thing))
    instance = not (inspect.isfunction(thing) or inspect.isbuiltin(thing) or inspect.isclass(thing)) and not hasattr(thing, "__wrapped__")
    home = type(thing) if instance else thing
    folder, path, why = _importable(home, getattr(home, "__module__", None) or "", getattr(home, "__qualname__", ""))
    if why:
        return Piece(name, missing=why, shown=_shown(thing))
    if not instance:
        return Piece(name, path, folder=folder)
    called, needed = home.__qualname__, _needed(home)
    missing = f"{called}({', '.join(needed)}) needs arguments" if needed else _container(thing, called)
    return Piece(name, path, "", True, folder, missing, _shown(thing), _settings(thing))


def _importable(home: Any, module: str, name: str) -> tuple[str, str, str]:
    """The folder to import from, "module:name", and why neither helps (empty if they do)."""
    loaded = sys.modules.get(module)
    if name == "<lambda>":
        name = next((n for n, v in vars(loaded).items() if v is home), name) if loaded is not None else name
    if "<" in name or not name:
        return "", "", f"{name or 'it'} is defined inside a function or has no name"
    found = None if loaded is None else _attribute(loaded, name)
    if found is None or not (found is home or _wrapped(found) is home or _wrapped(home) is found):
        return "", "", f"{module}.{name} is something else than what was used"
    name = f"{name}.__wrapped__" if found is not home and _wrapped(found) is home else name
    file = getattr(loaded, "__file__", None)
    if module != "__main__":
        return _root(file, module), f"{module}:{name}", ""
    if file is None:
        return "", "", f"{name} was defined in an interactive session"
    if not _guarded(Path(file)):
        return "", "", f"{name} is defined in {file}, which would train again if it were imported"
    return str(Path(file).resolve().parent), f"{Path(file).stem}:{name}", ""


def _attribute(module: ModuleType, name: str) -> Any:
    value: Any = module
    for part in name.split("."):
        value = getattr(value, part, None)
    return value


def _wrapped(thing: Any) -> Any:
    """What a decorator has wrapped, None if there is nothing inside."""
    return getattr(thing, "__wrapped__", None)


def _root(file: str | None, module: str) -> str:
    """The folder that a module is imported from; empty for the standard library and installed packages, which need none."""
    if file is None or "site-packages" in file or "dist-packages" in file or file.startswith(os.path.dirname(os.__file__)):
        return ""
    above = Path(file).resolve().parents
    depth = module.count(".") + (Path(file).stem == "__init__")
    return str(above[depth]) if depth < len(above) else ""


def _guarded(file: Path) -> bool:
    """Whether a script keeps its work behind `if __name__ == "__main__":`, so that it may be imported."""
    try:
        body = ast.parse(file.read_text(encoding="utf-8")).body
    except (OSError, SyntaxError, ValueError):
        return False
    return any(isinstance(s, ast.If) and "__name__" in ast.unparse(s.test) and "__main__" in ast.unparse(s.test) for s in body)


def _needed(home: Any) -> list[str]:
    """The constructor's arguments without a default."""
    try:
        parameters = inspect.signature(home).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind in (p.POSITIONAL_ONLY, p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]


def _container(thing: Any, name: str) -> str:
    """Why a container of the framework's own (Sequential, ModuleList) cannot be made from its class: what is in it is unknown."""
    own = type(thing).__module__.partition(".")[0] in ("torch", "keras", "tensorflow")
    holds = bool(getattr(thing, "_modules", None) or getattr(thing, "layers", None))
    return f"a {name} is made of parts that only your code knows" if own and holds else ""


def _settings(thing: Any) -> dict[str, Any]:
    """The plain public attributes of an object: what its constructor was given, where it keeps that."""
    try:
        return {k: v for k, v in vars(thing).items() if not k.startswith("_") and k != "training" and isinstance(v, _PLAIN)}
    except TypeError:
        return {}


def _shown(thing: Any) -> str:
    """The source of a function, what anything else prints as."""
    try:
        text = textwrap.dedent(inspect.getsource(thing)).rstrip() if inspect.isroutine(thing) else repr(thing)
    except Exception:  # the user's own __repr__, a source that is not there
        return ""
    return text if len(text) <= _LONGEST_TEXT else text[:_LONGEST_TEXT] + " ..."


# ---------------------------------------------------------------- calls


@dataclass(slots=True)
class Writer:
    """Writes calls as Python text and collects the tensors that they name.

    `is_tensor` tells tensors, `known` are objects that stand for some text, such as the model's output. What no text can stand for
    becomes a call of `unknown(...)`, which raises when the program gets there. Data that are differentiated by are stored as such.
    """

    is_tensor: Callable[[Any], bool]
    known: list[tuple[Any, str]] = field(default_factory=list)
    tensors: dict[str, Any] = field(default_factory=dict)

    def call(self, callee: str, arguments: Mapping[str | int, Any], groups: Mapping[str | int, str] | None = None) -> str:
        """A call with arguments by name or, where the key is a number, by position: "model(given['batch/x'])".

        Its tensors are stored as GROUP/ARGUMENT; the group is "batch" where `groups` says nothing else ("parameters", "rng").
        """
        parts = []
        for key, value in arguments.items():
            text = self.text(value, f"{(groups or {}).get(key, 'batch')}/{key}")
            parts.append(text if isinstance(key, int) else f"{key}={text}")
        return f"{callee}({', '.join(parts)})"

    def text(self, value: Any, name: str) -> str:
        """A value as text; its tensors get names that begin with `name`."""
        for thing, text in self.known:
            if value is thing:
                return text
        if self.is_tensor(value):
            return self._stored(value, name)
        if type(value) is float and not math.isfinite(value):
            return f"float({str(value)!r})"
        if type(value) in (*_PLAIN, bytes, complex, slice):
            return repr(value)
        if isinstance(value, Mapping):
            items = (f"{k if isinstance(k, _PLAIN) else str(k)!r}: {self.text(v, f'{name}/{k}')}" for k, v in value.items())
            return "{" + ", ".join(items) + "}"
        if type(value) in (list, tuple):
            inner = ", ".join(self.text(v, f"{name}/{i}") for i, v in enumerate(value))
            return f"[{inner}]" if isinstance(value, list) else f"({inner}{',' if len(value) == 1 else ''})"
        return self._object(value, name)

    def _stored(self, value: Any, name: str) -> str:
        if getattr(value, "requires_grad", False) is True:
            name = name.replace("batch/", "differentiated/", 1)
        while name in self.tensors and self.tensors[name] is not value:
            name += "'"
        self.tensors[name] = value
        return f"given[{name!r}]"

    def _object(self, value: Any, name: str) -> str:
        """A named tuple or a dataclass by its fields, a function or class by its import."""
        home = value if callable(value) and hasattr(value, "__qualname__") else type(value)
        _, path, why = _importable(home, getattr(home, "__module__", None) or "", getattr(home, "__qualname__", ""))
        if why:
            return f"unknown({f'{name}: a {type(value).__name__}'!r})"
        if home is value:
            return f"imported({path!r})"
        if isinstance(value, tuple) and hasattr(value, "_fields"):
            parts = {k: getattr(value, k) for k in value._fields}
        elif is_dataclass(value):
            parts = {f.name: getattr(value, f.name) for f in fields(value) if f.init}
        else:
            return f"unknown({f'{name}: a {type(value).__name__}'!r})"
        made = (f"{k}={self.text(v, f'{name}/{k}')}" for k, v in parts.items())
        return f"imported({path!r})({', '.join(made)})"


def of_function(
    function: Any,
    args: tuple[Any, ...],
    kwargs: Mapping[str, Any],
    is_tensor: Callable[[Any], bool],
    groups: Mapping[str | int, str] | None = None,
) -> tuple[Recipe, dict[str, Any]]:
    """The recipe of a step that is one function's call, and the tensors it needs: for the functional frameworks."""
    writer = Writer(is_tensor)
    arguments: dict[str | int, Any] = dict(enumerate(args))
    arguments.update(kwargs)
    call = writer.call("step", arguments, groups)
    return Recipe((piece("step", function),), (f"yield {call}",)), writer.tensors
