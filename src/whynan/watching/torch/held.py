"""A run whose flags stay on the device: each update is held back there if need be, and seen to when its flag has come to the host."""

import math
from itertools import islice

import torch

from whynan.watching.record import Moment
from whynan.watching.torch.bad import deal_with
from whynan.watching.torch.later import forget_state
from whynan.watching.torch.look import due, keep_buffers
from whynan.watching.torch.moved import Sample, ratio
from whynan.watching.torch.notes import by_group, moment
from whynan.watching.torch.run import Optimizer, Run
from whynan.watching.torch.window import Window

SAMPLED = 32  # of so many updates one is measured


def look_later(run: Run, optimizer: Optimizer) -> bool:
    """Let the device judge the step, and see to those before whose flag has come; whether the update is to be made, flag permitting."""
    assert run.later is not None, "the caller has seen to it"
    gradients, ends, rates = due(optimizer)
    if not settle(run) or not gradients:
        return False
    upfront = run.upfront
    keep_buffers(run)
    moved = run.notes.sample.norms(optimizer) if run.notes.sample is not None else ()
    run.notes.sample = None if run.overseer.step % SAMPLED else Sample(optimizer)
    run.later.hold(
        optimizer,
        gradients,
        _losses(run.window),
        [*(torch.as_tensor(c.norm) for c in run.clips), *(r for r in rates if isinstance(r, torch.Tensor)), *moved],
        ends=ends,
        rates=rates,
        clips=len(run.clips),
        step=run.overseer.step,
        window=run.window,
        upfront=upfront,
    )
    run.clips, run.window = [], Window()
    run.overseer.step += 1
    return True


def _losses(window: Window) -> list[torch.Tensor]:
    """What adds up to the loss: the watched loss's values, and 0 for what the loop has made of them if that is finite."""
    values = [c.value for c in window.calls if c.seed is not None and c.value is not None]
    return [*values, *(t * 0 if values else t for t, *_ in window.roots)]


def settle(run: Run, all_of_them: bool = False) -> bool:
    """Note the healthy steps among those whose flag has come; False if one was bad, and all after it are dropped with it."""
    later = run.later
    while later is not None and (seen := later.due(all_of_them)) is not None:
        flag, loss, *rest = seen.read()
        norms, others = rest[: seen.ends[-1]], iter(rest[seen.ends[-1] :])
        clipped = list(islice(others, seen.clips))
        rates = [next(others) if isinstance(r, torch.Tensor) else r for r in seen.rates]
        made = moment(seen.step, loss, by_group(norms, seen.ends), rates, math.nan, clipped, 0, ratio(list(others)))
        run.overseer.step -= 1
        if not flag:
            run.overseer.healthy(made)
            continue
        after = later.rest()
        for window in (run.window, *(w.window for w in after)):
            window.restore_buffers()
        run.window, run.upfront = seen.window, seen.upfront
        forget_state(run.optimizers[0], seen.stateful)
        number = run.overseer.step = seen.step
        try:
            deal_with(run, run.optimizers[0], made, "gradient" if math.isfinite(loss) else "loss", ())
        finally:
            run.window = Window()
            for _ in after:
                number += 1
                run.overseer.passed_over(Moment(number, outcome=f"dropped with step {seen.step}"))
        return False
    return True
