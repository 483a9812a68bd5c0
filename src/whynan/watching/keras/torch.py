"""`model.fit` on PyTorch: the model's train function is replaced by one whose step is watched."""

import math
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any

import numpy as np
import torch
from torch.utils._pytree import tree_leaves, tree_map

from whynan.errors import TargetError, WhynanError
from whynan.frontends.torch.program import array_of, call, differentiate, recorded
from whynan.frontends.torch.recorder import Recorder
from whynan.frontends.torch.tensors import FORMATS
from whynan.frontends.trace import finished, first_line
from whynan.ir.graph import Output
from whynan.watching.judge import Judge
from whynan.watching.keras.data import by_name, collected
from whynan.watching.keras.fit import Logs, optimizers_of, replaced
from whynan.watching.keras.layers import Layers
from whynan.watching.keras.recipe import bundled
from whynan.watching.keras.tap import Apply, Patch, Tap, Update
from whynan.watching.overseer import Overseer
from whynan.watching.policy import RETRY
from whynan.watching.record import Incident, Moment
from whynan.watching.replay import Again, Recorded, batch_of, explained
from whynan.watching.torch import health
from whynan.watching.torch.calls import random_state, set_random_state

_REFUSAL = re.compile(r"between 0 and 1|\bnan\b", re.IGNORECASE)  # in the error of a function that was given NaN


def begin(model: Any, overseer: Overseer) -> Callable[[], None]:
    """Watch the model's training from now on; returns what ends that."""
    step = Step(model, overseer)
    logs = Logs(model, step.judge, model.get_metrics_result)
    return replaced(model, lambda data: logs.of(step(data[0])))


class _Differentiated(Exception):
    """The step has come to the point where it differentiates these."""

    def __init__(self, losses: Sequence[torch.Tensor]) -> None:
        self.losses = losses


@dataclass(slots=True, eq=False)
class Verdict:
    """What was seen in a step: whether it is to count, its losses' sum and gradient norm, whether a loss is not finite."""

    refused: bool = False
    left_out: bool = False
    updates: int = 0
    loss: float = math.nan
    loss_fine: bool = True
    norm: float = math.nan
    rate: float = math.nan
    scale: float = math.nan


@dataclass(slots=True, eq=False)
class Step:
    """The train step of a model, watched."""

    model: Any
    overseer: Overseer
    _kept: "Kept" = field(init=False)
    judge: Judge = field(init=False)
    _run: Any = None
    _several: bool = False  # updates in a step: what one has changed is to be taken back where another is bad
    _failing: int = 1  # which of a bad step's updates was not made, or not reached

    def __post_init__(self) -> None:
        self._kept = Kept(lambda: [raw(v) for v in (*self.model.non_trainable_variables, *self.model.metrics_variables)])
        self.judge = Judge(self.overseer, lambda: Copies.of(self._everything()), Copies.put, self._norm)

    def __call__(self, data: Any) -> Any:
        """Run one step; see `policy` for what happens when it is bad."""
        before, seeds, seen = self._kept.copies(), random_state(), Verdict()
        self.judge.begin()
        tap = Tap(lambda found, make: _look(seen, found, make))
        try:
            with tap.open(_differentiating(lambda tensors: tap.losses.extend(tensors))):
                result = self._step()(data)
        except (RuntimeError, ValueError) as error:
            if not _refuses_nan(error):
                raise
            self._failing = seen.updates + 1
            return self._refused(error, before, data, seeds)
        if seen.updates > 1 and not self._several:
            self._several, self._kept = True, Kept(self._everything)
        measured = seen.loss, seen.norm, seen.rate, seen.scale
        if not seen.refused and not seen.left_out:
            self.judge.healthy(*measured)
            return result
        moment = self.judge.moment(*measured)
        if seen.left_out and not seen.refused:
            self.judge.left_out(moment)
        else:
            before.put()
            self._failing = seen.updates
            failed = "loss" if not seen.loss_fine else "gradient" if math.isnan(seen.scale) else "scale"
            if self.judge.bad(moment, lambda: self._explained(moment, failed, data, seeds)) == RETRY and self.judge.rest():
                return self._rest(data)
        return result

    def _refused(self, error: Exception, before: "Copies", data: Any, seeds: Any) -> Any:
        """Judge a step that did not come to its loss, since a function refused NaN. Raises the error if no NaN is found."""
        before.put()
        moment = self.judge.moment(math.nan, math.nan, float(self.model.optimizer.learning_rate))
        incident = self._explained(moment, "loss", data, seeds)
        if incident.finding is None:
            raise error
        note = f"the step raised {first_line(error)}"
        action = self.judge.bad(moment, lambda: replace(incident, notes=(*incident.notes, note)))
        return self._rest(data) if action == RETRY and self.judge.rest() else self.model.get_metrics_result()

    def _rest(self, data: Any) -> Any:
        """Run the step without the samples that made it fail."""
        rest, batch = self.judge.rest(), self.overseer.suspects.batch
        return self(tree_map(lambda t: part_of(t, rest, batch), data))

    def _step(self) -> Callable[[Any], Any]:
        if self._run is None:
            self._run = torch.compile(self.model.train_step) if self.model._should_torch_compile() else self.model.train_step
        return self._run  # type: ignore[no-any-return]

    def _norm(self) -> float:
        return math.hypot(*health.norms([raw(v).detach() for v in self.model.trainable_variables]))

    def _everything(self) -> list[torch.Tensor]:
        optimizers = (v for o in optimizers_of(self.model) for v in o.variables)
        return [raw(v) for v in (*self.model.variables, *optimizers, *self.model.metrics_variables)]

    # ------------------------------------------------------------ when it is bad

    def _explained(self, moment: Moment, failed: str, data: Any, seeds: Any) -> Incident:
        given = {n: t.detach().cpu().numpy() for n, t in _tensors(data).items() if t.dtype in FORMATS}
        batch = batch_of(given)

        def record(how: str, rows: Sequence[int] | None) -> Recorded:
            return self._recorded(data if rows is None else tree_map(lambda t: part_of(t, rows, batch), data), seeds)

        copies, grads = Copies.of(self._everything()), [(p, p.grad) for p in self.model.parameters()]
        present = random_state()
        try:
            return explained(
                Again(
                    "torch",
                    str(torch.__version__),
                    ("eager",),
                    given,
                    batch,
                    record,
                    bundled=lambda: bundled(self.model, data, lambda v: isinstance(v, torch.Tensor)),
                ),
                moment,
                failed,
                self.overseer.options.replay_seconds,
            )
        finally:
            copies.put()
            set_random_state(present)
            for p, g in grads:
                p.grad = g

    def _recorded(self, data: Any, seeds: Any) -> Recorded:
        """Run the step up to where it differentiates, differentiate, and record every operation."""
        recorder = Recorder(call.__code__, differentiate.__code__)
        layers = Layers(lambda: recorder.calls, [self.model])
        copies = Copies.of(self._everything())
        wrt = {str(v.path): raw(v) for v in self.model.trainable_variables}
        inputs = {**{n: t for n, t in _tensors(data).items() if t.dtype in FORMATS}, **wrt}
        nodes = {name: recorder.input(name, t, array_of(t)) for name, t in inputs.items()}
        set_random_state(seeds)
        try:
            with layers.open(), recorder:
                outputs = recorded(recorder, lambda: self._losses(data), wrt)
        except WhynanError:
            raise
        except Exception as error:
            last = _last_nan(recorder) if _refuses_nan(error) else None
            if last is not None:
                return Recorded(finished(recorder.recording, nodes, [Output("loss", "loss", last)]), layers.of)
            raise TargetError(f"the step raised {first_line(error).rstrip('.')} when it was run again.") from error
        finally:
            copies.put()
        return Recorded(finished(recorder.recording, nodes, outputs), layers.of)

    def _losses(self, data: Any) -> list[torch.Tensor]:
        def reached(tensors: Sequence[torch.Tensor]) -> bool:
            if len(made) + 1 == self._failing:
                raise _Differentiated(tensors)
            return True

        made: list[Update] = []
        tap = Tap(lambda found, make: made.append(found))
        try:
            with tap.open(_differentiating(reached)):
                call(self.model.train_step, (data,), {})
        except _Differentiated as found:
            return list(found.losses)
        raise TargetError("the step has differentiated nothing.")


def _refuses_nan(error: Exception) -> bool:
    """Whether a function may have raised this because it was given NaN: torch's binary cross-entropy does so, and its distributions."""
    return isinstance(error, (RuntimeError, ValueError)) and _REFUSAL.search(str(error)) is not None


def _last_nan(recorder: Recorder) -> int | None:
    """The last recorded node that holds NaN."""
    values = recorder.recording.values
    return max((i for i, v in values.items() if v.dtype.kind == "f" and np.isnan(v).any()), default=None)


def _look(seen: Verdict, found: Update, make: Callable[[], Any]) -> None:
    """Make an update, if its losses and gradients are finite, and those of the step's earlier updates were."""
    if seen.refused:
        return
    losses = [t.detach() for t in tree_leaves(found.losses) if isinstance(t, torch.Tensor)]
    gradients = [g for g in found.gradients if g is not None]
    seen.updates += 1
    seen.loss = sum(float(t.sum()) for t in losses)
    seen.loss_fine = math.isfinite(seen.loss) or health.finite(losses)
    seen.norm = math.hypot(*health.norms(gradients))
    seen.rate = float(found.optimizer.learning_rate)
    sound = seen.loss_fine and (math.isfinite(seen.norm) or health.finite(gradients))
    if found.scaled:
        seen.scale = float(found.optimizer.dynamic_scale)
        seen.left_out = not sound and seen.loss_fine and seen.scale > 1
    if sound or seen.left_out:
        make()
    else:
        seen.refused = True


def _differentiating(told: Callable[[Sequence[torch.Tensor]], bool | None]) -> list[Patch]:
    """The functions of torch that differentiate; they tell of what, and do nothing if the answer is true.

    A derivative that is differentiated again, as in a gradient penalty, is a part of the loss.
    """

    def made(original: Apply) -> Apply:
        def differentiating(tensors: Any, *args: Any, **kwargs: Any) -> Any:
            inner = kwargs.get("create_graph", False)
            if not inner and told([t for t in tree_leaves(tensors) if isinstance(t, torch.Tensor)]):
                return None
            return original(tensors, *args, **kwargs)

        return differentiating

    return [(torch.Tensor, "backward", made), (torch.autograd, "grad", made)]


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """Tensors and what they held."""

    owners: Sequence[torch.Tensor]
    held: Sequence[torch.Tensor]

    @classmethod
    def of(cls, owners: Sequence[torch.Tensor]) -> "Copies":
        """Copies of these."""
        return cls(owners, [t.detach().clone() for t in owners])

    def put(self) -> None:
        """Write the copies back."""
        with torch.no_grad():
            for owner, copy in zip(self.owners, self.held, strict=True):
                owner.copy_(copy)


@dataclass(slots=True, eq=False)
class Kept:
    """Copies of those tensors that steps change: before the first step of all, later of those that were seen to change."""

    owners: Callable[[], Sequence[torch.Tensor]]
    _known: Sequence[torch.Tensor] = ()
    _versions: list[int] = field(default_factory=list)
    _changing: set[int] = field(default_factory=set)

    def copies(self) -> Copies:
        """Copies as of now."""
        if not self._known:
            self._known = list(self.owners())
            self._versions = [t._version for t in self._known]
            return Copies.of(self._known)
        now = [t._version for t in self._known]
        self._changing.update(i for i, (old, new) in enumerate(zip(self._versions, now, strict=True)) if old != new)
        self._versions = now
        return Copies.of([self._known[i] for i in sorted(self._changing)])


def raw(variable: Any) -> torch.Tensor:
    """PyTorch's tensor inside one of Keras' variables."""
    return variable.value  # type: ignore[no-any-return]


def _tensors(data: Any) -> Mapping[str, torch.Tensor]:
    return collected(by_name(data), torch.Tensor)


def part_of(value: Any, rows: Sequence[int], batch: int) -> Any:
    """The rows of a tensor that holds one for each sample; anything else as it is."""
    return value[list(rows)] if isinstance(value, torch.Tensor) and value.ndim and len(value) == batch else value
