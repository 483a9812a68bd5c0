"""What whynan uses of JAX that JAX does not make public, in one place: nothing else here reaches below `jax._src`.

`core` (traces and tracers, the trace that is current), `source_info` (which frames belong to an operation) and the compiler's printer.
"""

import functools
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from importlib import import_module
from types import MethodType
from typing import Any

import jax

core: Any = import_module("jax._src.core")
source_info: Any = import_module("jax._src.source_info_util")

apart: Any = jax.lax.optimization_barrier  # what reads its result is compiled apart from what makes it; JAX has no type for it
HOME = str(jax.__path__[0])  # the folder of JAX's own files


def hlo_text(executable: Any) -> str:
    """The optimised HLO of a compiled function; JAX's public printer leaves out the elements of large constants."""
    try:
        options = import_module("jax._src.lib").hlo.HloPrintOptions()
        options.print_large_constants = True
        modules = executable.runtime_executable().hlo_modules()
    except (ImportError, AttributeError):
        return str(executable.as_text())
    return "\n\n".join(module.to_string(options) for module in modules)


def jitted_primitive(primitive: Any, params: Mapping[str, Any]) -> Any:
    """The function as which JAX compiles and runs a primitive op by op."""
    return import_module("jax._src.dispatch").xla_primitive_callable(primitive, **params)


def as_given(step: Any) -> Any:
    """The function that a jitted function was made of; any other callable itself."""
    return step.__wrapped__ if is_jitted(step) else step


def unbound(step: Any) -> Any:
    """A jitted method of an object as a jitted function of the other arguments; any other callable itself."""
    function: Any = getattr(step, "__func__", None)
    if not is_jitted(function):
        return step
    info: Any = function._jit_info
    return jax.jit(
        MethodType(function.__wrapped__, step.__self__),
        static_argnums=tuple(i - 1 for i in info.static_argnums if i),
        static_argnames=tuple(name for name in info.static_argnames if name != "self"),
        donate_argnums=tuple(i - 1 for i in info.donate_argnums if i),
        donate_argnames=info.donate_argnames,
    )


def is_jitted(step: Any) -> bool:
    """Whether a callable is what `jax.jit` returns."""
    return hasattr(step, "_jit_info") and hasattr(step, "__wrapped__")


def donates(step: Any) -> bool:
    """Whether a jitted function gives the memory of an argument away."""
    info = getattr(step, "_jit_info", None)
    return info is not None and bool(info.donate_argnums or info.donate_argnames)


def undonated(step: Any, body: Any = None) -> Any:
    """A jitted function of the same arguments that keeps them: `body`, which calls `step`, or just that call.

    Inside of another one the donation of a jitted function is without effect.
    """
    info = step._jit_info

    @functools.wraps(step.__wrapped__)
    def kept(*args: Any, **kwargs: Any) -> Any:
        return (body or step)(*args, **kwargs)

    return jax.jit(kept, static_argnums=info.static_argnums, static_argnames=info.static_argnames)


def jitted_like(step: Any, body: Any) -> Any:
    """A function with one argument more, in front, jitted as `step` is: with the same arguments static and donated."""
    info = getattr(step, "_jit_info", None)
    if info is None:
        return jax.jit(body)
    return jax.jit(
        body,
        static_argnums=tuple(i + 1 for i in info.static_argnums),
        static_argnames=info.static_argnames,
        donate_argnums=tuple(i + 1 for i in info.donate_argnums),
        donate_argnames=info.donate_argnames,
    )


@contextmanager
def showing(target: Any) -> Iterator[None]:
    """Keep JAX's own frames in what is compiled here, if the target is a function of JAX's own; otherwise it leaves them out."""
    function = getattr(target, "func", target)
    if (getattr(function, "__module__", None) or "").partition(".")[0] != "jax":
        yield
        return
    source_info._include_paths.append(HOME)
    _forget()
    try:
        yield
    finally:
        source_info._include_paths.remove(HOME)
        _forget()


def _forget() -> None:
    source_info._include_path_regex.cache_clear()
    source_info.is_user_filename.cache_clear()


@contextmanager
def nowhere() -> Iterator[None]:
    """What is traced here belongs to no place of the source."""
    state = source_info._source_info_context
    before, state.context = state.context, source_info.new_source_info()
    try:
        yield
    finally:
        state.context = before


@contextmanager
def located(equation: Any) -> Iterator[None]:
    """What is traced here stands where an equation does: in its scopes and at its place, or at that of the call around it."""
    info = equation.source_info
    around = source_info._source_info_context.context.traceback
    scopes = source_info.current_name_stack() + info.name_stack
    with source_info.user_context(info.traceback or around, name_stack=scopes), equation.ctx.manager:
        yield


@contextmanager
def standing(own: Callable[[Any], bool]) -> Iterator[None]:
    """What is traced here stands where Python is, if `own` says so of the stack (a traceback of JAX's); else where JAX says.

    JAX gives the operations of a derivative's rule the place of the forward call, although the rule has lines of its own.
    """
    given = source_info.current

    def current() -> Any:
        info = given()
        with nowhere():
            stack = given().traceback
        return info.replace(traceback=stack) if own(stack) else info

    source_info.current = current
    try:
        yield
    finally:
        source_info.current = given
