"""Where an operation stands: the user's own expression on the Python stack, or the forward expression behind a gradient."""

import linecache
from inspect import CO_VARARGS, CO_VARKEYWORDS
from types import CodeType, FrameType
from typing import Any

import torch
from torch._C._autograd import _get_sequence_nr as sequence_number
from torch.autograd.graph import _engine_run_backward
from torch.overrides import handle_torch_function

from whynan.frontends.source import KERAS_PASSING, LIBRARY, USER, detail_of, kind_of, site_at
from whynan.ir.graph import BACKWARD, FORWARD
from whynan.ir.where import Site

# files whose frames only pass a call on
PASSING = (
    "torch/nn/modules/module.py",
    "torch/utils/_contextlib.py",
    "torch/_compile.py",
    "torch/_dynamo/",
    "torch/overrides.py",
    "keras/src/layers/layer.py",
    "keras/src/backend/torch/layer.py",
    *KERAS_PASSING,
)
_HANDOVER = handle_torch_function.__code__


def _hands_on(code: CodeType) -> bool:
    """Whether this is the code of a decorator's wrapper, `def wrapper(*args, **kwargs)` around a function."""
    return bool(code.co_flags & CO_VARARGS and code.co_flags & CO_VARKEYWORDS and code.co_freevars)


class Places:
    """Sites for one capture. `floors` are whynan's functions that call the target and the autograd engine."""

    def __init__(self, floors: tuple[CodeType, ...]) -> None:
        self._floors = floors
        self._engine = (*floors, _engine_run_backward.__code__)
        self._sites: dict[tuple[int, int, int, int], Site] = {}
        self._files: set[str] = set()  # whose text is up to date
        self._codes: list[CodeType] = []  # kept alive: `_sites` knows them by id
        self._forward: dict[int, tuple[Site | None, int]] = {}  # sequence number of an autograd node -> the forward expression and call
        self._next = sequence_number()
        self._last: tuple[Site | None, int] = (None, -1)

    def here(self, frame: FrameType | None, source: int) -> tuple[str, Site | None, int]:
        """Phase and site of the op that is being called below that frame as call number `source`.

        Third, for a backward op, the number of the forward call whose derivative it computes, else -1.
        """
        node, derives = torch._C._current_autograd_node(), -1
        if node is None:
            phase, site = FORWARD, self._on_stack(frame, in_engine=False)
        else:
            forward, derives = self._forward.get(node._sequence_nr(), (None, -1))
            site = self._on_stack(frame, in_engine=True)
            # code of the user that autograd calls: a recomputed forward part (checkpoint) or a backward() of their own
            phase = FORWARD if site is not None and torch.is_grad_enabled() else BACKWARD
            site, derives = site or forward, derives if phase == BACKWARD else -1
        self._last = site, source
        self._assign()
        return phase, site, derives

    def forward(self, node: Any) -> Site | None:
        """The forward expression that made an autograd node."""
        return self._forward.get(node._sequence_nr(), (None, -1))[0]

    def returned(self) -> None:
        """A torch function with ops in it has returned to Python: autograd nodes made since the last op belong to that op.

        Not so if there were none in it, as in `x.shape`: an `autograd.Function` under way has its node already, and no op yet.
        """
        self._assign()

    def _assign(self) -> None:
        now = sequence_number()
        for number in range(self._next, now):
            self._forward[number] = self._last
        self._next = now

    def _on_stack(self, frame: FrameType | None, *, in_engine: bool) -> Site | None:
        floors = self._engine if in_engine else self._floors
        inner: FrameType | None = None
        outer: FrameType | None = None
        while frame is not None and frame.f_code not in floors:
            kind = kind_of(frame.f_code.co_filename, PASSING)
            if kind == USER:
                return self._site(frame, inner)
            if kind == LIBRARY:
                inner, outer = inner or frame, frame if outer is None or not _hands_on(frame.f_code) else outer
            if frame.f_code is _HANDOVER and frame.f_back is not None:
                frame = frame.f_back  # the function that hands itself over to the recorder's mode: it is on the stack twice
            frame = frame.f_back
        return None if in_engine or outer is None else self._site(outer, inner if inner is not outer else None)

    def _site(self, frame: FrameType, inner: FrameType | None) -> Site:
        below = inner.f_code if inner is not None else None
        key = (id(frame.f_code), frame.f_lasti, id(below), inner.f_lasti if inner is not None else -1)
        found = self._sites.get(key)
        if found is None:
            if frame.f_code.co_filename not in self._files:
                self._files.add(frame.f_code.co_filename)
                linecache.checkcache(frame.f_code.co_filename)
            found = self._sites[key] = site_at(frame.f_code, frame.f_lasti, detail_of(inner))
            self._codes += [frame.f_code] if below is None else [frame.f_code, below]
        return found
