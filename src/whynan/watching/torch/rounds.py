"""Accumulation in one frame: what a round of the loop has assigned is kept, as the next round assigns to the same names."""

import ast
import inspect
import linecache
import sys
from collections.abc import Mapping, Sequence, Set
from dataclasses import dataclass
from itertools import islice
from types import CodeType, FrameType
from typing import Any

from whynan.frontends.source import USER, kind_of
from whynan.watching.torch.calls import Refused
from whynan.watching.torch.nested import tensors_in
from whynan.watching.torch.statements import SCOPES, path_to, stores

Frames = Sequence[tuple[FrameType, int]]  # innermost first, with where each of them is


@dataclass(frozen=True, slots=True, eq=False)
class Round:
    """What the names that each round assigns to were when `backward` was called at `last` in the frame. Those whose values are
    differentiated are left out: they would hold the graph, and can be made again.
    """

    frame: FrameType
    last: int
    names: Set[str]
    values: Mapping[str, Any]


class Rounds:
    """The places that call `backward`, and which of them do it several times in a step: for these, and at first, rounds are kept.

    `open` says whether there are such, or may be.
    """

    def __init__(self) -> None:
        self.open = True
        self._several: dict[tuple[int, int], bool] = {}
        self._assigned: dict[tuple[int, int], Set[str]] = {}
        self._codes: dict[int, CodeType] = {}  # an id is its code's own as long as that is there

    def kept(self, frames: Frames, again: bool) -> Round | None:
        """The round under way; None where the place is known not to accumulate. `again` says that it just has."""
        if not frames:
            return None
        place = id(frames[0][0].f_code), frames[0][1]
        several = again or self._several.get(place)
        if several is False:
            self.open = any(self._several.values())
            return None
        self._several[place], self.open = bool(several), True
        for frame, last in frames:
            if names := self._names(frame, last):
                return Round(frame, last, names, _values(frame, names))
        return None

    def _names(self, frame: FrameType, last: int) -> Set[str]:
        place = id(frame.f_code), last
        if place not in self._assigned:
            self._codes[place[0]] = frame.f_code
            self._assigned[place] = _assigned(frame, last) if kind_of(frame.f_code.co_filename) == USER else frozenset()
        return self._assigned[place]


def _assigned(frame: FrameType, last: int) -> Set[str]:
    """The names that a round of the innermost loop around a place assigns to; none where the source is not there."""
    code = frame.f_code
    where = next(islice(code.co_positions(), last // 2, None), (None,) * 4)
    try:
        found = path_to(ast.parse("".join(linecache.getlines(code.co_filename, frame.f_globals))), where)
    except (Refused, SyntaxError):
        return frozenset()
    owner = next((level.owner for level in reversed(found) if isinstance(level.owner, (ast.For, ast.AsyncFor, ast.While, *SCOPES))), None)
    return frozenset() if owner is None or isinstance(owner, SCOPES) else stores(owner)


def _values(frame: FrameType, names: Set[str]) -> dict[str, Any]:
    now = frame.f_locals
    found = {n: now[n] for n in names if n in now}
    if sys.version_info < (3, 13) and frame.f_code.co_flags & inspect.CO_OPTIMIZED:  # the frame would hold them until asked again
        for name in found:
            del now[name]
    return {n: v for n, v in found.items() if all(t.grad_fn is None for t in tensors_in(v))}
