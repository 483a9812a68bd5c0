"""What is done about a bad step: it is taken back, explained, and dropped, retried or left to the gradient scaler."""

from collections.abc import Sequence
from typing import Any

from whynan.errors import WhynanError
from whynan.watching.policy import RETRY, ROLLBACK, SKIP, STOP
from whynan.watching.record import Incident, Moment, Suspects
from whynan.watching.torch import health
from whynan.watching.torch.intercept import Clip
from whynan.watching.torch.notes import note
from whynan.watching.torch.ranks import FINE, GRADIENT, is_flat, whole
from whynan.watching.torch.ranks import LOSS as LOSS_FAILED
from whynan.watching.torch.remedies import retried
from whynan.watching.torch.run import Optimizer, Run

SCALER_PATIENCE = 12  # steps in a row without an update: from its first scale of 65536 it would be at 16


def deal_with(run: Run, optimizer: Optimizer, moment: Moment, failed: str, clips: Sequence[Clip]) -> bool:
    """Explain a bad step and do what the policy says; whether the gradients are healthy now and the update is to be made."""
    window = run.window
    run.asleep, run.notes.sample = True, None
    try:
        _take_back(run)
        with whole(run.models) as run.whole:
            run.ready_to_rerun()
            action = run.overseer.bad(moment, lambda: _incident(run, moment, failed))
    finally:
        run.asleep, run.whole = False, {}
        if run.sharded:
            run.parameters = {}
        window.closing = True
        if run.before is not None:
            run.before.restore()
    run.stopped = run.stopped or action == STOP
    if action == ROLLBACK:
        run.snapshots.restore()
    healed = action == RETRY and run.before is None and run.later is None and _retried(run, optimizer, clips)
    window.dropped, window.judge = (RETRY if healed else SKIP), id(optimizer)
    return healed


def left_out(run: Run, scaler: Any, optimizer: Optimizer) -> bool:
    """The gradient scaler has found an overflow and has not stepped: ordinary, unless the loss itself failed or it never ends.

    Whether there are healthy gradients after all.
    """
    window = run.window
    if window.dropped and window.judge != id(optimizer):
        return False
    row = run.left_out[id(optimizer)] = run.left_out.get(id(optimizer), 0) + 1
    loss, loss_fine = health.loss_of(window, run.parameter_ids, scaled=True)
    scale = float(scaler.get_scale())
    note(run)
    clips, run.clips = run.clips, []
    number = run.numbers[id(optimizer)]
    if run.several:
        run.turns(number)
    moment = Moment(run.overseer.step, loss, scale=scale, outcome="left out by the gradient scaler", optimizer=number)
    fine = loss_fine and row < SCALER_PATIENCE and scale >= 1
    if run.ranks is not None:
        fine = run.ranks.tell(FINE if fine else GRADIENT if loss_fine else LOSS_FAILED)
    if fine:
        run.overseer.passed_over(moment)
        window.closing = True
        return False
    return deal_with(run, optimizer, moment, "scale" if loss_fine else "loss", clips)


def _take_back(run: Run) -> None:
    """What the step has changed so far: the updates of other optimizers, and buffers."""
    while run.window.undo:
        run.window.undo.pop().restore()
    run.window.restore_buffers()
    for buffers in run.upfront or ():
        buffers.restore()


def _incident(run: Run, moment: Moment, failed: str) -> Incident:
    from whynan.watching.torch.explain import explained  # only now: it brings the analysis

    def explain() -> Incident:
        if any(is_flat(m) for m in run.models):
            raise WhynanError("a FullyShardedDataParallel cannot be run again by one rank alone.", "Use fully_shard.")
        return explained(run, moment, failed)

    return explain() if run.ranks is None else run.ranks.joined(explain)


def _retried(run: Run, optimizer: Optimizer, clips: Sequence[Clip]) -> bool:
    """Replace the gradients by those of the step without the samples that fail; whether that made them finite."""
    incident, ranks = run.overseer.last, run.ranks
    if incident is None or run.sharded:
        return False
    mine = ranks is None or (ranks.rank == incident.rank and ranks.rank in incident.ranks)
    used = [p for p in run.parameters.values() if p.grad is not None]
    scaled = run.scaler is not None and getattr(optimizer, "grad_scale", None) is None  # else the optimizer divides
    run.asleep = True
    try:
        suspects = incident.suspects if mine else Suspects()
        healed = retried(run.window, suspects, run.parameters, run.scaler.get_scale() if scaled else 1.0)
        if ranks is not None and not ranks.averaged(healed, used):
            run.window.restore_buffers()
            healed = False
        for clip in clips if healed else ():
            clip.again()
        return healed
    finally:
        run.asleep = False
