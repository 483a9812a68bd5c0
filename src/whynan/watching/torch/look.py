"""The look at loss and gradients before an optimizer changes anything: the update is due, is it to be made?"""

import math
from typing import Any

import torch
from torch.linalg import vector_norm

from whynan.watching.policy import RETRY
from whynan.watching.torch import health
from whynan.watching.torch.bad import deal_with
from whynan.watching.torch.calls import LOSS
from whynan.watching.torch.moved import ratio
from whynan.watching.torch.notes import by_group, note
from whynan.watching.torch.ranks import FINE, GRADIENT, shard
from whynan.watching.torch.ranks import LOSS as LOSS_FAILED
from whynan.watching.torch.run import Optimizer, Run
from whynan.watching.torch.updates import Kept, gradients_of


def look(run: Run, optimizer: Optimizer, again: bool = False) -> bool:
    """Judge the step whose update is due: note it, or deal with it; whether the update is to be made.

    `again` says that it is the same step, its closure called once more.
    """
    run.updated = True
    window, overseer, notes = run.window, run.overseer, run.notes
    if run.several and window.dropped and window.judge != id(optimizer):
        return window.dropped == RETRY  # the step was judged when another optimizer was to make its update
    gradients, ends, rates = due(optimizer)
    if run.sharded:
        gradients = [shard(g) for g in gradients]
    scaler, clips, sample = run.scaler, run.clips, notes.sample
    norms, losses, (scale, found, by), clipped, moved, rates = health.read(
        health.norms_of(gradients),
        health.losses_in(window, scaler is not None),
        (math.nan, 0, 1) if scaler is None else (scaler._scale, _given(optimizer, "found_inf", 0), _given(optimizer, "grad_scale", 1)),
        [_whole(c.norm) for c in clips],
        () if sample is None else sample.norms(optimizer),
        rates,
    )
    notes.sample = None
    total = math.hypot(*norms)
    loss, loss_fine = health.loss_of(window, run.parameter_ids, scaler is not None, losses)
    fine = loss_fine and (math.isfinite(total) or health.finite(gradients))
    if found > 0 and not fine:
        run.updated = False
        return False
    if by != 1:  # the optimizer divides by the scale
        norms = [n / by for n in norms]
        total = math.hypot(*norms)
    if run.ranks is not None:
        fine = run.ranks.tell(FINE if fine else GRADIENT if loss_fine else LOSS_FAILED)
    if again:
        if fine:
            return True
        overseer.step -= 1
    elif run.several:
        run.turns(run.numbers[id(optimizer)])
    number = run.numbers[id(optimizer)]
    groups = (total,) if len(ends) == 1 else by_group(norms, ends)
    notes.seen.append((overseer.step, loss, groups, rates, scale, clipped, number, ratio(moved)))
    if clips:
        run.clips = []
    if not fine:
        *before, now = notes.moments(optimizer)
        for moment in before:
            overseer.noted(moment)
        return deal_with(run, optimizer, now, "gradient" if loss_fine else "loss", clips)
    if run.upfront is not None or not window.calls or window.calls[0].role == LOSS:
        keep_buffers(run)
    window.closing = True
    overseer.applied(number)
    if run.several:
        _look_ahead(run, optimizer)
    if run.left_out:
        run.left_out.pop(id(optimizer), None)
    emptied = total == 0 and clips  # what clipping by an infinite norm leaves
    if total > notes.ordinary or emptied or notes.due():
        note(run, optimizer)
    return True


def is_ordinary(run: Run, optimizer: Optimizer) -> bool:
    """The quick look: whether the step is healthy and there is nothing to do but to note it, which has been done then.

    Most steps are like this, and what is done at each of them is what watching costs. Everything else is left to `look`.
    """
    notes, window, groups = run.notes, run.window, optimizer.param_groups
    if window.root is None or len(notes.seen) >= notes.room or notes.sample or run.clips:
        return False
    if run.changing and (run.upfront is not None or window.calls[0].role == LOSS):  # `look` keeps the buffers for the next step
        return False
    try:
        norms = [math.hypot(*[vector_norm(g).item() for p in group["params"] if (g := p.grad) is not None]) for group in groups]
    except (RuntimeError, NotImplementedError):  # sparse ones
        run.quick = None
        return False
    loss, total = window.root.item(), math.hypot(*norms)
    if not (math.isfinite(loss) and total <= notes.ordinary):
        return False
    overseer, rates = run.overseer, [float(group["lr"]) for group in groups if "lr" in group]
    notes.seen.append((overseer.step, loss, norms, rates, math.nan, (), 0, math.nan))
    window.closing = True
    overseer.applied()
    return True


def _given(optimizer: Optimizer, name: str, otherwise: float) -> Any:
    """What a gradient scaler has given an optimizer."""
    value = getattr(optimizer, name, None)
    return otherwise if value is None else value


def _whole(norm: Any) -> Any:
    """A norm; of gradients that are spread over ranks that of all, which all ranks ask for in the same step."""
    return norm.full_tensor() if hasattr(norm, "full_tensor") else norm


def due(optimizer: Optimizer) -> tuple[list[torch.Tensor], list[int], list[Any]]:
    """The gradients that an update would use, up to which of them each parameter group goes, and the groups' learning rates."""
    gradients: list[torch.Tensor] = []
    ends, rates = [], []
    for group in optimizer.param_groups:
        gradients += [g for p in group["params"] if (g := p.grad) is not None]
        ends.append(len(gradients))
        if "lr" in group:
            rates.append(group["lr"])
    return gradients, ends, rates


def keep_buffers(run: Run) -> None:
    """Where the model's calls are not seen, its buffers are copied at the end of the step before."""
    calls = run.window.calls
    if not calls or calls[0].role == LOSS:
        run.upfront = run.buffers()
    elif run.upfront is not None:
        run.upfront = None


def _look_ahead(run: Run, optimizer: Optimizer) -> None:
    """A healthy update is made while another optimizer of the same step may not be: then it can be taken back."""
    stepped = run.window.stepped
    stepped.add(id(optimizer))
    waiting: list[torch.Tensor] = [shard(g) for o in run.optimizers if id(o) not in stepped for g in gradients_of(o)]
    fine = math.isfinite(sum(health.norms(waiting)))
    if not (fine if run.ranks is None else run.ranks.tell(FINE if fine else GRADIENT)):
        run.window.undo.append(Kept(optimizer))
