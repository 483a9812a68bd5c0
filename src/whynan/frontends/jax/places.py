"""Where an operation stands, from the Python frames that JAX keeps with it and the scopes of its name."""

import os
import re
from collections.abc import Callable, Iterable, Sequence
from itertools import takewhile
from typing import Any

from whynan.frontends.hlo.parse import Frame, Metadata
from whynan.frontends.hlo.record import Spot
from whynan.frontends.jax.inside import source_info
from whynan.frontends.source import KERAS_PASSING, LIBRARY, PLUMBING, USER, kind_of, relative, site_of_span
from whynan.ir.where import Site, source_text

# files of whynan's that call the loss: what stands above them on a stack is no part of it
_FLOOR = tuple(os.path.join(os.path.dirname(os.path.abspath(__file__)), name) for name in ("step.py", "steps.py", "jitted.py", "jaxpr.py"))
UNIT = (*_FLOOR, os.path.join(os.path.dirname(_FLOOR[0]), "eager.py"))
# JAX's own files that only pass calls on
_PASSING = tuple(
    f"jax/_src/{name}"
    for name in (
        *("api", "compiler.py", "core.py", "custom_derivatives.py", "interpreters/", "lax/", "linear_util.py", "pjit.py", "profiler.py"),
        *("numpy/array_methods.py", "numpy/ufunc_api.py", "numpy/ufuncs.py"),
        *("source_info_util.py", "stages.py", "traceback_util.py", "util.py"),
    )
) + ("keras/src/layers/layer.py", "keras/src/backend/jax/layer.py", *KERAS_PASSING)

_BACKWARD = os.path.join("jax", "_src", "interpreters", "ad.py")

# primitives of which XLA makes several instructions, by the canonical op
_EXPANDED = {**{name: name for name in ("acos", "asin", "acosh", "asinh", "atanh", "lgamma", "digamma")}, "erf_inv": "erfinv"}


def spot_of(metadata: Metadata, exact: Callable[[tuple[Frame, ...], str], tuple[Frame, ...]]) -> Spot:
    """The place of an HLO instruction of a jitted step; `exact` mends the ends of its frames, by its name."""
    name = metadata.op_name
    frames = exact(inside(metadata.frames), name)
    written = _EXPANDED.get(plain(name).rpartition("/")[2], "")
    return Spot(site_of(frames, functions_of(name)), key_of(frames, name), "transpose(" in name, written)


def frames_of(traceback: Any) -> tuple[Frame, ...]:
    """The frames of JAX's record of a stack, innermost first, up to the call of the loss."""
    if traceback is None:
        return ()
    raw = (source_info.raw_frame_to_frame(code, at) for code, at in zip(*traceback.raw_frames(), strict=True))
    return inside(Frame(f.file_name, f.function_name, f.start_line, f.end_line, f.start_column, f.end_column) for f in raw)


def in_user_code(traceback: Any) -> bool:
    """Whether code of the user's is on a stack, below the call of the loss."""
    return any(kind_of(f.file, _PASSING) == USER for f in frames_of(traceback))


def in_own_rule(traceback: Any) -> bool:
    """Whether a stack leads through JAX's backward pass into code of the user's: a derivative's rule that the user wrote."""
    if traceback is None:
        return False
    own = False
    for code in traceback.raw_frames()[0]:  # innermost first
        if os.path.abspath(code.co_filename) in _FLOOR:
            return False
        if code.co_name.startswith("backward_pass") and code.co_filename.endswith(_BACKWARD):
            return own
        own = own or kind_of(code.co_filename, _PASSING) == USER
    return False


def inside(frames: Iterable[Frame], floor: Sequence[str] = _FLOOR) -> tuple[Frame, ...]:
    """The frames up to one of the files `floor`, innermost first, without those that only pass calls on."""
    own = takewhile(lambda f: os.path.abspath(f.file) not in floor, frames)
    return tuple(f for f in own if kind_of(f.file, _PASSING) != PLUMBING)


def site_of(frames: Sequence[Frame], functions: Sequence[str] = ()) -> Site | None:
    """The expression in the user's innermost frame, else in the library's outermost one; None if there is no frame.

    `functions` are the names of the jitted functions that the operation is inside of: JAX leaves its own out of the frames.
    """
    if not frames:
        return None
    user = next((i for i, f in enumerate(frames) if kind_of(f.file, _PASSING) == USER), None)
    frame = _outermost(frames) if user is None else frames[user]
    inner = frames[0] if frames[0] is not frame else None
    return site_of_span(frame.file, _span(frame), frame.function, _detail(frame, inner, functions))


def _outermost(frames: Sequence[Frame]) -> Frame:
    """The outermost frame that does more than pass its arguments on, as a decorator's wrapper does."""
    spans = ((f, source_text(f.file, f.line, f.end_line or f.line, max(f.column, 0), max(f.end_column, 0))) for f in reversed(frames))
    return next((f for f, text in spans if not re.search(r"\(\*\w+, \*\*\w+\)$", text)), frames[-1])


def key_of(frames: Sequence[Frame], name: str) -> str:
    """What an operation and its derivative share: the innermost frame, and the scopes without the transformations and the op."""
    scopes = plain(name).rpartition("/")[0]
    return f"{frames[0] if frames else ''}|{scopes}" if frames or scopes else ""


def plain(name: str) -> str:
    """An op's name without the transformations around its scopes; of several ops that the compiler made one, the first."""
    scopes = re.sub(r"(jvp|transpose|linearize)\(|\)", "", name.partition(";")[0])
    return re.sub(r"\b(checkpoint|rematted_computation)/", "", scopes)


def functions_of(name: str) -> tuple[str, ...]:
    """The names of the jitted functions in an op's name, outermost first, without the step itself."""
    return tuple(re.findall(r"jit\(([^()]*)\)", name.partition(";")[0]))[1:]


def _span(frame: Frame) -> tuple[int, int, int, int]:
    return frame.line, max(frame.column, 0), frame.end_line or frame.line, max(frame.end_column, 0)


def _detail(frame: Frame, inner: Frame | None, functions: Sequence[str]) -> str:
    if inner is not None and kind_of(inner.file, _PASSING) == LIBRARY:
        return f"{relative(os.path.abspath(inner.file))}:{inner.line} in {inner.function}"
    own = frame.function.rpartition(".")[2]
    hidden = [f for f in functions if f != own]
    return f"jax: {' > '.join(hidden)}" if hidden else ""
