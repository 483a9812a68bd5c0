"""A watched PyTorch run: its hooks are set, its record is read, its hooks are taken away again."""

from collections.abc import Callable, Sequence
from functools import partial
from types import TracebackType
from typing import Any

import torch

from whynan.errors import WhynanError
from whynan.watching.handle import Watched
from whynan.watching.policy import Options
from whynan.watching.torch import keep
from whynan.watching.torch.calls import LOSS, MODEL
from whynan.watching.torch.held import settle
from whynan.watching.torch.intercept import Undo, surely, watch_clipping, watch_function, watch_module, watch_replicas, watch_scalers
from whynan.watching.torch.notes import note
from whynan.watching.torch.refusals import watch_refusals
from whynan.watching.torch.run import Optimizer, Run
from whynan.watching.torch.stepping import around_scaler, around_step


class TorchWatch(Watched):
    """A watched PyTorch run. Made by `whynan.watch`; a context manager, or ended by `close`. `run` is what its hooks know."""

    def __init__(
        self, models: Sequence[torch.nn.Module], loss: Callable[..., Any] | None, optimizers: Sequence[Optimizer], options: Options
    ) -> None:
        self.run = Run(models, loss, optimizers, options)
        self.overseer = self.run.overseer
        self._undo: list[Undo] = []
        self._attach()

    @property
    def stopped(self) -> bool:
        """Whether the loop is asked to end (policy "stop")."""
        return self.run.stopped

    def note(self) -> None:
        """Bring the flight record up to date."""
        note(self.run)

    def close(self) -> None:
        """Stop watching: hooks are removed, everything is as it was before. Raises NonFiniteError if a step that still waits was bad."""
        while self._undo:
            self._undo.pop()()
        settle(self.run, all_of_them=True)
        self.note()
        self.run.window.clear()

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self.run.later = None  # that error is the one to see
        super().__exit__(kind, error, trace)

    def _attach(self) -> None:
        run, loss = self.run, self.run.loss
        for model in run.models:
            self._undo.append(watch_module(model, partial(keep.around_call, run, MODEL, model)))
        if isinstance(loss, torch.nn.Module):
            self._undo.append(watch_module(loss, partial(keep.around_call, run, LOSS, loss)))
        elif loss is not None:
            undo = watch_function(loss, partial(keep.around_call, run, LOSS, None))
            if undo is None:
                self.close()
                raise WhynanError(f"the loss {loss!r} is not written in Python and cannot be watched.", "Wrap it: def loss(p, t): ...")
            self._undo.append(undo)
        for step in {type(o).step for o, _ in run.steppers}:
            self._undo.append(surely(step, partial(around_step, run)))
        self._undo.append(surely(torch.autograd.backward, partial(keep.around_backward, run)))
        self._undo.append(watch_replicas())
        self._undo.append(watch_scalers(partial(around_scaler, run)))
        self._undo.append(watch_clipping(partial(keep.clipped, run)))
        self._undo += watch_refusals()
