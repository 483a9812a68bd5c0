"""The hooks: what they keep of a step while it runs, and the look at loss and gradients before the optimizer changes anything."""

import itertools
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager, nullcontext
from dataclasses import replace
from types import TracebackType
from typing import Any
from weakref import ref

import torch

from whynan.errors import WhynanError
from whynan.patches.change import Fix
from whynan.watching.mending import Fixer
from whynan.watching.overseer import Overseer
from whynan.watching.policy import RETRY, ROLLBACK, SKIP, STOP, Options
from whynan.watching.record import Incident, Moment, Suspects
from whynan.watching.torch import health
from whynan.watching.torch.calls import (
    LOSS,
    MICRO_BATCHES,
    MODEL,
    ONES,
    Buffers,
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
from whynan.watching.torch.health import leads_to
from whynan.watching.torch.intercept import (
    Clip,
    Hook,
    Undo,
    frames_behind,
    place_behind,
    surely,
    unwrapped,
    watch_backward,
    watch_clipping,
    watch_function,
    watch_scalers,
)
from whynan.watching.torch.later import Later, can_hold, let_go
from whynan.watching.torch.ranks import FINE, GRADIENT, is_flat, is_sharded, ranks_of, shard, whole
from whynan.watching.torch.ranks import LOSS as LOSS_FAILED
from whynan.watching.torch.remedies import Snapshots, retried
from whynan.watching.torch.updates import Dropped, Kept, evaluates_again, gradients_of

Optimizer = torch.optim.Optimizer

SCALER_PATIENCE = 12  # steps in a row without an update: from its first scale of 65536 it would be at 16
NOTED_TOGETHER = 8  # steps
_FLAGS_STAY_ANYWHERE = False  # for tests: flags stay on the device also where that is the CPU


# what is noted of a step: its number, loss, norms, sizes of groups, rates, scale, clippings, optimizer
Seen = tuple[int, float, list[float], list[int], list[Any], Any, list[Clip], int]


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
        self.fixer: Fixer | None = None  # what finds the fixes of the loss
        self.fixed: dict[tuple[str, int, str], tuple[Fix, ...]] = {}  # those found, by place and cause
        self.stopped = False  # policy "stop": the loop is asked to end
        self.during_replay: Callable[[], AbstractContextManager[Any]] = nullcontext  # silences what a framework would log again
        self._window = Window()
        self._inside = 0  # depth of watched calls: a model's own calls of the loss are part of it
        self._asleep = False
        self._current: Call | None = None  # the call that runs
        self._stepping = False
        self._own = {id(o): i for i, o in enumerate(self.optimizers)}
        self._changing = {id(m): Changing(m) for m in self.models}
        self._clips: list[Clip] = []  # what clip_grad_norm_ has done in this step
        self._scaler: Any = None  # the gradient scaler that makes the step under way
        self._updated = False  # that step came to its end
        self._kept: Kept | None = None  # parameters and state before a step whose closure is called several times
        self._left_out_in_a_row: dict[int, int] = {}  # by optimizer
        self._unnoted: list[Seen] = []
        self._later: Later | None = None  # steps whose flag is still on the device
        self._whole: Mapping[int, torch.nn.Module] = {}  # sharded models on one rank, while a step is looked into
        self.parameters = dict(self._named_parameters())
        self._parameter_ids = {id(p) for o in self.optimizers for g in o.param_groups for p in g["params"]}
        self._snapshots = Snapshots(self.models, self.optimizers, options)
        self._ranks = ranks_of(self.models)
        self._sharded = any(is_sharded(m) for m in self.models)
        if self._ranks is not None:
            self.overseer.rank, self.overseer.agree = self._ranks.rank, self._ranks.agree
        elif len(self.optimizers) == 1 and can_hold(self.optimizers[0], _FLAGS_STAY_ANYWHERE):
            self._later = Later()
        self._undo: list[Undo] = []
        self._upfront: list[Buffers] | None = self._buffers()  # before the step, where no call of a model is seen (compiled, or `forward`)
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
        """Stop watching: hooks are removed, everything is as it was before. Raises NonFiniteError if a step that still waits was bad."""
        while self._undo:
            self._undo.pop()()
        self._settle(self.optimizers[0], all_of_them=True)
        self._window.clear()

    def __enter__(self) -> "TorchWatch":
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None) -> None:
        if error is not None:
            self._later = None  # that error is the one to see
        self.close()

    @property
    def roots(self) -> dict[str, torch.nn.Module]:
        """The watched modules by the path that their layers' names begin with."""
        several = len(self.models) > 1
        found: dict[str, torch.nn.Module] = {str(i) if several else "": self._plain(m) for i, m in enumerate(self.models)}
        return {**found, "loss": self.loss} if isinstance(self.loss, torch.nn.Module) else found

    # ------------------------------------------------------------ attaching

    def _attach(self) -> None:
        for model in self.models:
            self._hook(model.register_forward_pre_hook(Hook(self._before_model), with_kwargs=True))
            self._hook(model.register_forward_hook(Hook(self._after), with_kwargs=True, always_call=True))
        if isinstance(self.loss, torch.nn.Module):
            self._hook(self.loss.register_forward_hook(Hook(self._after_loss), with_kwargs=True))
        elif self.loss is not None:
            undo = watch_function(self.loss, self._around_loss)
            if undo is None:
                self.close()
                raise WhynanError(f"the loss {self.loss!r} is not written in Python and cannot be watched.", "Wrap it: def loss(p, t): ...")
            self._undo.append(undo)
        for step in {type(o).step for o in self.optimizers}:
            self._undo.append(surely(step, self._around_step))
        self._undo.append(watch_backward(self._roots))
        self._undo.append(watch_scalers(self._scaled))
        self._undo.append(watch_clipping(self._clipped))

    def _hook(self, handle: Any) -> None:
        self._undo.append(handle.remove)

    def _named_parameters(self) -> Iterable[tuple[str, torch.Tensor]]:
        several = len(self.models) > 1
        for i, model in enumerate(self.models):
            for name, p in self._plain(model).named_parameters():
                yield (f"{i}.{name}" if several else name), p
        if isinstance(self.loss, torch.nn.Module):
            yield from ((f"loss.{name}", p) for name, p in self.loss.named_parameters())

    # ------------------------------------------------------------ while the step runs

    def _before_model(self, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
        if not torch.compiler.is_compiling():
            self._called(MODEL, module, args, kwargs)

    def _called(self, role: str, target: Any, args: Any, kwargs: Any) -> None:
        """Keep a call that begins, unless it is none of a training step's."""
        self._inside += 1
        if self._inside > 1:
            return
        self._current = None
        if self._asleep or not torch.is_grad_enabled() or torch._C._functorch.peek_interpreter_stack() is not None:
            return
        window = self._window
        if window.closing:
            window.clear(len(self.optimizers) > 1)
        if len(window.calls) >= window.room and not window.make_room():
            return
        if role == LOSS and window.calls:
            window.let_go()
        first = role == MODEL or not window.calls  # a loss that follows a model goes on with the numbers that the model leaves
        self._current = call = Call(role, target, args, kwargs, (), random_state() if first else {}, autocast_state())
        call.versions = versions_of(call.tensors())
        call.place = place_behind()
        changing = self._changing.get(id(target if role == MODEL or not args else args[0]))  # a model's own method may be the loss
        call.buffers = changing.copies() if changing is not None else None
        window.calls.append(call)

    def _after(self, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if not torch.compiler.is_compiling():
            self._returned(result)

    def _after_loss(self, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
        if not torch.compiler.is_compiling():
            self._called(LOSS, module, args, kwargs)
            self._returned(result)

    def _returned(self, result: Any) -> None:
        self._inside -= 1
        call = self._current
        if self._inside or call is None:
            return
        self._current = None
        if result is None:  # it has raised
            self._window.calls.remove(call)
            return
        if call.role == LOSS and not isinstance(result, torch.Tensor):
            result = loss_in(result)
        call.outputs = references(result)
        if call.role == LOSS and isinstance(result, torch.Tensor) and result.requires_grad:
            call.value = result

    def _around_loss(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        before, result = self._inside, None
        self._called(LOSS, original, args, kwargs)
        try:
            result = original(*args, **kwargs)
            return result
        finally:
            self._returned(result)
            self._inside = before

    def _scaled(self, scaler: Any, optimizer: Any, go: Callable[[], Any]) -> Any:
        """A gradient scaler steps an optimizer, or leaves it out."""
        if id(optimizer) not in self._own or self._asleep or not scaler.is_enabled():
            return go()
        self._scaler, self._updated = scaler, False
        try:
            result = go()
            if not self._updated and self._left_out(scaler, optimizer):
                self._asleep = True
                result = optimizer.step()
            return result
        finally:
            self._scaler, self._asleep = None, False

    def _clipped(self, clip: Clip) -> None:
        if not self._asleep and clip.parameters and id(clip.parameters[0]) in self._parameter_ids:
            self._clips.append(clip)

    def _roots(self, roots: Sequence[torch.Tensor], plain: bool) -> None:
        """`backward` is about to run on these; `plain` says that it starts from ones."""
        window = self._window
        if self._asleep:
            refuse_in_replay()
            return
        if window.closing:
            window.clear(len(self.optimizers) > 1)
        if window.backwards >= MICRO_BATCHES:
            self._forget()
        detached = tuple([t.detach() for t in roots])
        window.differentiate(Differentiated(frames_behind(), detached, plain, autocast_state(), tuple(window.calls)))
        known = []
        for call in window.calls:
            if call.value is None or call.seed is not None:
                continue
            if plain and any(call.value is root for root in roots):
                call.seed = ONES
                known.append(call.value)
            else:  # something lies between this loss and the root: the gradient that comes in tells what
                call.await_seed()
        if not window.full:
            window.roots += [(d, ref(t), t.grad_fn) for t, d in zip(roots, detached, strict=True) if not any(t is k for k in known)]

    def _forget(self) -> None:
        """Forget the micro-batches so far if they are healthy, so that a step of many keeps no more than a few."""
        window = self._window
        if self._loss()[1] and all(health.finite(gradients_of(o)) for o in self.optimizers):
            window.forget()
        else:
            window.full, window.room = True, 0

    # ------------------------------------------------------------ before and after the update

    def _around_step(self, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        """An optimizer's step; its update is made only if it is healthy."""
        optimizer = args[0]
        if self._stepping or self._asleep or id(optimizer) not in self._own:
            return original(*args, **kwargs)
        self._inside, self._stepping = 0, True  # a call that raised has not returned
        try:
            closure = args[1] if len(args) > 1 else kwargs.get("closure")
            if closure is not None:
                result = self._with_closure(original, optimizer, closure, args, kwargs)
            else:
                look = self._look if self._later is None or self._scaler is not None else self._look_later
                result = original(*args, **kwargs) if look(optimizer) else None
                if self._later is not None and self._scaler is None:
                    let_go(optimizer)
            if self.overseer.options.policy == ROLLBACK and self.overseer.in_a_row == 0 and self.step % self.overseer.options.every == 0:
                self._snapshots.take()
            return result
        finally:
            self._stepping = False

    def _with_closure(self, original: Callable[..., Any], optimizer: Optimizer, closure: Callable[[], Any], args: Any, kwargs: Any) -> Any:
        """A step that calls a closure, once or, while it changes the parameters, several times."""
        kept = self._kept = Kept(optimizer) if evaluates_again(optimizer) else None
        times, value = 0, None

        def looked() -> Any:
            nonlocal times, value
            value = closure()
            times += 1
            if not self._look(optimizer, again=times > 1):
                raise Dropped
            if kept is not None:  # what comes is the same step
                self._window.forget()
                self._window.closing = False
            return value

        try:
            result = original(args[0], looked, *args[2:], **kwargs) if len(args) > 1 else original(*args, **{**kwargs, "closure": looked})
        except Dropped:
            result = value
        finally:
            self._kept = None
            self._window.closing = True
        return result

    def _look(self, optimizer: Optimizer, again: bool = False) -> bool:
        """Judge the step whose update is due: note it, or deal with it; whether the update is to be made.

        `again` says that it is the same step, its closure called once more.
        """
        self._updated = True
        window, several = self._window, len(self.optimizers) > 1
        if several and window.dropped and window.judge != id(optimizer):
            return window.dropped == RETRY  # the step was judged when another optimizer was to make its update
        groups = [[g for p in group["params"] if (g := p.grad) is not None] for group in optimizer.param_groups]
        flat = groups[0] if len(groups) == 1 else [g for group in groups for g in group]
        flat = [shard(g) for g in flat] if self._sharded else flat
        norms = health.norms(flat)
        loss, loss_fine = self._loss()
        fine = loss_fine and (math.isfinite(sum(norms)) or health.finite(flat))
        if self._scaler is not None and (found := getattr(optimizer, "found_inf", None)) is not None:  # the optimizer divides by the scale
            if not fine and float(found) > 0:
                self._updated = False
                return False
            by = getattr(optimizer, "grad_scale", None)
            norms = norms if by is None else [n / float(by) for n in norms]
        if self._ranks is not None:
            fine = self._ranks.tell(FINE if fine else GRADIENT if loss_fine else LOSS_FAILED)
        if again:
            if fine:
                return True
            self.overseer.step -= 1
        rates = [g["lr"] for g in optimizer.param_groups if "lr" in g]
        scale = None if self._scaler is None else self._scaler._scale.clone()
        clips = self._clips
        self._unnoted.append((self.overseer.step, loss, norms, [len(g) for g in groups], rates, scale, clips, self._own[id(optimizer)]))
        if clips:
            self._clips = []
        if fine:
            self._look_upfront()
            window.closing = True
            self.overseer.applied(self._own[id(optimizer)])
            if several:
                self._look_ahead(optimizer)
            if self._left_out_in_a_row:
                self._left_out_in_a_row.pop(id(optimizer), None)
            unusual = sum(norms) > self.overseer.flight.ordinary * math.sqrt(len(norms) or 1)
            if unusual or len(self._unnoted) >= NOTED_TOGETHER:
                self._note(optimizer)
            return True
        *before, now = self._moments(optimizer)
        for moment in before:
            self.overseer.noted(moment)
        return self._bad(optimizer, *self._failed(now, loss_fine), clips)

    def _failed(self, moment: Moment, loss_fine: bool) -> tuple[Moment, str]:
        """What failed. The loop may differentiate more than the watched loss; then that sum is the loss, unless a scaler has scaled it."""
        if loss_fine and self._scaler is None:
            roots = [_number(t) for t, _, node in self._window.roots if leads_to(node, self._parameter_ids)]
            bad = [x for x in roots if not math.isfinite(x)]
            if bad:
                return replace(moment, loss=bad[0]), "loss"
        return moment, "gradient" if loss_fine else "loss"

    def _look_later(self, optimizer: Optimizer) -> bool:
        """Let the device judge the step, and see to those before whose flag has come; whether the update is to be made, flag permitting."""
        assert self._later is not None, "the caller has seen to it"
        groups = [[g for p in group["params"] if (g := p.grad) is not None] for group in optimizer.param_groups]
        flat = [g for group in groups for g in group]
        if not self._settle(optimizer) or not flat:
            return False
        window = self._window
        losses = [c.value for c in window.calls if c.seed is not None and c.value is not None] or [t for t, *_ in window.roots]
        rates = [g["lr"] for g in optimizer.param_groups if "lr" in g]
        kept = {"sizes": [len(g) for g in groups], "rates": rates, "clips": self._clips, "step": self.overseer.step, "window": window}
        self._look_upfront()
        self._later.hold(optimizer, flat, losses, **kept)
        self._clips, self._window = [], Window()
        self.overseer.step += 1
        return True

    def _settle(self, optimizer: Optimizer, all_of_them: bool = False) -> bool:
        """Note the healthy steps among those whose flag has come; False if one was bad, and all after it are dropped with it."""
        later = self._later
        while later is not None and (seen := later.due(all_of_them)) is not None:
            flag, loss, *norms = seen.read()
            moment = _moment(seen.step, loss, norms, seen.sizes, seen.rates, None, seen.clips, 0)
            self.overseer.step -= 1
            if not flag:
                self.overseer.healthy(moment)
                continue
            after = later.rest()
            for window in (self._window, *(w.window for w in after)):
                window.restore_buffers()
            self._window = seen.window
            number = self.overseer.step = seen.step
            try:
                self._bad(optimizer, moment, "gradient" if math.isfinite(loss) else "loss", ())
            finally:
                self._window = Window()
                for _ in after:
                    number += 1
                    self.overseer.passed_over(Moment(number, outcome=f"dropped with step {seen.step}"))
            return False
        return True

    def _look_upfront(self) -> None:
        """Where the model's calls are not seen, its buffers are copied at the end of the step before."""
        calls = self._window.calls
        if not calls or calls[0].role == LOSS:
            self._upfront = self._buffers()
        elif self._upfront is not None:
            self._upfront = None

    def _buffers(self) -> list[Buffers]:
        return [b for changing in self._changing.values() if (b := changing.copies()) is not None]

    def _look_ahead(self, optimizer: Optimizer) -> None:
        """A healthy update is made while another optimizer of the same step may not be: then it can be taken back."""
        stepped = self._window.stepped
        stepped.add(id(optimizer))
        waiting = [shard(g) for o in self.optimizers if id(o) not in stepped for g in gradients_of(o)]
        fine = math.isfinite(sum(health.norms(waiting)))
        if not (fine if self._ranks is None else self._ranks.tell(FINE if fine else GRADIENT)):
            self._window.undo.append(Kept(optimizer))

    def _note(self, optimizer: Optimizer | None = None) -> None:
        for moment in self._moments(optimizer):
            self.overseer.noted(moment)

    def _moments(self, optimizer: Optimizer | None = None) -> list[Moment]:
        """What was seen of the last steps, as records; they are made several at a time, which is cheaper.

        If the last one's update by the optimizer is due, it gets the norm of the parameters.
        """
        found, self._unnoted = self._unnoted, []
        moments = [_moment(*seen) for seen in found]
        if moments and optimizer is not None:
            parameters = [p.detach() for group in optimizer.param_groups for p in group["params"] if p.is_floating_point()]
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
        for t, _, node in () if seen else window.roots:
            number = _number(t)
            if math.isfinite(number) or health.finite([t]):
                total += number
            elif leads_to(node, self._parameter_ids):  # else it is another model's loss
                total, fine = total + number, False
        return total, fine

    def _bad(self, optimizer: Optimizer, moment: Moment, failed: str, clips: Sequence[Clip]) -> bool:
        """Explain a bad step and do what the policy says; whether the gradients are healthy now and the update is to be made."""
        from whynan.watching.torch.explain import explained  # only now: it brings the analysis

        window, ranks = self._window, self._ranks
        self._asleep = True

        def explain() -> Incident:
            if any(is_flat(m) for m in self.models):
                raise WhynanError("a FullyShardedDataParallel cannot be run again by one rank alone.", "Use fully_shard.")
            return explained(self, window, moment, failed)

        try:
            while window.undo:
                window.undo.pop().restore()
            window.restore_buffers()
            for buffers in self._upfront or ():
                buffers.restore()
            with whole(self.models) as self._whole:
                self._ready_to_rerun()
                action = self.overseer.bad(moment, explain if ranks is None else lambda: ranks.joined(explain))
        finally:
            self._asleep, self._whole = False, {}
            if self._sharded:
                self.parameters = {}
            window.closing = True
            if self._kept is not None:
                self._kept.restore()
        self.stopped = self.stopped or action == STOP
        if action == ROLLBACK:
            self._snapshots.restore()
        healed = action == RETRY and self._kept is None and self._later is None and self._retried(optimizer, clips)
        window.dropped, window.judge = (RETRY if healed else SKIP), id(optimizer)
        return healed

    def _ready_to_rerun(self) -> None:
        self.parameters = dict(self._named_parameters())
        for call in self._window.calls:
            if isinstance(call.target, torch.nn.Module):
                call.target = self._plain(call.target)

    def _plain(self, module: torch.nn.Module) -> torch.nn.Module:
        twin = self._whole.get(id(module))
        return unwrapped(module) if twin is None else twin

    def _retried(self, optimizer: Optimizer, clips: Sequence[Clip]) -> bool:
        """Replace the gradients by those of the step without the samples that fail; whether that made them finite."""
        incident, ranks = self.overseer.last, self._ranks
        if incident is None or self._sharded:
            return False
        mine = ranks is None or (ranks.rank == incident.rank and ranks.rank in incident.ranks)
        used = [p for p in self.parameters.values() if p.grad is not None]
        scaled = self._scaler is not None and getattr(optimizer, "grad_scale", None) is None  # else the optimizer divides
        self._asleep = True
        try:
            suspects = incident.suspects if mine else Suspects()
            healed = retried(self._window, suspects, self.parameters, self._scaler.get_scale() if scaled else 1.0)
            if ranks is not None and not ranks.averaged(healed, used):
                self._window.restore_buffers()
                healed = False
            for clip in clips if healed else ():
                clip.again()
            return healed
        finally:
            self._asleep = False

    def _left_out(self, scaler: Any, optimizer: Optimizer) -> bool:
        """The gradient scaler has found an overflow and has not stepped: ordinary, unless the loss itself failed or it never ends.

        Whether there are healthy gradients after all.
        """
        window = self._window
        if window.dropped and window.judge != id(optimizer):
            return False
        row = self._left_out_in_a_row[id(optimizer)] = self._left_out_in_a_row.get(id(optimizer), 0) + 1
        loss, loss_fine = self._loss()
        scale = float(scaler.get_scale())
        self._note()
        clips, self._clips = self._clips, []
        which = self._own[id(optimizer)]
        moment = Moment(self.step, loss, scale=scale, outcome="left out by the gradient scaler", optimizer=which)
        fine = loss_fine and row < SCALER_PATIENCE and scale >= 1
        if self._ranks is not None:
            fine = self._ranks.tell(FINE if fine else GRADIENT if loss_fine else LOSS_FAILED)
        if fine:
            self.overseer.passed_over(moment)
            window.closing = True
            return False
        return self._bad(optimizer, moment, "scale" if loss_fine else "loss", clips)


def _moment(
    step: int,
    loss: float,
    norms: Sequence[float],
    sizes: Sequence[int],
    rates: Sequence[Any],
    scale: Any,
    clips: Sequence[Clip],
    which: int,
) -> Moment:
    clipped = math.hypot(*(float(c.norm) for c in clips)) if clips else math.nan
    scale = math.nan if scale is None else float(scale)
    return Moment(
        step, loss, _by_group(norms, sizes), learning_rates=tuple(map(float, rates)), scale=scale, clipped_from=clipped, optimizer=which
    )


def _number(loss: torch.Tensor) -> float:
    """A loss as one number: the mean, where it has several elements."""
    return loss.item() if loss.numel() == 1 else loss.double().mean().item()


def _by_group(norms: Sequence[float], sizes: Sequence[int]) -> tuple[float, ...]:
    """The norm of each parameter group's gradients from those of its parameters."""
    ends = list(itertools.accumulate(sizes))
    return tuple(math.hypot(*norms[end - size : end]) for end, size in zip(ends, sizes, strict=True))
