"""A watched run: what is watched, and what its hooks tell each other about the step under way."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any

import torch

from whynan.patches.change import Fix
from whynan.watching.mending import Fixer
from whynan.watching.overseer import Overseer
from whynan.watching.policy import ROLLBACK, Options
from whynan.watching.torch.buffers import Buffers, Changing
from whynan.watching.torch.chance import Draws
from whynan.watching.torch.intercept import Clip, unwrapped
from whynan.watching.torch.later import Later, can_hold
from whynan.watching.torch.notes import Notes
from whynan.watching.torch.ranks import is_sharded, ranks_of
from whynan.watching.torch.remedies import Snapshots
from whynan.watching.torch.rounds import Rounds
from whynan.watching.torch.updates import Kept, inside
from whynan.watching.torch.window import Window

Optimizer = torch.optim.Optimizer

FLAGS_STAY_ANYWHERE = False  # for tests: flags stay on the device also where that is the CPU


class Run:
    """What is watched, and the state of the step under way.

    `window` holds the step's calls; `inside` says that one of them runs, since a model's own calls of the loss are part of it. `quick` is
    the optimizer if its ordinary steps need no more than `is_ordinary`. While `asleep`, nothing is kept or judged: a step is looked into.
    `stepping` says that an optimizer's step is under way, `scaler` the gradient scaler that makes it, and `updated` that it came to the
    optimizer. `clips` is what `clip_grad_norm_` has done in this step, `upfront` the buffers before it, where no call of a model is seen
    (compiled, or `forward`). `before` are parameters and state before a step whose closure is called several times. `left_out` counts, by
    optimizer, the steps in a row that the scaler made no update in; `steppers` are the optimizers, and those inside of them, with the
    number of the outer one; `draws` tells whether calls draw from Python's or NumPy's random numbers; `later` are steps whose flag is
    still on the device; `rounds` are the loops that accumulate.
    """

    def __init__(
        self, models: Sequence[torch.nn.Module], loss: Callable[..., Any] | None, optimizers: Sequence[Optimizer], options: Options
    ) -> None:
        self.overseer = Overseer(options)
        self.models, self.loss, self.optimizers = tuple(models), loss, tuple(optimizers)
        self.several = len(self.optimizers) > 1
        self.steppers = [(o, i) for i, outer in enumerate(self.optimizers) for o in (outer, *inside(outer))]
        self.numbers = {id(o): i for o, i in self.steppers}
        self.parameter_ids = {id(p) for o in self.optimizers for g in o.param_groups for p in g["params"]}
        self.snapshots = Snapshots(self.models, self.optimizers, options)
        self.ranks = ranks_of(self.models)
        self.sharded = any(is_sharded(m) for m in self.models)
        self.later: Later | None = None
        if self.ranks is not None:
            self.overseer.rank, self.overseer.agree = self.ranks.rank, self.ranks.agree
        elif not self.several and can_hold(self.optimizers[0], FLAGS_STAY_ANYWHERE):
            self.later = Later()
        alone = len(self.steppers) == 1 and self.ranks is None and self.later is None and not self.sharded
        self.quick = self.optimizers[0] if alone and options.policy != ROLLBACK and _on_cpu(self.optimizers[0]) else None
        self.fixer: Fixer | None = None  # what finds the fixes of the loss
        self.fixed: dict[tuple[str, int, str], tuple[Fix, ...]] = {}  # those found, by place and cause
        self.during_replay: Callable[[], AbstractContextManager[Any]] = nullcontext  # silences what a framework would log again
        self.stopped = False  # policy "stop": the loop is asked to end
        self.window = Window()
        self.draws, self.rounds = Draws(), Rounds()
        self.asleep = self.inside = self.stepping = self.updated = False
        self.scaler: Any = None
        self.clips: list[Clip] = []
        self.before: Kept | None = None
        self._turn: set[int] = set()
        self.left_out: dict[int, int] = {}
        self.notes = Notes()
        self.whole: Mapping[int, torch.nn.Module] = {}  # sharded models on one rank, while a step is looked into
        self.parameters = dict(self._named_parameters())
        self.changing = {id(m): Changing(m) for m in self.models if next(m.buffers(), None) is not None}
        self.upfront: list[Buffers] | None = self.buffers()

    @property
    def roots(self) -> dict[str, torch.nn.Module]:
        """The watched modules by the path that their layers' names begin with."""
        several = len(self.models) > 1
        found: dict[str, torch.nn.Module] = {str(i) if several else "": self._plain(m) for i, m in enumerate(self.models)}
        return {**found, "loss": self.loss} if isinstance(self.loss, torch.nn.Module) else found

    def turns(self, number: int) -> None:
        """An optimizer's update is due, of several: a step of the loop is over when one of them comes again."""
        if number in self._turn:
            self._turn.clear()
        elif self._turn:
            self.overseer.step -= 1  # it is a part of the step that the one before has ended
        self._turn.add(number)

    def buffers(self) -> list[Buffers]:
        """Copies of the models' changing buffers as they are now."""
        return [b for changing in self.changing.values() if (b := changing.copies()) is not None]

    def ready_to_rerun(self) -> None:
        """Take the modules that a step can be run again with, and their parameters."""
        self.parameters = dict(self._named_parameters())
        for call in self.window.calls:
            if isinstance(call.target, torch.nn.Module):
                call.target = self._plain(call.target)

    def _named_parameters(self) -> Iterable[tuple[str, torch.Tensor]]:
        several = len(self.models) > 1
        for i, model in enumerate(self.models):
            for name, p in self._plain(model).named_parameters():
                yield (f"{i}.{name}" if several else name), p
        if isinstance(self.loss, torch.nn.Module):
            yield from ((f"loss.{name}", p) for name, p in self.loss.named_parameters())

    def _plain(self, module: torch.nn.Module) -> torch.nn.Module:
        twin = self.whole.get(id(module))
        return unwrapped(module) if twin is None else twin


def _on_cpu(optimizer: Optimizer) -> bool:
    return all(p.device.type == "cpu" for group in optimizer.param_groups for p in group["params"])
