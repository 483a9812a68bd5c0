"""What can be done about a bad step besides dropping it: return to a healthy snapshot, or run it without the samples that fail."""

import copy
from collections.abc import Mapping, Sequence
from typing import Any

import torch

from whynan.watching.policy import Options
from whynan.watching.record import Suspects
from whynan.watching.torch.calls import Window
from whynan.watching.torch.rerun import batch_of, outcome, parts_of, undisturbed


class Snapshots:
    """The last healthy state of models and optimizers, in memory or in one file of a folder."""

    def __init__(self, models: Sequence[torch.nn.Module], options: Options) -> None:
        self._models = models
        self._file = options.snapshots / "healthy.pt" if options.snapshots is not None else None
        self._kept: Any = None

    def take(self, optimizers: Sequence[torch.optim.Optimizer]) -> None:
        """Keep the state as it is now. Raises OSError if the folder cannot be written."""
        state = {"models": [m.state_dict() for m in self._models], "optimizers": [o.state_dict() for o in optimizers]}
        if self._file is None:
            self._kept = copy.deepcopy(state)
            return
        self._file.parent.mkdir(parents=True, exist_ok=True)
        fresh = self._file.with_suffix(".new")
        torch.save(state, fresh)
        fresh.replace(self._file)
        self._kept = True

    def restore(self, optimizers: Sequence[torch.optim.Optimizer]) -> bool:
        """Put the kept state back; False if there is none yet."""
        if self._kept is None:
            return False
        state = copy.deepcopy(self._kept) if self._file is None else torch.load(self._file, weights_only=True)
        for model, values in zip(self._models, state["models"], strict=True):
            model.load_state_dict(values)
        for optimizer, values in zip(optimizers, state["optimizers"], strict=True):
            optimizer.load_state_dict(values)
        return True


def retried(window: Window, suspects: Suspects, parameters: Mapping[str, torch.Tensor], optimizer: torch.optim.Optimizer) -> bool:
    """Put the gradients of the step without the suspects into the parameters; False, and nothing changed, if they are not finite."""
    bad = set(suspects.samples or suspects.alone)
    total: dict[str, torch.Tensor] = {}
    with undisturbed([]):
        for part in parts_of(window):
            if not part.ends:
                continue
            rest = [i for i in range(batch_of(part)) if i not in bad] if part.number == suspects.call else None
            if rest == []:
                return False
            again = outcome(part, parameters, rest)
            if again.failed or again.error:
                return False
            for name, g in again.gradients.items():
                total[name] = total[name] + g if name in total else g
    own = {id(p) for group in optimizer.param_groups for p in group["params"]}
    for name, p in parameters.items():
        if id(p) in own:
            p.grad = total.get(name)
    return bool(total)
