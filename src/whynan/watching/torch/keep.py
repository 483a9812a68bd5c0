"""What runs around the calls of a step: what is kept of them, references and no copies where that is enough."""

import logging
from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import is_grad_enabled
from torch._C._functorch import peek_interpreter_stack

from whynan.watching.torch import health
from whynan.watching.torch.calls import (
    LOSS,
    MODEL,
    ONES,
    Call,
    autocast_state,
    loss_in,
    random_state,
    references,
    refuse_in_replay,
    versions_of,
)
from whynan.watching.torch.chance import chance
from whynan.watching.torch.intercept import Clip, frames_behind, itself, place_behind
from whynan.watching.torch.run import Run
from whynan.watching.torch.updates import gradients_of
from whynan.watching.torch.window import MICRO_BATCHES, Differentiated, Window

log = logging.getLogger("whynan.watch")

NEVER_STEPS = 256  # calls of backward from the beginning that are a reason to ask for the optimizer
_NEVER = (
    f"backward was called {NEVER_STEPS} times, and {{kinds}}, which whynan.watch was given, {{have}} made no step: nothing is looked at "
    "or held back. Pass the optimizer that the loop steps (a list, if there are several)."
)


def around_call(run: Run, role: str, target: Any, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A watched model or loss, called. It is kept, unless it is none of a training step's. `target` None: the function that is called."""
    if run.inside or run.asleep or not is_grad_enabled() or peek_interpreter_stack() is not None:
        return original(*args, **kwargs)
    window = run.window
    calls = window.calls
    if window.closing:
        window.clear(run.several)
    if len(calls) >= window.room and not window.make_room():
        return original(*args, **kwargs)
    if role == LOSS and calls and (len(calls) > 1 or calls[0].role == LOSS):
        window.let_go()
    call = _kept(run, role, itself(original) if target is None else target, args, kwargs)
    result, run.inside = None, True
    try:
        result = original(*args, **kwargs)
    finally:
        run.inside = False
        if result is None and call in calls:  # it has raised
            calls.remove(call)
    if call.chance is not None:
        run.draws.after(call.chance)
    value = loss_in(result) if role == LOSS and not isinstance(result, torch.Tensor) else result
    call.outputs = references(value)
    if role == LOSS and isinstance(value, torch.Tensor) and value.requires_grad:
        call.value = value
    return result


def _kept(run: Run, role: str, target: Any, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Call:
    """A call that begins, with what it takes to make it again."""
    calls = run.window.calls
    random = random_state() if role == MODEL or not calls else {}  # a loss that follows a model goes on with the numbers that that leaves
    versions = versions_of((*args, *kwargs.values())) if kwargs else versions_of(args)
    call = Call(role, target, args, kwargs, versions, random, autocast_state(), place_behind(3))
    calls.append(call)
    if run.changing:
        changing = run.changing.get(id(target if role == MODEL or not args else args[0]))  # a model's own method may be the loss
        call.buffers = None if changing is None else changing.copies()
    if run.draws.open:
        call.chance = chance()
    return call


def clipped(run: Run, clip: Clip) -> None:
    """`clip_grad_norm_` was called."""
    if not run.asleep and clip.parameters and id(clip.parameters[0]) in run.parameter_ids:
        run.clips.append(clip)


def around_backward(run: Run, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.autograd.backward`, called."""
    if run.asleep:
        refuse_in_replay()
    elif run.rounds.open or not _differentiated_alone(run.window, args, kwargs):
        roots = args[0] if args else kwargs.get("tensors", ())
        first = args[1] if len(args) > 1 else kwargs.get("grad_tensors")
        _differentiated(run, (roots,) if isinstance(roots, torch.Tensor) else tuple(roots), first is None)
    return original(*args, **kwargs)


def _differentiated_alone(window: Window, args: tuple[Any, ...], kwargs: dict[str, Any]) -> bool:
    """Note `loss.backward()` where it is the step's first and the watched loss has just returned, as in most steps: in a few moves."""
    calls = window.calls
    if window.backwards or window.closing or not args or (len(args) > 1 and args[1] is not None) or kwargs.get("grad_tensors") is not None:
        return False
    if not calls or calls[-1].value is not args[0] or len(calls) > 2 or (len(calls) == 2 and calls[0].value is not None):
        return False
    call, window.root = calls[-1], args[0]
    call.seed = ONES
    window.backwards, window.done = 1, len(calls)
    window.differentiated.append(Differentiated(frames_behind(3), args[:1], True, call.autocast, tuple(calls), window.forgotten))
    return True


def _differentiated(run: Run, roots: tuple[torch.Tensor, ...], plain: bool) -> None:
    """Note what `backward` is about to run on; `plain` says that it starts from ones."""
    window = run.window
    window.root = None
    if window.closing:
        window.clear(run.several)
    if window.backwards >= MICRO_BATCHES:
        _forget(run)
    others = {id(t): t for t in roots}  # those that are not the losses of calls
    for call in window.calls:
        if call.value is None or call.seed is not None:
            continue
        if plain and others.pop(id(call.value), None) is not None:
            call.seed = ONES
        else:  # something lies between this loss and the root: the gradient that comes in tells what
            call.await_seed()
    values = tuple([t.detach() for t in roots]) if others else roots  # a loss is kept with its call
    frames = frames_behind(3)
    again = window.differentiate(Differentiated(frames, values, plain, autocast_state(), tuple(window.calls)))
    window.round = run.rounds.kept(frames, again)
    if others and not window.full:
        window.roots += [(t.detach(), ref(t), t.grad_fn) for t in others.values()]


def _forget(run: Run) -> None:
    """Forget the micro-batches so far if they are healthy, so that a step of many keeps no more than a few."""
    window = run.window
    if run.overseer.step == 0 and window.forgotten + window.backwards == NEVER_STEPS:
        kinds = " and ".join(type(o).__name__ for o in run.optimizers)
        log.warning("%s", _NEVER.format(kinds=kinds, have="have" if run.several else "has"))
    if window.full:
        return
    if health.loss_of(window, run.parameter_ids)[1] and all(health.finite(gradients_of(o)) for o in run.optimizers):
        window.forget()
    else:
        window.full, window.room = True, 0
