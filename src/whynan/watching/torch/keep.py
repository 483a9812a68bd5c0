"""The hooks that run while a step does: what they keep of it, references and no copies where that is enough."""

import logging
from collections.abc import Callable
from typing import Any
from weakref import ref

import torch
from torch import is_grad_enabled
from torch._C._functorch import peek_interpreter_stack
from torch.compiler import is_compiling

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
from whynan.watching.torch.intercept import Clip, frames_behind, place_behind
from whynan.watching.torch.run import Run
from whynan.watching.torch.updates import gradients_of
from whynan.watching.torch.window import MICRO_BATCHES, Differentiated

log = logging.getLogger("whynan.watch")

NEVER_STEPS = 256  # calls of backward from the beginning that are a reason to ask for the optimizer
_NEVER = (
    f"backward was called {NEVER_STEPS} times, and {{kinds}}, which whynan.watch was given, {{have}} made no step: nothing is looked at "
    "or held back. Pass the optimizer that the loop steps (a list, if there are several)."
)


def before_model(run: Run, module: torch.nn.Module, args: Any, kwargs: Any) -> None:
    """A watched model is about to be called."""
    if not is_compiling():
        _called(run, MODEL, module, args, kwargs)


def after_model(run: Run, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
    """It has returned, or raised (`result` is None)."""
    if not is_compiling():
        _returned(run, result)


def after_loss(run: Run, module: torch.nn.Module, args: Any, kwargs: Any, result: Any) -> None:
    """A loss that is a module has returned."""
    if not is_compiling():
        _called(run, LOSS, module, args, kwargs)
        _returned(run, result)


def around_loss(run: Run, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """A loss that is a function, called."""
    before, result = run.inside, None
    _called(run, LOSS, original, args, kwargs)
    try:
        result = original(*args, **kwargs)
        return result
    finally:
        _returned(run, result)
        run.inside = before


def _called(run: Run, role: str, target: Any, args: Any, kwargs: Any) -> None:
    """Keep a call that begins, unless it is none of a training step's."""
    run.inside += 1
    if run.inside > 1:
        return
    run.current = None
    if run.asleep or not is_grad_enabled() or peek_interpreter_stack() is not None:
        return
    window = run.window
    if window.closing:
        window.clear(run.several)
    if len(window.calls) >= window.room and not window.make_room():
        return
    if role == LOSS and window.calls:
        window.let_go()
    first = role == MODEL or not window.calls  # a loss that follows a model goes on with the numbers that the model leaves
    changing = run.changing.get(id(target if role == MODEL or not args else args[0]))  # a model's own method may be the loss
    run.current = call = Call(
        role,
        target,
        args,
        kwargs,
        versions_of((*args, *kwargs.values()) if kwargs else args),
        random_state() if first else {},
        autocast_state(),
        place_behind(2),
        None if changing is None else changing.copies(),
    )
    window.calls.append(call)
    call.chance = run.draws.before()


def _returned(run: Run, result: Any) -> None:
    run.inside -= 1
    call = run.current
    if run.inside or call is None:
        return
    run.current = None
    run.draws.after(call.chance)
    if result is None:  # it has raised
        run.window.calls.remove(call)
        return
    if call.role == LOSS and not isinstance(result, torch.Tensor):
        result = loss_in(result)
    call.outputs = references(result)
    if call.role == LOSS and isinstance(result, torch.Tensor) and result.requires_grad:
        call.value = result


def clipped(run: Run, clip: Clip) -> None:
    """`clip_grad_norm_` was called."""
    if not run.asleep and clip.parameters and id(clip.parameters[0]) in run.parameter_ids:
        run.clips.append(clip)


def around_backward(run: Run, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """`torch.autograd.backward`, called."""
    if run.asleep:
        refuse_in_replay()
    else:
        roots = args[0] if args else kwargs.get("tensors", ())
        first = args[1] if len(args) > 1 else kwargs.get("grad_tensors")
        _differentiated(run, (roots,) if isinstance(roots, torch.Tensor) else tuple(roots), first is None)
    return original(*args, **kwargs)


def _differentiated(run: Run, roots: tuple[torch.Tensor, ...], plain: bool) -> None:
    """Note what `backward` is about to run on; `plain` says that it starts from ones."""
    window = run.window
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
