"""Which module of Flax NNX an operation was traced in. Flax's linen and Haiku open name scopes themselves, NNX does not."""

import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import ExitStack, contextmanager
from typing import Any
from unittest.mock import patch

import jax

_MARK = "_whynan_path"  # a static attribute: the copies that NNX's transformations make of a module have it, too

_Path = tuple[str, ...]


def marked(objects: Mapping[str, Any]) -> None:
    """Let the modules inside of objects know their paths. The objects must be no one else's."""
    nnx = sys.modules["flax.nnx"]
    for path, module in list(nnx.iter_graph(objects)):
        if isinstance(module, nnx.Module):
            setattr(module, _MARK, tuple(map(str, path[1:])))


@contextmanager
def scoped() -> Iterator[None]:
    """While open, a call of an NNX module is traced in a name scope of its path: from the root, or from the outermost one called."""
    nnx = sys.modules.get("flax.nnx")
    with ExitStack() as stack:
        if nnx is not None:
            running: list[_Path] = []
            known: dict[int, _Path] = {}
            for kind in {k for k in _kinds(nnx.Module) if "__call__" in vars(k)}:
                stack.enter_context(patch.object(kind, "__call__", _called(kind.__call__, nnx, running, known)))
        yield


def _kinds(kind: type[Any]) -> Iterator[type[Any]]:
    for below in kind.__subclasses__():
        yield below
        yield from _kinds(below)


def _called(original: Callable[..., Any], nnx: Any, running: list[_Path], known: dict[int, _Path]) -> Callable[..., Any]:
    def module_call(module: Any, *args: Any, **kwargs: Any) -> Any:
        above = running[-1] if running else ()
        if not running:
            known.clear()
            known.update({id(m): tuple(map(str, p)) for p, m in nnx.iter_modules(module)})
        path: _Path = getattr(module, _MARK, None) or known.get(id(module), above)
        name = "/".join(path[len(above) :] if path[: len(above)] == above else path)
        running.append(path)
        try:
            with jax.named_scope(name) if name else ExitStack():
                return original(module, *args, **kwargs)
        finally:
            running.pop()

    return module_call
