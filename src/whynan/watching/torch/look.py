"""The look at loss and gradients before an optimizer changes anything: the update is due, is it to be made?"""

import math

import torch

from whynan.watching.policy import RETRY
from whynan.watching.torch import health
from whynan.watching.torch.bad import deal_with
from whynan.watching.torch.calls import LOSS
from whynan.watching.torch.notes import TOGETHER, moments, note
from whynan.watching.torch.ranks import FINE, GRADIENT, shard
from whynan.watching.torch.ranks import LOSS as LOSS_FAILED
from whynan.watching.torch.run import Optimizer, Run
from whynan.watching.torch.updates import Kept, gradients_of


def look(run: Run, optimizer: Optimizer, again: bool = False) -> bool:
    """Judge the step whose update is due: note it, or deal with it; whether the update is to be made.

    `again` says that it is the same step, its closure called once more.
    """
    run.updated = True
    window = run.window
    if run.several and window.dropped and window.judge != id(optimizer):
        return window.dropped == RETRY  # the step was judged when another optimizer was to make its update
    groups = [[g for p in group["params"] if (g := p.grad) is not None] for group in optimizer.param_groups]
    flat = groups[0] if len(groups) == 1 else [g for group in groups for g in group]
    flat = [shard(g) for g in flat] if run.sharded else flat
    norms = health.norms(flat)
    loss, loss_fine = health.loss_of(window, run.parameter_ids, run.scaler is not None)
    fine = loss_fine and (math.isfinite(sum(norms)) or health.finite(flat))
    if run.scaler is not None and (found := getattr(optimizer, "found_inf", None)) is not None:  # the optimizer divides by the scale
        if not fine and float(found) > 0:
            run.updated = False
            return False
        by = getattr(optimizer, "grad_scale", None)
        norms = norms if by is None else [n / float(by) for n in norms]
    if run.ranks is not None:
        fine = run.ranks.tell(FINE if fine else GRADIENT if loss_fine else LOSS_FAILED)
    if again:
        if fine:
            return True
        run.overseer.step -= 1
    rates = [g["lr"] for g in optimizer.param_groups if "lr" in g]
    scale = None if run.scaler is None else run.scaler._scale.clone()
    clips, number = run.clips, run.numbers[id(optimizer)]
    run.unnoted.append((run.overseer.step, loss, norms, [len(g) for g in groups], rates, scale, clips, number))
    if clips:
        run.clips = []
    if fine:
        keep_buffers(run)
        window.closing = True
        run.overseer.applied(number)
        if run.several:
            _look_ahead(run, optimizer)
        if run.left_out:
            run.left_out.pop(id(optimizer), None)
        unusual = sum(norms) > run.overseer.flight.ordinary * math.sqrt(len(norms) or 1)
        if unusual or len(run.unnoted) >= TOGETHER:
            note(run, optimizer)
        return True
    *before, now = moments(run, optimizer)
    for moment in before:
        run.overseer.noted(moment)
    return deal_with(run, optimizer, now, "gradient" if loss_fine else "loss", clips)


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
