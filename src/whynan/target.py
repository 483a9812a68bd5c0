"""Targets: from `FILE.py:EXPR` or `package.module:EXPR` to the callable, its arguments and its framework.

Importing a target runs the user's own code, as a test runner does.
"""

import ast
import difflib
import importlib.util
import inspect
import linecache
import re
import sys
import traceback
import zlib
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from types import CodeType, ModuleType
from typing import Any

from whynan.errors import FrameworkMissing, TargetError

FRAMEWORKS = ("torch", "tensorflow", "jax")
# top-level packages whose use says which framework a loss is written in; keras runs on whichever backend it has chosen
_ROOTS = {
    "torch": "torch",
    "tensorflow": "tensorflow",
    "tf_keras": "tensorflow",
    "jax": "jax",
    "jaxlib": "jax",
    "flax": "jax",
    "optax": "jax",
}
_FORMS = "Write FILE.py:EXPR or package.module:EXPR, as in losses.py:focal_loss."


@dataclass(frozen=True, slots=True, eq=False)
class Target:
    """A loaded loss. `name` is how the user wrote it, `file` where its module stands (None for a module without a file).

    `framework` is "torch", "tensorflow" or "jax", or None where nothing tells.
    """

    callable: Callable[..., Any]
    name: str
    file: Path | None
    framework: str | None


def load_target(text: str) -> Target:
    """Import a target's module and evaluate its expression there. A class is instantiated without arguments.

    Raises TargetError, and FrameworkMissing if the module needs a framework that is not installed.
    """
    place, expression = _split(text)
    module = load_module(place)
    value = _evaluate(expression, module, text)
    if inspect.isclass(value):
        value = instance(value, text)
    if not callable(value):
        raise TargetError(f"{text} is a {type(value).__name__}, which cannot be called.", "Name a function, a class or a module.")
    file = getattr(module, "__file__", None)
    return Target(value, text, Path(file) if file else None, framework_of(value, module))


# ---------------------------------------------------------------- import


def load_module(place: str) -> ModuleType:
    """The module of a target: a file that ends in .py, or a dotted name. Raises TargetError and FrameworkMissing."""
    return _import_file(Path(place)) if place.endswith(".py") else _import_module(place)


def _split(text: str) -> tuple[str, str]:
    """The file or module and the expression. A colon inside the expression (a lambda's) is left alone."""
    file, in_file, rest = text.partition(".py:")
    if text.endswith(".py") and not in_file:
        place, expression = text, ""
    elif in_file:
        place, expression = file + ".py", rest
    else:
        place, _, expression = text.partition(":")
    if not place.strip() or (":" not in text and not text.endswith(".py")):
        raise TargetError(f"{text!r} is not a target.", _FORMS)
    if not expression.strip():
        raise TargetError(f"{text} does not say which loss.", _offer(place))
    return place.strip(), expression.strip()


def _offer(place: str) -> str:
    names = _defined(Path(place)) if place.endswith(".py") else []
    return f"It defines {', '.join(names[:8])}: write {place}:{names[0]}." if names else _FORMS


def _defined(file: Path) -> list[str]:
    """The public functions and classes that stand at the top of a source file; none if it cannot be parsed."""
    try:
        body = ast.parse(file.read_bytes()).body
    except (OSError, SyntaxError, ValueError):
        return []
    return [n.name for n in body if isinstance(n, ast.FunctionDef | ast.ClassDef) and not n.name.startswith("_")]


def _import_file(file: Path) -> ModuleType:
    """Run a file as a module: with its folder on the path, so that it finds its neighbours, or as a part of its package."""
    if not file.is_file():
        raise TargetError(f"there is no file {file}.", "Check the path, or write package.module:EXPR for an installed module.")
    file = file.resolve()
    root, name = _package_of(file)
    if str(root) not in sys.path:
        sys.path.insert(0, str(root))
    if name:
        return _guarded(lambda: import_module(name), str(file), file)
    return _guarded(lambda: _execute(file), str(file), file)


def _package_of(file: Path) -> tuple[Path, str]:
    """The folder to put on the path and the dotted name, which is empty for a file outside any package."""
    parts, folder = [file.stem], file.parent
    while (folder / "__init__.py").is_file():
        parts.insert(0, folder.name)
        folder = folder.parent
    inside = len(parts) > 1 and all(part.isidentifier() for part in parts)
    return (folder, ".".join(parts)) if inside else (file.parent, "")


def _execute(file: Path) -> ModuleType:
    # a name of its own, so that a file called `random.py` or two called `losses.py` do no harm
    name = f"whynan_target_{file.stem}_{zlib.crc32(str(file).encode()):08x}"
    spec = importlib.util.spec_from_file_location(name, file)
    if spec is None or spec.loader is None:
        raise ImportError(f"no loader for {file}")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except BaseException:
        del sys.modules[name]
        raise
    return module


def _import_module(name: str) -> ModuleType:
    if not all(part.isidentifier() for part in name.split(".")):
        raise TargetError(f"{name!r} is neither a file ending in .py nor a module's name.", _FORMS)
    if "" not in sys.path and str(Path.cwd()) not in sys.path:
        sys.path.insert(0, str(Path.cwd()))
    return _guarded(lambda: import_module(name), name, None)


def _guarded(load: Callable[[], ModuleType], what: str, file: Path | None) -> ModuleType:
    """Import, whatever the user's code raises turned into one line that says where."""
    try:
        return load()
    except KeyboardInterrupt:
        raise
    except BaseException as error:  # SystemExit too: a script without a main guard
        missing = error.name if isinstance(error, ModuleNotFoundError) and error.name else ""
        if missing.partition(".")[0] in (*FRAMEWORKS, "keras"):
            package = missing.partition(".")[0]
            hint = "pip install 'whynan[torch]'." if package == "torch" else "This version of whynan checks PyTorch losses only."
            raise FrameworkMissing(f"{what} needs {package}, which is not installed.", hint) from error
        if missing and file is None and (what == missing or what.startswith(missing + ".")):
            raise TargetError(f"there is no module {missing!r}.", "Install it, or run from the folder that holds it.") from error
        hint = f"Install {missing.partition('.')[0]}, or mend the import." if missing else "Mend the import (--traceback shows all of it)."
        raise TargetError(f"{what} cannot be imported: {_said(error)}{_where(error, file)}.", hint) from error


def _said(error: BaseException) -> str:
    line = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    line = line if len(line) <= 200 else line[:197] + "..."
    return f"{type(error).__name__}: {line}" if line else type(error).__name__


def _where(error: BaseException, file: Path | None) -> str:
    """ (file:line) of the innermost place in the user's own file, else of the innermost place at all."""
    if isinstance(error, SyntaxError) and error.filename:
        return f" ({error.filename}:{error.lineno})"
    frames = [f for f in traceback.extract_tb(error.__traceback__) if "importlib" not in f.filename and f.filename != __file__]
    own = [f for f in frames if file is not None and f.filename == str(file)]
    chosen = (own or frames)[-1:]
    return f" ({chosen[0].filename}:{chosen[0].lineno})" if chosen else ""


# ---------------------------------------------------------------- expression


def _evaluate(expression: str, module: ModuleType, text: str) -> Any:
    source = f"<{text}>"
    try:
        code = compile(expression, source, "eval")
    except (SyntaxError, ValueError):
        raise TargetError(f"{expression!r} is not a Python expression.", _FORMS) from None
    linecache.cache[source] = (len(expression), None, [expression], source)  # so that a lambda's positions can be shown
    try:
        return eval(code, vars(module))
    except KeyboardInterrupt:
        raise
    except (NameError, AttributeError) as error:
        raise TargetError(f"{text}: {_said(error)}.", _suggestion(error, module)) from error
    except BaseException as error:
        raise TargetError(f"{text} raised {_said(error)}.", "Mend the expression after the colon.") from error


def _suggestion(error: NameError | AttributeError, module: ModuleType) -> str:
    owner = error.obj if isinstance(error, AttributeError) else module
    names = [name for name, value in vars(module).items() if callable(value)] if owner is module else dir(owner)
    close = difflib.get_close_matches(str(error.name), [n for n in names if not n.startswith("__")], 1)
    own = [n for n, v in vars(module).items() if getattr(v, "__module__", "") == module.__name__ and not n.startswith("_")]
    if close:
        return f"Did you mean {close[0]}?"
    return f"The module defines {', '.join(own[:8])}." if own else "Check the name after the colon."


def instance(cls: type, text: str) -> Any:
    """A class called without arguments. Raises TargetError if it needs some or fails; `text` is how the user named it."""
    needed = _needed(cls)
    if needed:
        example = f"{text}({', '.join(f'{n}=…' for n in needed)})"
        raise TargetError(f"the class {cls.__name__} needs arguments: {', '.join(needed)}.", f"Write {example}.")
    try:
        return cls()
    except KeyboardInterrupt:
        raise
    except BaseException as error:
        raise TargetError(f"{cls.__name__}() raised {_said(error)}.", f"Write {text}(…) with the arguments that it needs.") from error


def _needed(cls: type) -> list[str]:
    try:
        parameters = inspect.signature(cls).parameters.values()
    except (TypeError, ValueError):
        return []
    return [p.name for p in parameters if p.default is p.empty and p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)]


# ---------------------------------------------------------------- arguments


def positional_only(loss: Any) -> tuple[str, ...]:
    """The arguments that can be given by position only."""
    try:
        parameters = inspect.signature(loss).parameters.values()
    except (TypeError, ValueError):
        return ()
    return tuple(p.name for p in parameters if p.kind is p.POSITIONAL_ONLY)


def arguments_of(loss: Callable[..., Any]) -> dict[str, bool]:
    """The names of a loss's arguments, each with whether it must be given; of a module's `forward` and of a Keras loss's `call`.

    A built-in function's are read from its docstring. Empty if the callable does not say.
    """
    function = loss
    for method in ("forward", "call", "python_function"):
        if not inspect.isroutine(loss) and callable(getattr(loss, method, None)):
            function = getattr(loss, method)
            break
    try:
        parameters = inspect.signature(function).parameters.values()
    except (TypeError, ValueError):
        return _documented(function)
    return {p.name: p.default is p.empty for p in parameters if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)}


def _documented(function: Any) -> dict[str, bool]:
    """The arguments of a built-in function from the signature that its docstring opens with: `log(input, *, out=None) -> Tensor`."""
    found = re.match(r"\s*[\w.]+\(([^()]*)\) *(?:->|\n|$)", getattr(function, "__doc__", None) or "")
    try:
        tree = ast.parse(f"lambda {found[1]}: 0" if found else "", mode="eval").body
    except SyntaxError:
        return {}
    if not isinstance(tree, ast.Lambda):
        return {}
    arguments = tree.args
    plain, keywords = arguments.posonlyargs + arguments.args, arguments.kwonlyargs
    needed = {a.arg: i < len(plain) - len(arguments.defaults) for i, a in enumerate(plain)}
    return needed | {a.arg: default is None for a, default in zip(keywords, arguments.kw_defaults, strict=True)}


# ---------------------------------------------------------------- framework


def framework_of(loss: Any, module: ModuleType | None = None) -> str | None:
    """The framework that a loss is written in, from its type, the names it uses, its annotations and its module; None if nothing tells.

    Imports nothing. What lies nearest to the loss decides; a tie is broken by what lies further off.
    """
    function = _plain_function(loss)
    module = module or sys.modules.get(getattr(function, "__module__", "") or "")
    loaded = [name for name in FRAMEWORKS if name in sys.modules]
    remaining: set[str] = set()
    for found in (_of_type(loss), _of_home(function), _of_code(function), _of_annotations(function), _of_module(module), set(loaded)):
        remaining = (remaining & found or remaining) if remaining else found
        if len(remaining) == 1:
            return next(iter(remaining))
    return None


def _plain_function(loss: Any) -> Any:
    """The Python function inside a bound method, a partial, a compiled function, a module or a loss object."""
    for _ in range(10):  # wrappers around wrappers, but no endless ring of them
        inner = [getattr(loss, n) for n in ("__wrapped__", "python_function", "func", "__func__") if hasattr(loss, n)]
        if not inner and not inspect.isroutine(loss) and not inspect.isclass(loss):
            inner = [m for n in ("forward", "call", "__call__") if inspect.isfunction(m := getattr(type(loss), n, None))]
        if not inner or inner[0] is loss:
            return loss
        loss = inner[0]
    return loss


def _named(modules: Iterable[str]) -> set[str]:
    """The frameworks that dotted module names belong to."""
    found = set()
    for name in modules:
        root = name.partition(".")[0]
        if root == "keras":
            found.add(_keras_backend())
        elif root in _ROOTS:
            found.add(_ROOTS[root])
    return found - {""}


def _keras_backend() -> str:
    keras = sys.modules.get("keras")
    backend = getattr(getattr(keras, "config", None), "backend", None)
    return str(backend()) if callable(backend) else ""


def _of_type(loss: Any) -> set[str]:
    bases = [c.__module__ for c in type(loss).__mro__]
    found = _named(name for name in bases if name.partition(".")[0] != "keras")
    return found or _named(bases)


def _of_home(function: Any) -> set[str]:
    return _named([getattr(function, "__module__", "") or ""])


def _of_code(function: Any, depth: int = 3) -> set[str]:
    """The frameworks of what the function's own code names, and of the functions of its module that it calls."""
    code, scope = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if not isinstance(code, CodeType):
        return set()
    names = set(_names(code))
    values = [scope[name] for name in names if name in scope]
    found = _named([*(_home(value) for value in values), *(name for name in names if name not in scope)])
    if found or depth == 0:
        return found
    helpers = [v for v in values if inspect.isfunction(v) and v is not function]
    return set().union(*(_of_code(helper, depth - 1) for helper in helpers))


def names_used(loss: Any, depth: int = 1) -> list[str]:
    """The names that the code of a loss uses, and of the functions of its module that it calls; empty if it has no Python code."""
    function = _plain_function(loss)
    code, scope = getattr(function, "__code__", None), getattr(function, "__globals__", {})
    if not isinstance(code, CodeType):
        return []
    names = list(dict.fromkeys(_names(code)))
    helpers = [v for n in names if inspect.isfunction(v := scope.get(n)) and v.__module__ == function.__module__] if depth else []
    return [*names, *(name for helper in helpers for name in names_used(helper, depth - 1))]


def _names(code: CodeType) -> Iterable[str]:
    yield from code.co_names
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _names(constant)


def _home(value: Any) -> str:
    if isinstance(value, ModuleType):
        return value.__name__
    return str(getattr(value, "__module__", None) or type(value).__module__)


def _of_annotations(function: Any) -> set[str]:
    annotations = getattr(function, "__annotations__", None)
    if not isinstance(annotations, Mapping):
        return set()
    scope = getattr(function, "__globals__", {})
    homes = []
    for annotation in annotations.values():
        if isinstance(annotation, str):
            root = annotation.partition(".")[0].partition("[")[0]
            homes.append(_home(scope[root]) if root in scope else root)
        else:
            homes.append(_home(annotation))
    return _named(homes)


def _of_module(module: ModuleType | None) -> set[str]:
    return _named(_home(value) for value in vars(module).values() if isinstance(value, ModuleType)) if module else set()


def uses(loss: Any, package: str) -> bool:
    """Whether a loss is an object of a package's, or its code names something of it."""
    function = _plain_function(loss)
    scope = getattr(function, "__globals__", {})
    homes = [*(c.__module__ for c in type(loss).__mro__), getattr(function, "__module__", "") or ""]
    homes += [_home(scope[name]) for name in names_used(loss) if name in scope]
    return any(home.partition(".")[0] == package for home in homes)
