"""A bad step explained: run again in pieces, recorded where it fails, the culprit looked for in the batch."""

import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import numpy as np
import torch

from whynan.errors import WhynanError
from whynan.frontends.torch.tensors import to_array
from whynan.ir.dtype import Array
from whynan.ir.graph import FORWARD
from whynan.patches.change import Fix
from whynan.watching.examine import Examined, examined
from whynan.watching.mending import offered
from whynan.watching.record import BAD_DATA, OPERATION, OVERFLOW, UNEXPLAINED, Incident, Moment, Recipe, Suspects
from whynan.watching.smallest import smallest
from whynan.watching.torch.calls import LOSS
from whynan.watching.torch.recipe import bundled
from whynan.watching.torch.rerun import (
    Outcome,
    Part,
    arranged,
    bound,
    dense,
    layout_of,
    named_tensors,
    outcome,
    pieces,
    recorded_again,
    undisturbed,
)
from whynan.watching.torch.window import Window

if TYPE_CHECKING:
    from whynan.watching.torch.run import Run


def explained(run: "Run", moment: Moment, failed: str) -> Incident:
    """The incident of the step in the run's window. Buffers are as before the step."""
    start = time.perf_counter()
    base = Incident(
        step=moment.step,
        when=datetime.now(UTC).isoformat(timespec="seconds"),
        framework="torch",
        framework_version=str(torch.__version__),
        failed=failed,
        loss=moment.loss,
        finding=None,
        kind=UNEXPLAINED,
    )
    with undisturbed([m for m in (*run.models, run.loss) if isinstance(m, torch.nn.Module)]), run.during_replay():
        found = _looked_into(run, base)
    return replace(found, seconds=time.perf_counter() - start)


def _looked_into(run: "Run", base: Incident) -> Incident:
    parts = list(pieces(run.window, run.parameters))
    if not parts:
        return replace(base, unexplained="no call of the model or the loss was seen in this step: pass the model and loss=.")
    notes = tuple(f"an argument of {type(c.target).__name__} was overwritten after the call" for c in run.window.calls if c.overwritten())
    errors = []
    left = dict.fromkeys(range(run.window.forgotten, run.window.forgotten + run.window.backwards))
    for part in parts:
        first = outcome(part, run.parameters)
        errors += [first.error] if first.error else []
        if first.failed:
            return _explained_part(run, part, first, replace(base, notes=notes))
        if part.differentiated and not first.error:
            left.pop(part.number, None)
    why = f"run again, it raised {errors[0]}" if errors else "run again in eager mode, every piece of this step is finite"
    if 0 < len(left) < run.window.backwards:
        why = f"micro-batch {', '.join(map(str, left))} could not be run again, and the others are finite"
    elif left and not errors:
        why = "the lines that lead to the loss could not be run again; all else is finite"
    return replace(base, unexplained=f"{why}.", notes=notes)


def _explained_part(run: "Run", part: Part, first: Outcome, base: Incident) -> Incident:
    arranged(part, run.parameters)
    samples = layout_of(part)
    batch = samples.size
    recipe, tensors = _bundled(run, part)
    failing = tuple(n for n in first.bad if n in run.parameters) or tuple(_failed(run))
    base = replace(base, reproduced=True, parameters=failing, recipe=recipe, tensors=tensors)
    try:
        live = recorded_again(part, run.parameters, run.roots)
    except WhynanError as error:
        return replace(base, unexplained=str(error), suspects=Suspects(alone=_alone(run, part, batch), batch=batch, call=part.number))
    given = _arrays(part)
    seen = examined(live.trace, "eager", given, batch, samples.axes)
    if seen is None:
        return replace(base, unexplained="the failure did not come again while every operation was recorded.")
    layer = live.layer(live.trace.graph.nodes[seen.why.node])
    between = _between(part, seen)
    in_loss = layer in ("", "loss") and seen.kind in (OPERATION, OVERFLOW)
    alone = _alone(run, part, batch, seen.samples)
    return replace(
        base,
        finding=replace(seen.finding, fixes=_fixes(run, part, seen, batch)) if in_loss else seen.finding,
        kind=UNEXPLAINED if between else seen.kind,
        notes=(*base.notes, *seen.notes, *([between] if between else [])),
        layer=layer,
        parameters=_in_order(seen, base.parameters),
        suspects=Suspects(seen.samples or alone, alone, seen.elements, batch, part.number),
        in_loop=_in_loop(run.window, seen),
    )


def _bundled(run: "Run", part: Part) -> tuple[Recipe, dict[str, Any]]:
    """How the piece is run again elsewhere; the step's calls, if its lines cannot be and these fail by themselves."""
    found = bundled(part, run.roots, run.loss)
    if part.lines is None or not any("unknown(" in line for line in found[0].lines):
        return found
    calls = (p for p in pieces(run.window, run.parameters) if p.lines is None and outcome(p, run.parameters).failed)
    return next((bundled(p, run.roots, run.loss) for p in calls), found)


def _failed(run: "Run") -> Iterator[str]:
    """The parameters whose gradients in the step are not finite."""
    for name, p in run.parameters.items():
        if p.grad is not None and not bool(torch.isfinite(dense(p.grad)).all()):
            yield name


def _in_loop(window: Window, seen: Examined) -> bool:
    """Whether the failing expression stands in a function that calls models, losses or `backward`."""
    places = [c.place[0] for c in window.calls if c.place is not None]
    places += [frame.f_code for step in window.differentiated for frame, _ in step.frames]
    site = seen.finding.site
    return site is not None and any((p.co_filename, p.co_qualname) == (site.file, site.function) for p in places)


def _between(part: Part, seen: Examined) -> str:
    """What to say if the value that was not finite was made between the calls, by lines that could not be run again; else empty."""
    names = [e.name for e in seen.elements if e.name in part.cut]
    if seen.kind != BAD_DATA or not names:
        return ""
    return f"{names[0]} was made by lines of the loop that could not be run again: look at what is done between the model and this call"


def _alone(run: "Run", part: Part, batch: int, suspects: tuple[int, ...] = ()) -> tuple[int, ...]:
    """The smallest part of the batch that fails alone."""
    if batch < 2:
        return ()
    end = time.monotonic() + run.overseer.options.replay_seconds

    def fails(pick: Sequence[int]) -> bool | None:
        found = outcome(part, run.parameters, pick) if time.monotonic() < end else Outcome(error="no time is left")
        return None if found.error else found.failed

    return smallest(batch, fails, suspects)


def _fixes(run: "Run", part: Part, seen: Examined, batch: int) -> tuple[Fix, ...]:
    """The fixes of the watched loss, where the failure is in its own lines; found once for each of them."""
    site, call = seen.finding.site, next((c for c in part.calls if c.role == LOSS), None)
    if run.fixer is None or not run.overseer.options.fixes or site is None or call is None:
        return ()
    place = (site.file, site.line, seen.finding.cause)
    if place not in run.fixed:
        values = {n: v for n, v in bound(call).items() if isinstance(v, (bool, int, float))}
        arrays = {n: a for n, t in named_tensors(call) if (a := to_array(t)) is not None}
        run.fixed[place] = offered(run.fixer, call.target, {**values, **arrays}, batch, seen.samples)
    return run.fixed[place]


def _in_order(seen: Examined, parameters: tuple[str, ...]) -> tuple[str, ...]:
    """The parameters with a gradient that is not finite: if the failure began in the backward, in the order in which they got theirs."""
    if seen.why.phase == FORWARD:
        return parameters
    got = {o.name: o.node for o in seen.trace.graph.outputs}
    return tuple(sorted(parameters, key=lambda p: got.get(p, len(seen.trace.graph.nodes))))


def _arrays(part: Part) -> Mapping[str, Array]:
    found = {n: to_array(t) for n, t in {**part.given, **part.cut}.items()}
    return {n: a if isinstance(a, np.ndarray) else np.asarray(a) for n, a in found.items() if a is not None}
