"""What can be done about a bad step besides dropping it: return to a healthy snapshot, or run it without the samples that fail."""

from collections.abc import Mapping, Sequence
from itertools import chain
from typing import Any

import torch
from torch.nn.parameter import is_lazy

from whynan.watching.policy import ROLLBACK, Options
from whynan.watching.record import Suspects
from whynan.watching.torch import health
from whynan.watching.torch.rerun import Part, batch_of, outcome, pieces, undisturbed
from whynan.watching.torch.updates import copied, put_state, state_of
from whynan.watching.torch.window import Window


class Snapshots:
    """The last healthy state of models and optimizers, in memory or in one file of a folder: parameters, buffers, optimizer state.

    What goes on when it is put back: learning rates and other hyperparameters with their schedules, random numbers, the order of the data.
    """

    def __init__(self, models: Sequence[torch.nn.Module], optimizers: Sequence[torch.optim.Optimizer], options: Options) -> None:
        self._models, self._optimizers = models, optimizers
        self._file = options.snapshots / "healthy.pt" if options.snapshots is not None else None
        self._kept: Any = None
        if options.policy == ROLLBACK and not any(is_lazy(t) for t in self._tensors()):
            self.take()

    def _tensors(self) -> list[torch.Tensor]:
        unique = {id(t): t for m in self._models for t in chain(m.parameters(), m.buffers())}
        return list(unique.values())

    def take(self) -> None:
        """Keep the state as it is now, if it is finite. Raises OSError if the folder cannot be written."""
        tensors = self._tensors()
        if not health.finite([t for t in tensors if t.is_floating_point()]):
            return
        state = {"tensors": [t.detach().clone() for t in tensors], "optimizers": [state_of(o) for o in self._optimizers]}
        if self._file is None:
            self._kept = state
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self._file)
        self._kept = True

    def restore(self) -> bool:
        """Put the kept state back; False if there is none yet."""
        if self._kept is None:
            return False
        state = self._kept if self._file is None else torch.load(self._file, weights_only=True)
        with torch.no_grad():
            for t, values in zip(self._tensors(), state["tensors"], strict=True):
                t.copy_(values)
        for optimizer, values in zip(self._optimizers, state["optimizers"], strict=True):
            counters = [{k: v for k, v in group.items() if k == "step"} for group in values["rest"]]
            put_state(optimizer, copied(values), counters)
        return True


def retried(window: Window, suspects: Suspects, parameters: Mapping[str, torch.Tensor], scale: float = 1.0) -> bool:
    """Put the gradients of the step without the suspects into the parameters; False, and nothing changed, if they are not finite.

    They are divided by `scale`. Buffers, which are as before the step, come to be as after it.
    """
    total = _without(window, suspects, parameters)
    if not total:
        window.restore_buffers()
        return False
    for name, p in parameters.items():
        if p.grad is not None:
            g = total.get(name)
            p.grad = g if g is None or scale == 1 else g / scale
    return True


def _whole(window: Window, parameters: Mapping[str, torch.Tensor]) -> list[Part]:
    """The pieces that make up the step's gradients: the user's own lines where these lie between the calls, else the calls.

    Empty where micro-batches have been forgotten: their part of the gradients cannot be had again.
    """
    if window.forgotten:
        return []
    found = list(pieces(window, parameters))
    lines = {part.number: part for part in reversed(found) if part.lines is not None}
    return list(lines.values())[::-1] if len(lines) == window.backwards else [part for part in found if part.ends]


def _without(window: Window, suspects: Suspects, parameters: Mapping[str, torch.Tensor]) -> dict[str, torch.Tensor]:
    """The gradients of the step without the suspects; empty if it fails without them, too."""
    bad = set(suspects.samples or suspects.alone)
    total: dict[str, torch.Tensor] = {}
    with undisturbed([]):
        for part in _whole(window, parameters):
            rest = [i for i in range(batch_of(part)) if i not in bad] if part.number == suspects.call else None
            if rest == []:
                continue  # a micro-batch without a healthy sample
            again = outcome(part, parameters, rest)
            if again.failed or again.error:
                return {}
            for name, g in again.gradients.items():
                total[name] = total[name] + g if name in total else g
    return total
