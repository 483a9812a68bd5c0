"""What stands around an optimizer's step, by itself, with a closure or made by a gradient scaler: it is made only if it is healthy."""

from collections.abc import Callable
from typing import Any

from whynan.watching.policy import ROLLBACK
from whynan.watching.torch import health
from whynan.watching.torch.bad import left_out
from whynan.watching.torch.held import look_later, settle
from whynan.watching.torch.later import let_go
from whynan.watching.torch.look import is_ordinary, look
from whynan.watching.torch.run import Optimizer, Run
from whynan.watching.torch.updates import Dropped, Kept, evaluates_again, gradients_of


def around_step(run: Run, original: Callable[..., Any], args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
    """An optimizer's step."""
    optimizer: Optimizer = args[0]
    if optimizer is run.quick and len(args) == 1 and not (kwargs or run.stepping or run.asleep) and is_ordinary(run, optimizer):
        return original(optimizer)
    if run.stepping or run.asleep or id(optimizer) not in run.numbers:
        return original(*args, **kwargs)
    run.inside, run.stepping = False, True  # what a closure calls is part of the step, wherever the step is made
    try:
        closure = args[1] if len(args) > 1 else kwargs.get("closure")
        if closure is not None:
            result = _with_closure(run, original, optimizer, closure, args, kwargs)
        elif run.later is None or run.scaler is not None:
            result = original(*args, **kwargs) if look(run, optimizer) else None
        else:
            try:
                result = original(*args, **kwargs) if look_later(run, optimizer) else None
            finally:
                let_go(optimizer)
        options, overseer = run.overseer.options, run.overseer
        if options.policy == ROLLBACK and overseer.step % options.every == 0 and settle(run, all_of_them=True) and not overseer.in_a_row:
            run.snapshots.take()
        return result
    finally:
        run.stepping = False


def _with_closure(run: Run, original: Callable[..., Any], optimizer: Optimizer, closure: Callable[[], Any], args: Any, kwargs: Any) -> Any:
    """A step that calls a closure, once or, while it changes the parameters, several times."""
    again = evaluates_again(optimizer)
    differentiated = again and run.window.backwards and not run.window.closing  # by the loop: the step may begin with those gradients
    if differentiated and not health.finite(gradients_of(optimizer)) and not look(run, optimizer):
        return None
    kept = run.before = Kept(optimizer) if again else None
    times, value = 0, None

    def looked() -> Any:
        nonlocal times, value
        value = closure()
        times += 1
        if not look(run, optimizer, again=times > 1):
            raise Dropped
        if kept is not None:  # what comes is the same step
            run.window.forget()
            run.window.closing, run.window.forgotten = False, 0  # micro-batches are those of one evaluation
        return value

    try:
        result = original(args[0], looked, *args[2:], **kwargs) if len(args) > 1 else original(*args, **{**kwargs, "closure": looked})
    except Dropped:
        result = value
    finally:
        run.before = None
        run.window.closing = True
    return result


def around_scaler(run: Run, scaler: Any, optimizer: Any, go: Callable[[], Any]) -> Any:
    """A gradient scaler steps an optimizer, or leaves it out."""
    if id(optimizer) not in run.numbers or run.asleep or not scaler.is_enabled():
        return go()
    run.scaler, run.updated, run.quick = scaler, False, None
    try:
        result = go()
        if not run.updated and left_out(run, scaler, optimizer):
            run.asleep = True
            result = optimizer.step()
        return result
    finally:
        run.scaler, run.asleep = None, False
