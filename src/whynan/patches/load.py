"""A changed loss in isolation: changed files run as modules of other names, so that the user's files and modules are not touched.

Used as a context: everything made inside (temporary files, modules) is gone at its end.
"""

import copy
import importlib.util
import inspect
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib.abc import Loader, MetaPathFinder
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import CodeType, FunctionType, ModuleType, TracebackType
from typing import Any

from whynan.patches.change import PatchError


class Isolated:
    """Makes changed losses. `homes` tells the user's file that a temporary one stands for."""

    def __init__(self) -> None:
        self._folder = tempfile.TemporaryDirectory(prefix="whynan-")
        self._count = 0
        self._names: list[str] = []
        self.homes: dict[str, Path] = {}

    def __enter__(self) -> "Isolated":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        for name in self._names:
            sys.modules.pop(name, None)
        self._folder.cleanup()

    def changed(self, loss: Any, expression: str, texts: Mapping[Path, str], home: ModuleType | None = None) -> Callable[..., Any]:
        """The loss as it is with these texts in place of files. `expression` is what names it in its module `home`, if that is known.

        Raises PatchError if the module cannot be run or the loss not be found in it.
        """
        home = home or module_of(loss)
        if home is None or not getattr(home, "__file__", None):
            raise PatchError("the loss stands in no file.", "Write it into a module.")
        own = Path(str(home.__file__)).resolve()
        files = {path.resolve(): self._file(path, text) for path, text in texts.items()}
        try:
            with _replaced({p: f for p, f in files.items() if p != own}, own):
                module = self._module(home, files.get(own, own))
            found: Callable[..., Any] = _found(loss, expression, home, module)
            return found
        except (KeyboardInterrupt, PatchError):
            raise
        except BaseException as error:
            raise PatchError(f"the changed source cannot be run: {type(error).__name__}: {error}.", "") from error

    def _file(self, path: Path, text: str) -> Path:
        self._count += 1
        folder = Path(self._folder.name) / str(self._count)
        folder.mkdir()
        made = folder / path.name
        made.write_bytes(text.encode("utf-8"))
        self.homes[str(made)] = path.resolve()
        return made

    def _module(self, home: ModuleType, file: Path) -> ModuleType:
        """The module's file run again under a name of its own, as a part of the same package."""
        self._count += 1
        package = getattr(home, "__package__", None) or ""
        name = f"{package + '.' if package else ''}whynan_changed_{file.stem}_{self._count}_{id(self):x}"
        module = ModuleType(name)
        module.__dict__.update(__file__=home.__file__, __package__=package, __spec__=importlib.util.spec_from_file_location(name, file))
        sys.modules[name] = module
        self._names.append(name)
        _run(file, module)
        return module


def _run(file: Path, module: ModuleType) -> None:
    data = file.read_bytes()
    exec(compile(data, str(file), "exec", dont_inherit=True), module.__dict__)


def module_of(loss: Any) -> ModuleType | None:
    """The module that a function, or the class of a loss object, was defined in."""
    function = plain_function(loss)
    name = getattr(function if inspect.isroutine(function) else type(loss), "__module__", None)
    return sys.modules.get(str(name))


def plain_function(loss: Any) -> Any:
    """The function inside decorators, `tf.function`, `jax.jit` and bound methods; a loss object itself."""
    for _ in range(10):
        inner = next((getattr(loss, n) for n in ("__wrapped__", "python_function", "__func__") if hasattr(loss, n)), None)
        if inner is None or inner is loss:
            break
        loss = inner
    return loss


# ---------------------------------------------------------------- the loss in the new module


def _found(loss: Any, expression: str, home: ModuleType, module: ModuleType) -> Any:
    if expression:
        try:
            value = eval(expression, module.__dict__)
        except Exception:
            value = None
        if value is not None:
            made = value() if inspect.isclass(value) else value
            if callable(made):
                return made
    if inspect.ismethod(loss):
        owner = _clone(loss.__self__, module)
        return getattr(owner, loss.__name__)
    function = plain_function(loss)
    if inspect.isfunction(function):
        name = function.__qualname__
        if "<" not in name and "." not in name and callable(module.__dict__.get(name)) and home.__dict__.get(name) is loss:
            return module.__dict__[name]
        return _again(function, module)
    return _clone(loss, module)


def _clone(owner: Any, module: ModuleType) -> Any:
    """A copy of an object, of its class in the new module."""
    value: Any = module
    for part in type(owner).__qualname__.split("."):
        value = getattr(value, part, None)
    if not inspect.isclass(value):
        raise PatchError(f"{type(owner).__name__} is not found in the changed source.", "")
    made = copy.copy(owner)
    made.__class__ = value
    return made


def _again(function: FunctionType, module: ModuleType) -> FunctionType:
    """The function of the same qualified name from the new source, with the old one's defaults and closure."""
    file = str(getattr(module.__spec__, "origin", "") or module.__file__)
    whole = compile(Path(file).read_bytes(), file, "exec", dont_inherit=True)
    fits = [c for c in _codes(whole) if c.co_qualname == function.__code__.co_qualname and c.co_freevars == function.__code__.co_freevars]
    if not fits:
        raise PatchError(f"{function.__qualname__} is not found in the changed source.", "")
    code = min(fits, key=lambda c: abs(c.co_firstlineno - function.__code__.co_firstlineno))
    made = FunctionType(code, module.__dict__, function.__name__, function.__defaults__, function.__closure__)
    made.__kwdefaults__ = function.__kwdefaults__
    made.__module__ = module.__name__
    return made


def _codes(code: CodeType) -> Iterator[CodeType]:
    yield code
    for constant in code.co_consts:
        if isinstance(constant, CodeType):
            yield from _codes(constant)


# ---------------------------------------------------------------- other modules that the change is in


class _Changed(MetaPathFinder, Loader):
    """Finds the changed files' modules before anything else does."""

    def __init__(self, files: Mapping[str, Path]) -> None:
        self._files = files

    def find_spec(self, fullname: str, path: object = None, target: object = None) -> ModuleSpec | None:
        file = self._files.get(fullname)
        return importlib.util.spec_from_file_location(fullname, file, loader=self) if file is not None else None

    def exec_module(self, module: ModuleType) -> None:
        _run(self._files[module.__name__], module)


@contextmanager
def _replaced(files: Mapping[Path, Path], own: Path) -> Iterator[None]:
    """While it lasts, imports of these files (and of the user's modules that may use them) give the changed ones; then all is as before."""
    if not files:
        yield
        return
    root = _root(own)
    known = {
        name: m for name, m in sys.modules.items() if (f := _file_of(m)) is not None and (f in files or root in f.parents) and f != own
    }
    changed = {name: files[f] for name, m in known.items() if (f := _file_of(m)) is not None and f in files}
    parents = {name: sys.modules.get(name.rpartition(".")[0], ModuleType("none")) for name in known}
    finder = _Changed(changed)
    packages = {name for name, m in known.items() if hasattr(m, "__path__")}
    out = {name: m for name, m in known.items() if name not in packages or name in changed}
    for name in out:
        sys.modules.pop(name, None)
        parents[name].__dict__.pop(name.rpartition(".")[2], None)  # else `from . import helper` finds the old one there
    sys.meta_path.insert(0, finder)
    try:
        yield
    finally:
        sys.meta_path.remove(finder)
        for name, module in out.items():
            sys.modules[name] = module
            setattr(parents[name], name.rpartition(".")[2], module)


def _root(file: Path) -> Path:
    """The folder of the outermost package that a file is in, or the file's own folder."""
    folder = file.parent
    while (folder / "__init__.py").is_file() and (folder.parent / "__init__.py").is_file():
        folder = folder.parent
    return folder


def _file_of(module: ModuleType) -> Path | None:
    file = getattr(module, "__file__", None)
    return Path(file).resolve() if isinstance(file, str) and file.endswith(".py") else None
