"""A JAX loss as a program: run for real on NumPy arrays, or run once and recorded as a graph."""

import linecache
import logging
import re
import traceback
import warnings
from collections.abc import Callable, Hashable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache
from typing import Any

import jax
import numpy as np

from whynan.errors import TargetError, WhynanError
from whynan.frontends.jax.arrays import NoLoss, canonical, frozen, is_array, is_floating, needs_x64, x64_enabled
from whynan.frontends.jax.eager import Units, recorded_eagerly, run_eagerly
from whynan.frontends.jax.ending import Recorded, ended
from whynan.frontends.jax.jitted import Jitted, jitted, recorded
from whynan.frontends.source import USER, kind_of
from whynan.frontends.trace import first_line, one_number, refuse_to_lead
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace

MODES = ("jit", "eager")

Target = Callable[..., Any]


class JaxProgram:
    """A loss function of JAX, ready to be run and recorded. `load` makes one."""

    framework = "jax"

    def __init__(self, target: Target, name: str, seed: int = 0) -> None:
        self.name = name
        self.framework_version = str(jax.__version__)
        self._target = target
        self._called = getattr(target, "__name__", type(target).__name__)
        self._compiled: dict[Hashable, Jitted] = {}
        self._recorded: dict[Jitted, Recorded] = {}
        self._units: Units = {}

    @property
    def parameters(self) -> Mapping[str, Array]:
        """None: arrays that a function holds are constants of its program."""
        return {}

    def run(self, inputs: Mapping[str, Array], wrt: tuple[str, ...], mode: str = "jit") -> Run:
        """Run the loss and its gradients by `wrt`; never raises for what the loss itself raises."""
        _known(mode)
        try:
            with _session(inputs):
                arrays, static = _split(inputs)
                names = _differentiable(arrays, wrt)
                if mode == "jit":
                    results = self._jitted(arrays, static, names)(arrays)
                else:
                    results = run_eagerly(self._target, self._called, arrays, static, names)
                parts, gradients = [[np.array(x) for x in found] for found in results]
                return Run(one_number(parts), dict(zip(names, gradients, strict=True)))
        except (Exception, SystemExit) as error:
            return Run(np.empty(0), {}, _said(error))

    def capture(self, inputs: Mapping[str, Array], wrt: tuple[str, ...], mode: str = "jit", told: Sequence[float] = ()) -> Trace:
        """Run once and record every op, forward and backward.

        In mode jit these are XLA's own instructions for the whole step, in mode eager those of each op that JAX compiles as a unit.
        Raises TargetError if the loss raises, returns nothing floating, or ignores its inputs.
        """
        refuse_to_lead(told)
        _known(mode)
        with _session(inputs):
            arrays, static = _split(inputs)
            given = {n: np.asarray(inputs[n]) for n in arrays}
            names = _differentiable(arrays, wrt)
            try:
                if mode == "jit":
                    step = self._jitted(arrays, static, names)
                    results = step(arrays)
                else:
                    done, results = recorded_eagerly(self._target, self._called, given, arrays, static, names, self._units)
            except WhynanError:
                raise
            except (Exception, SystemExit) as error:
                raise self._failed(error) from error
            if mode == "jit":
                done = self._recorded.get(step) or self._recorded.setdefault(step, recorded(step, arrays, given))
            losses, gradients = [[np.array(x) for x in found] for found in results]
            return ended(done, given, (losses, gradients), _notes())

    def _jitted(self, arrays: Mapping[str, Array], static: Mapping[str, Any], wrt: tuple[str, ...]) -> Jitted:
        """The step for arrays of these shapes and dtypes; compiled once."""
        kinds = tuple((n, a.shape, a.dtype) for n, a in arrays.items())
        key = (kinds, frozen(static), wrt, x64_enabled())
        found = self._compiled.get(key)
        if found is None or any(found.looked[n] != arrays[n] for n in found.looked):
            found = self._compiled[key] = jitted(self._target, self._called, arrays, static, wrt)
        return found

    def _failed(self, error: BaseException) -> TargetError:
        """JAX's own line, the argument and the user's line that it is about, and what to do."""
        if isinstance(error, NoLoss):
            return TargetError(f"{error}.", "Return a floating array.")
        hint = _STATIC if isinstance(error, _LOOKS) else "Check the shapes, dtypes and values of its inputs."
        return TargetError(f"the loss {self.name} raised {_said(error).rstrip('.')}.", hint)


# what JAX raises where Python code looks at a value that a tracer stands for
_LOOKS = (
    jax.errors.ConcretizationTypeError,
    jax.errors.NonConcreteBooleanIndexError,
    jax.errors.TracerArrayConversionError,
    jax.errors.TracerIntegerConversionError,
)
_STATIC = (
    "Traced code has no values for Python to look at: use jnp.where or jax.lax.cond for a choice, jnp for numpy, "
    "and give what must be a Python value (an axis, a flag) as a constant."
)


def load(target: Target, name: str, seed: int = 0) -> JaxProgram:
    """A program from a function, a method, a partial or a jitted function; JAX has no global random state to seed.

    Raises TargetError if it cannot be called.
    """
    if not callable(target):
        raise TargetError(f"{name} is a {type(target).__name__}, which cannot be called.", "Name a function.")
    return JaxProgram(target, name, seed)


# ---------------------------------------------------------------- arguments


def _known(mode: str) -> None:
    if mode not in MODES:
        raise TargetError(f"JAX has no mode {mode!r}.", f"Choose from {', '.join(MODES)}.")


def _split(inputs: Mapping[str, Any]) -> tuple[dict[str, Array], dict[str, Any]]:
    """The arrays in the dtypes that JAX computes in, and the arguments that are part of the program."""
    arrays = {n: canonical(v) for n, v in inputs.items() if is_array(v)}
    return arrays, {n: v for n, v in inputs.items() if n not in arrays}


def _differentiable(arrays: Mapping[str, Array], wrt: tuple[str, ...]) -> tuple[str, ...]:
    return tuple(n for n in wrt if n in arrays and is_floating(arrays[n]))


# ---------------------------------------------------------------- surroundings


@contextmanager
def _session(inputs: Mapping[str, Any]) -> Iterator[None]:
    """On the CPU, with 64-bit types if an input has one, without warnings and JAX's own checks; all as it was afterwards."""
    with warnings.catch_warnings(), jax.default_device(_cpu()), jax.debug_nans(False), jax.debug_infs(False):
        warnings.simplefilter("ignore")
        if needs_x64(inputs.values()):
            with jax.enable_x64(True):
                yield
        else:
            yield


@cache
def _cpu() -> Any:
    """The CPU, found without JAX's remarks on accelerators that it looked for in vain; None where JAX was told not to use it."""
    log = logging.getLogger("jax._src.xla_bridge")
    level = log.level
    log.setLevel(logging.ERROR)
    try:
        return jax.devices("cpu")[0]
    except RuntimeError:
        return None
    finally:
        log.setLevel(level)


def _notes() -> list[str]:
    """What a report must say of the device, where the user's own runs are on another."""
    own = jax.default_backend()
    if own == "cpu":
        return []
    return [f"compiled for {own}" if _cpu() is None else f"compiled for the CPU, not for {own}"]


def _said(error: BaseException) -> str:
    """An error's first line; of a look at a traced value also where it was and which argument it depends on."""
    if isinstance(error, NoLoss):
        return f"TypeError: {error}"
    if not isinstance(error, _LOOKS):
        return first_line(error)
    argument = re.search(r"depends on the values? of the arguments? ([\w, ]+)", str(error))
    known = [_line_of(error), f"it depends on {argument[1]}" if argument else ""]
    about = "; ".join(k for k in known if k)
    return f"{first_line(error).rstrip('.')}{f' ({about})' if about else ''}"


def _line_of(error: BaseException) -> str:
    """The innermost line of the user's that an error went through: `losses.py:12: if x > 0:`."""
    frames = [f for f in traceback.extract_tb(error.__traceback__) if kind_of(f.filename) == USER]
    if not frames:
        return ""
    text = linecache.getline(frames[-1].filename, frames[-1].lineno or 0).strip()
    return f"{frames[-1].filename}:{frames[-1].lineno}: {text}"
