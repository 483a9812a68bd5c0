"""Fixes of a failing loss: the changes of its source that a search finds, a function around it where there is none, and advice."""

from whynan.analysis.compare import Original, original
from whynan.analysis.finding import Report
from whynan.errors import TargetError
from whynan.fixing.around import advised, around, told_logits
from whynan.fixing.candidates import Known
from whynan.fixing.job import Job, State, first
from whynan.fixing.logits import with_logits
from whynan.fixing.search import Search
from whynan.ir.frontend import Trace
from whynan.patches.change import Fix
from whynan.patches.load import Isolated

MOST_SHOWN = 5


def fixes(job: Job, report: Report) -> list[Fix]:
    """The fixes of an unsafe loss, best first; empty if it has nothing that a change of the source could mend."""
    if first(report) is None:
        return list(told_logits(job, report))
    with Isolated() as isolated:
        before, trace = _origin(job, report)
        search = Search(job, isolated, before, Known(job, trace))
        states = [*with_logits(search), State({}, report)]
        try:
            while states and not search.over() and not search.verified:
                states = [*states[1:], *search.expand(states[0])]
        except KeyboardInterrupt:
            if not search.found:
                raise  # else what was found until now is the answer
        outside = [] if search.found else list(around(search))
    ordered = sorted(search.found, key=lambda pair: pair[0])
    return [*(fix for _, fix in ordered[:MOST_SHOWN]), *outside, *advised(job, report)]


def _origin(job: Job, report: Report) -> tuple[Original, Trace]:
    mode = job.settings.modes[0]
    wrt = tuple(n for n, d in job.domains.items() if d.grad)
    witnesses = [f.witness.inputs for f in report.findings if f.kind == "non-finite" and f.witness is not None]
    trace = job.program.capture(witnesses[0], wrt, mode) if witnesses else None
    if trace is None:
        raise TargetError(f"{job.program.name} has no input on which it fails.", "Check it first.")
    dtype = next((d for d in job.domains.values() if d.format.is_float), None)
    eps = dtype.format.eps if dtype is not None else 1e-7
    before = original(lambda inputs: job.program.run(inputs, wrt, mode), trace, job.domains, witnesses, eps, job.settings.seed)
    return before, trace
