"""The hooks: what they keep of a step while it runs, and the look at loss and gradients before the optimizer changes anything."""

import itertools
import math
from collections.abc import Callable, Iterable, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import Any, NamedTuple
from weakref import ref

import torch

from whynan.errors import WhynanError
from whynan.watching.overseer import Overseer
from whynan.watching.policy import RETRY, ROLLBACK, STOP, Options
from whynan.watching.record import Incident, Moment
from whynan.watching.torch import health
from whynan.watching.torch.calls import (
    LOSS,
    MODEL,
    ONES,
    Call,
    Changing,
    Differentiated,
    Window,
    autocast_state,
    loss_in,
    random_state,
    references,
    refuse_in_replay,
    versions_of,
)
from whynan.watching.torch.intercept import Undo, frames_behind, place_behind, watch_backward, watch_clipping, watch_function, watch_scalers
from whynan.watching.torch.remedies import Snapshots, retried

Optimizer = torch.optim.Optimizer

SCALER_PATIENCE = 12  # steps in a row without an update: from its first scale of 65536 it would be at 16
NOTED_TOGETHER = 8  # steps


class TorchWatch:
    """A watched PyTorch run. Made by `whynan.watch`; a context manager, or ended by `close`."""

    def __init__(
        self,
        models: Sequence[torch.nn.Module],
        loss: Callable[..., Any] | None,
        optimizers: Sequence[Optimizer],
        options: Options,
    ) -> None:
        self.overseer = Overseer(options)
        self.models, self.loss, self.optimizers = tuple(models), loss, tuple(optimizers)
        self.stopped = False  # policy "stop": the loop is asked to end
        self.during_replay: Callable[[], AbstractContextManager[Any]] = nullcontext  # silences what a framework would log again
        self._window = Window()
        self._inside = 0  # depth of watched calls: a model's own calls of the loss are part of it
        self._asleep = False
        self._changing = {id(m): Changing(m) for m in self.models}
        self._clip_norm: Any = None  # what clip_grad_norm_ has measured in this step
        self._snapshots = Snapshots(self.models, options)
        self._left_out_in_a_row = 0
        self._scaler: Any = None  # the gradient scaler that is stepping
        self._unnoted: list[_Seen] = []
        self.parameters = dict(self._named_parameters())
        self._undo: list[Undo] = []
        self._attach()

    # ------------------------------------------------------------ the user's side

    @property
    def incidents(self) -> list[Incident]:
        """The incidents so far, oldest first."""
        return self.overseer.incidents

    @property
    def step(self) -> int:
        """How many steps were taken or dropped so far."""
        return self.overseer.step

    @property
    def bad_steps(self) -> int:
        """How many of them were not applied."""
        return self.overseer.bad_steps

    @property
    def flight(self) -> tuple[Moment, ...]:
        """The last steps, oldest first."""
        self._note()
        return self.overseer.flight.moments

    def close(self) -> None:
        """Stop watching: hooks are removed, everything is as it was before."""
        while self._undo:
            self._undo.pop()()
        self._window.clear()

    def __enter__(self) -> "TorchWatch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        self.close()

    @property
    def roots(self) -> dict[str, torch.nn.Module]:
        """The watched modules by the path that their layers' names begin with."""
        several = len(self.models) > 1
        found: dict[str, torch.nn.Module] = {str(i) if several else "": m for i, m in enumerate(self.models)}
        return {**found, "loss": self.loss} if isinstance(self.loss, torch.nn.Module) else found

    # ------------------------------------------------------------ attaching

    def _attach(self) -> None:
        for model in self.models:
            self._hook(model.register_forward_pre_hook(self._before_model, with_kwargs=True))
            self._hook(model.register_forward_hook(self._after, with_kwargs=True))
        if isinstance(self.loss, torch.nn.Module):
            self._hook(self.loss.register_forward_hook(self._after_loss, with_kwargs=True))
        elif self.loss is not None:
            undo = watch_function(self.loss, self._around_loss)
            if undo is None:
                self.close()
                raise WhynanError(f"the loss {self.loss!r} is not written in Python and cannot be watched.", "Wrap it: def loss(p, t): ...")
            self._undo.append(undo)
        for optimizer in self.optimizers:
            self._hook(optimizer.register_step_pre_hook(self._before_update))
            if self.overseer.options.policy == ROLLBACK:
                self._hook(optimizer.register_step_post_hook(self._after_update))
        self._undo.append(watch_backward(self._roots))
        self._undo.append(watch_scalers(self._scaled))
        self._undo.append(watch_clipping(self._clipped))

    def _hook(self, handle: Any) -> None:
        self._undo.append(handle.remove)

    def _named_parameters(self) -> Iterable[tuple[str, torch.Tensor]]:
        several = len(self.models) > 1
        for i, model in enumerate(self.models):
            for name, p in model.named_parameters():
                yield (f"{i}.{name}" if several else name), p
        if isinstance(self.loss, torch.nn.Module):
            yield from ((f"loss.{name}", p) for name, p in self.loss.named_parameters())

    # ------------------------------------------------------------ while the step runs

    def _before_model(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        self._called(MODEL, module, args, kwargs)

    def _called(self, role: str, target: Any, args: Any, kwargs: Any) -> Call | None:
        """Keep a call that begins; None if it is none of a training step's."""
        self._inside += 1
        if self._inside > 1 or self._asleep or not torch.is_grad_enabled():
            return None
        window = self._window
        if window.closing:
            window.clear()
        first = role == MODEL or not window.calls  # a loss that follows a model goes on with the numbers that the model leaves
        call = Call(role, target, args, kwargs, (), random_state() if first else {}, autocast_state())
        call.versions = versions_of(call.tensors())
        call.place = place_behind()
        changing = self._changing.get(id(target if role == MODEL or not args else args[0]))  # a model's own method may be the loss
        call.buffers = changing.copies() if changing is not None and changing.module.training else None
        window.calls.append(call)
        return call

    def _after(self, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        self._returned(result)

    def _after_loss(self, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        self._called(LOSS, module, args, kwargs)
        self._returned(result)

    def _returned(self, result: Any) -> None:
        self._inside -= 1
        if self._inside or self._asleep or not torch.is_grad_enabled() or not self._window.calls:
            return
        call = self._window.calls[-1]
        if call.role == LOSS and not isinstance(result, torch.Tensor):
            result = loss_in(result)
        call.outputs = references(result)
        if call.role == LOSS and isinstance(result, torch.Tensor) and result.requires_grad:
            call.value = result

    def _around_loss(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before = self._inside
        self._called(LOSS, original, args, kwargs)
        try:
            result = original(*args, **kwargs)
            self._returned(result)
            return result
        finally:
            self._inside = before

    def _scaled(self, scaler: Any, optimizer: Any, go: Callable[[], Any]) -> Any:
        """A gradient scaler steps an optimizer, or leaves it out."""
        before, self._scaler = self.step, scaler
        try:
            result = go()
        finally:
            self._scaler = None
        if optimizer in self.optimizers and self.step == before:
            self._left_out(scaler, optimizer)
        return result

    def _clipped(self, norm: Any) -> None:
        self._clip_norm = norm

    def _roots(self, roots: Sequence[torch.Tensor], plain: bool) -> None:
        """`backward` is about to run on these; `plain` says that it starts from ones."""
        window = self._window
        if self._asleep:
            refuse_in_replay()
            return
        if window.closing:
            window.clear()
        detached = tuple([t.detach() for t in roots])
        window.differentiate(Differentiated(frames_behind(), detached, plain, autocast_state(), len(window.calls)))
        known = []
        for call in window.calls:
            if call.value is None or call.seed is not None:
                continue
            if plain and any(call.value is root for root in roots):
                call.seed = ONES
                known.append(call.value)
            else:  # something lies between this loss and the root: the gradient that comes in tells what
                call.value.register_hook(_Seed(call))  # type: ignore[no-untyped-call]  # torch leaves it without types
        window.roots += [(t.detach(), ref(t)) for t in roots if not any(t is k for k in known)]

    # ------------------------------------------------------------ before and after the update

    def _before_update(self, optimizer: Optimizer, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        self._inside = 0  # a call that raised has not returned
        closure = args[1] if len(args) > 1 else kwargs.get("closure")  # the first argument is the optimizer
        if closure is None:
            self._look(optimizer)
            return None

        def looked() -> Any:
            value = closure()
            self._look(optimizer)
            return value

        return ((args[0], looked, *args[2:]), kwargs) if len(args) > 1 else (args, {**kwargs, "closure": looked})

    def _look(self, optimizer: Optimizer) -> None:
        """Judge the step whose update is due: note it, or deal with it."""
        groups = [[g for p in group["params"] if (g := p.grad) is not None] for group in optimizer.param_groups]
        flat = groups[0] if len(groups) == 1 else [g for group in groups for g in group]
        norms = health.norms(flat)
        loss, loss_fine = self._loss()
        fine = loss_fine and (math.isfinite(sum(norms)) or health.finite(flat))
        rates = [g["lr"] for g in optimizer.param_groups if "lr" in g]
        number = self._number_of(optimizer)
        self._unnoted.append(_Seen(self.overseer.step, loss, norms, [len(g) for g in groups], rates, self._scaler, self._clip_norm, number))
        self._clip_norm = None
        if fine:
            self._window.closing = True
            self.overseer.applied(number)
            self._left_out_in_a_row = 0
            at_once = sum(norms) > self.overseer.flight.ordinary * math.sqrt(len(norms) or 1)
            if at_once or len(self._unnoted) >= NOTED_TOGETHER:
                self._note(optimizer)
        else:
            *before, now = self._moments(optimizer)
            for moment in before:
                self.overseer.noted(moment)
            self._bad(optimizer, now, "gradient" if loss_fine else "loss")

    def _number_of(self, optimizer: Optimizer) -> int:
        return next((i for i, o in enumerate(self.optimizers) if o is optimizer), 0)

    def _note(self, optimizer: Optimizer | None = None) -> None:
        for moment in self._moments(optimizer):
            self.overseer.noted(moment)

    def _moments(self, optimizer: Optimizer | None = None) -> list[Moment]:
        """What was seen of the last steps, as records; they are made several at a time, which is cheaper.

        If the last one's update by the optimizer is due, it gets the norm of the parameters.
        """
        found, self._unnoted = self._unnoted, []
        moments = [s.moment() for s in found]
        if moments and optimizer is not None:
            parameters = [p.detach() for group in optimizer.param_groups for p in group["params"]]
            moments[-1] = replace(moments[-1], parameter_norm=math.hypot(*health.norms(parameters)))
        return moments

    def _loss(self) -> tuple[float, bool]:
        """The step's loss as a number, and whether all that was differentiated is finite."""
        window = self._window
        total, fine, seen = 0.0, True, False
        for call in window.calls:
            if call.seed is not None and call.value is not None:
                number, seen = _number(call.value), True
                total += number
                fine = fine and (math.isfinite(number) or health.finite([call.value]))
        for t, _ in () if seen else window.roots:
            number = _number(t)
            total += number
            fine = fine and (math.isfinite(number) or health.finite([t]))
        return total, fine

    def _bad(self, optimizer: Optimizer, moment: Moment, failed: str, due: bool = True) -> None:
        """Explain a bad step and do what the policy says; `due` says that its update is about to be made."""
        from whynan.watching.torch.explain import explained  # only now: it brings the analysis

        self._asleep = True
        try:
            self._undo_buffers()
            action = self.overseer.bad(moment, lambda: explained(self, self._window, moment, failed))
        finally:
            self._asleep = False
            self._window.closing = True
        self.stopped = self.stopped or action == STOP
        if action == ROLLBACK:
            self._snapshots.restore(self.optimizers)
        if due and (action != RETRY or not self._retried(optimizer)):
            self._drop(optimizer)

    def _retried(self, optimizer: Optimizer) -> bool:
        """Replace the gradients by those of the step without the samples that fail; whether that made them finite."""
        incident = self.overseer.last
        if incident is None:
            return False
        self._asleep = True
        try:
            return retried(self._window, incident.suspects, self.parameters, optimizer)
        finally:
            self._asleep = False

    def _left_out(self, scaler: Any, optimizer: Optimizer) -> None:
        """The gradient scaler has found an overflow and has not stepped: ordinary, unless the loss itself failed or it never ends."""
        self._left_out_in_a_row += 1
        loss, loss_fine = self._loss()
        scale = float(scaler.get_scale())
        self._note()
        number, self._clip_norm = self._number_of(optimizer), None
        moment = Moment(self.step, loss, scale=scale, outcome="left out by the gradient scaler", optimizer=number)
        collapsing = self._left_out_in_a_row >= SCALER_PATIENCE or scale < 1
        if loss_fine and not collapsing:
            self.overseer.passed_over(moment)
            self._window.closing = True
        else:
            self._bad(optimizer, moment, "scale" if loss_fine else "loss", due=False)

    def _undo_buffers(self) -> None:
        """Buffers as before the step: what the bad batch has left in a batch norm's statistics is taken back."""
        for call in reversed(self._window.calls):
            if call.buffers is not None:
                call.buffers.restore()

    def _drop(self, optimizer: Optimizer) -> None:
        """Make the update under way do nothing: optimizers pass over parameters without a gradient."""
        dropped = [(p, p.grad) for group in optimizer.param_groups for p in group["params"] if p.grad is not None]
        for p, _ in dropped:
            p.grad = None

        def put_back(optimizer: Optimizer, args: Any, kwargs: Any) -> None:
            once.remove()
            for p, grad in dropped:
                p.grad = grad

        once = optimizer.register_step_post_hook(put_back)

    def _after_update(self, optimizer: Optimizer, args: Any, kwargs: Any) -> None:
        if self.overseer.in_a_row == 0 and self.step % self.overseer.options.every == 0:
            self._snapshots.take(self.optimizers)


def _number(loss: torch.Tensor) -> float:
    """A loss as one number: the mean, where it has several elements."""
    return loss.item() if loss.numel() == 1 else loss.double().mean().item()


def _by_group(norms: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    """The norm of each parameter group's gradients from those of its parameters."""
    ends = list(itertools.accumulate(sizes))
    return tuple(math.hypot(*norms[end - size : end]) for end, size in zip(ends, sizes, strict=True))


class _Seen(NamedTuple):
    """What was seen of a step: the norms by parameter, the sizes of the parameter groups, the scaler and the optimizer that stepped."""

    step: int
    loss: float
    norms: list[float]
    sizes: list[int]
    rates: list[Any]
    scaler: Any
    clipped_from: Any
    optimizer: int

    def moment(self) -> Moment:
        """The record of the step."""
        return Moment(
            self.step,
            self.loss,
            _by_group(self.norms, self.sizes),
            learning_rates=tuple(map(float, self.rates)),
            scale=math.nan if self.scaler is None else float(self.scaler.get_scale()),
            clipped_from=math.nan if self.clipped_from is None else float(self.clipped_from),
            optimizer=self.optimizer,
        )


class _Seed:
    """Notes the gradient that comes in by a loss."""

    __slots__ = ("_call",)

    def __init__(self, call: Call) -> None:
        self._call = call

    def __call__(self, gradient: torch.Tensor) -> None:
        self._call.seed = gradient
