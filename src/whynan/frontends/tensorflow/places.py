"""Where an operation stands: the user's own expression on the Python stack, or the forward expression behind a gradient."""

import linecache
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from types import CodeType, FrameType

from whynan.frontends.source import KERAS_PASSING, LIBRARY, USER, detail_of, kind_of, relative, site_at
from whynan.frontends.tensorflow.autograph import is_generated, origin, site_behind
from whynan.ir.graph import BACKWARD, FORWARD
from whynan.ir.where import Site

# files whose frames only pass a call on
PASSING = (
    "tensorflow/python/autograph/",
    "tensorflow/python/eager/",
    "tensorflow/python/framework/",
    "tensorflow/python/ops/gen_",
    "tensorflow/python/ops/weak_tensor_ops.py",
    "tensorflow/python/ops/cond",
    "tensorflow/python/ops/while",
    "tensorflow/python/ops/custom_gradient.py",
    "tensorflow/python/ops/gradients_util.py",
    "tensorflow/python/util/",
    "keras/src/backend/tensorflow/sparse.py",
    "wrapt/",
    *KERAS_PASSING,
)


# library files whose functions are mostly one op each: what calls them says more
WRAPPERS = (
    "tensorflow/python/ops/array_ops.py",
    "tensorflow/python/ops/math_ops.py",
    "tensorflow/python/ops/special_math_ops.py",
    "keras/src/ops/",
    "keras/src/backend/common/",
    "keras/src/backend/tensorflow/core.py",
    "keras/src/backend/tensorflow/math.py",
    "keras/src/backend/tensorflow/numpy.py",
)
# methods of Keras that only pass a call on, by qualified name
_CALLS = frozenset({"Loss.__call__", "LossFunctionWrapper.call", "Layer.__call__", "Operation.__call__"})


@dataclass(frozen=True, slots=True)
class Spot:
    """Where one op stands. `forward` is the key of the forward op whose derivative it helps to compute, None for a forward op.

    `inner` are the library's own expressions, between the site and the op, in which its small numbers stand.
    """

    phase: str
    site: Site | None
    forward: object = None
    inner: tuple[str, ...] = ()


class Places:
    """Spots for one capture. `target` and `tape` are whynan's functions that call the loss and differentiate it."""

    def __init__(self, target: CodeType, tape: CodeType) -> None:
        self._tape = tape
        self._floors = [target, tape]
        self._sites: dict[tuple[int, int, int, int], Site] = {}
        self._files: set[str] = set()  # whose text is up to date
        self._codes: list[CodeType] = []  # kept alive: `_sites` knows them by id
        self._forward: Spot | None = None  # the forward op that is being differentiated
        self._last: Site | None = None  # the expression that was differentiated last

    def floor(self, code: CodeType) -> None:
        """Frames from this function outwards are no part of what is being differentiated."""
        if code not in self._floors:
            self._floors.append(code)

    @contextmanager
    def differentiating(self, key: object, site: Site | None) -> Iterator[None]:
        """Ops made inside belong to the derivative of the forward op of that key, which stands at that site."""
        outer, self._forward = self._forward, Spot(BACKWARD, site, key)
        try:
            yield
        finally:
            self._forward, self._last = outer, site

    def here(self, frame: FrameType | None) -> Spot:
        """Where the op stands that is being called below that frame."""
        inner: list[str] = []
        floor, site = self._on_stack(frame, inner)
        if self._forward is not None:
            return Spot(BACKWARD, site or self._forward.site, self._forward.forward)
        if floor is self._tape:  # what the tape itself does: the seed, sums of several gradients
            return Spot(BACKWARD, site or self._last)
        return Spot(FORWARD, site if floor is not None else None, inner=tuple(inner))  # no floor: what the framework does around the step

    def _on_stack(self, frame: FrameType | None, texts: list[str]) -> tuple[CodeType | None, Site | None]:
        """The innermost floor below the frame, and the user's expression (the outermost library's if there is none) up to there.

        Appends to `texts` the library's expressions on the way that name Keras' epsilon.
        """
        inner: FrameType | None = None
        outer: FrameType | None = None
        while frame is not None and frame.f_code not in self._floors:
            file = frame.f_code.co_filename
            found = origin(file, frame.f_lineno) if is_generated(file) else None
            kind = LIBRARY if found is None and is_generated(file) else kind_of(found[0] if found else file, PASSING)
            if kind == USER:
                return self._floor_of(frame), self._site(frame, inner)
            if kind == LIBRARY and (text := _with_epsilon(frame.f_code, frame.f_lasti, found)):
                texts.append(_EPSILON.sub(repr(sys.modules["keras"].config.epsilon()), text))
            if kind == LIBRARY and frame.f_code.co_qualname not in _CALLS:
                inner = frame if inner is None or (_is_wrapper(inner) and not _is_wrapper(frame)) else inner
                outer = frame
            frame = frame.f_back
        floor = frame.f_code if frame is not None else None
        in_target = floor is self._floors[0]
        return floor, None if outer is None or not in_target else self._site(outer, inner if inner is not outer else None)

    def _floor_of(self, frame: FrameType | None) -> CodeType | None:
        while frame is not None and frame.f_code not in self._floors:
            frame = frame.f_back
        return frame.f_code if frame is not None else None

    def _site(self, frame: FrameType, inner: FrameType | None) -> Site:
        below = inner.f_code if inner is not None else None
        key = (id(frame.f_code), frame.f_lasti, id(below), inner.f_lasti if inner is not None else -1)
        found = self._sites.get(key)
        if found is None:
            found = self._sites[key] = self._read(frame, detail_of(inner))
            self._codes += [frame.f_code] if below is None else [frame.f_code, below]
        return found

    def _read(self, frame: FrameType, detail: str) -> Site:
        code = frame.f_code
        behind = origin(code.co_filename, frame.f_lineno) if is_generated(code.co_filename) else None
        self._refresh(behind[0] if behind else code.co_filename)
        return site_behind(code, frame.f_lasti, *behind, detail) if behind else site_at(code, frame.f_lasti, detail)

    def _refresh(self, file: str) -> None:
        if file not in self._files:
            self._files.add(file)
            linecache.checkcache(file)


@lru_cache(maxsize=4096)
def _with_epsilon(code: CodeType, lasti: int, behind: tuple[str, int, str] | None) -> str:
    """An expression of Keras' own that calls `epsilon()`; empty for any other."""
    if not relative(behind[0] if behind else code.co_filename).startswith("keras/src/"):
        return ""
    text = (site_behind(code, lasti, *behind) if behind else site_at(code, lasti)).text
    return text if _EPSILON.search(text) else ""


_EPSILON = re.compile(r"\b(?:\w+\.)*epsilon\(\)")


def _is_wrapper(frame: FrameType) -> bool:
    return relative(frame.f_code.co_filename).startswith(WRAPPERS)
