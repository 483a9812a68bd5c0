"""Where the user's code was when an error was raised: the expression, from the traceback."""

from types import TracebackType
from typing import Any

from whynan.frontends.source import USER, detail_of, kind_of, site_at
from whynan.ir.where import Site

_GENERATED = "__autograph_generated_file"


def site_of(error: BaseException | None) -> Site | None:
    """The innermost expression of the user's own code on the way to an error, None if there is none.

    Errors that were raised from another one stand where that one was raised.
    """
    seen: set[int] = set()
    found: Site | None = None
    while error is not None and id(error) not in seen:
        seen.add(id(error))
        found = _innermost(error) or found
        error = error.__cause__
    return found


def _innermost(error: BaseException) -> Site | None:
    trace, inner = error.__traceback__, None
    while trace is not None:
        inner = trace if kind_of(trace.tb_frame.f_code.co_filename) == USER else inner
        trace = trace.tb_next
    if inner is None:
        return None
    below = inner.tb_next
    detail = detail_of(below.tb_frame) if below is not None else ""
    if _GENERATED in inner.tb_frame.f_code.co_filename:
        return _behind(inner, error, detail)
    return site_at(inner.tb_frame.f_code, inner.tb_lasti, detail)


def _behind(trace: TracebackType, error: Any, detail: str) -> Site | None:
    """The user's expression behind code that TensorFlow's AutoGraph generated, which tells the user's line with the error."""
    frames = getattr(getattr(error, "ag_error_metadata", None), "translated_stack", ())
    written = next((f for f in frames if f.is_converted), None)
    if written is None:
        return None
    from whynan.frontends.tensorflow.autograph import site_behind  # TensorFlow is loaded: it raised the error

    code = trace.tb_frame.f_code
    return site_behind(code, trace.tb_lasti, written.filename, written.lineno, written.function_name, detail)
