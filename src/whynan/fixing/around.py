"""Advice where the loss's own source is not changed: a function around it, or a change of what calls it."""

from collections.abc import Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

from whynan.analysis.compare import difference
from whynan.analysis.finding import UNSAFE, Report
from whynan.errors import FrameworkMissing, TargetError, WhynanError
from whynan.fixing.evidence import evidence_of
from whynan.fixing.job import Job, text_of
from whynan.fixing.search import Search
from whynan.frontends.source import USER, kind_of
from whynan.patches.advice import advice
from whynan.patches.change import ADVICE, REVIEW, Evidence, FileChange, Fix, diff, read_file
from whynan.patches.from_logits import with_from_logits
from whynan.patches.load import Isolated
from whynan.patches.read import contexts
from whynan.patches.source import Source
from whynan.patches.wrapper import wrappers

TAKEN_FOR_PROBABILITIES = "logits-as-probabilities"
_OTHER_LOSS = "the value changes on the whole domain: until now the loss took logits for probabilities"
_FROM_PROBABILITIES = frozenset({"log-of-zero", "epsilon-rounds-away", "epsilon-removed-by-compiler"})


def around(search: Search) -> Iterator[Fix]:
    """Functions around a loss whose own source could not be mended, checked and compared like a change of it; they are advice."""
    job = search.job
    if job.program.parameters or job.model is not None:
        return
    for made in wrappers(job.program.framework, job.expression or getattr(job.target, "__name__", ""), job.domains):
        space: dict[str, Any] = {made.inner: job.target}
        try:
            exec(compile(made.text, "<whynan wrapper>", "exec", dont_inherit=True), space)
            program = job.remake(space[made.name])
        except (ImportError, TargetError, FrameworkMissing):
            return
        compared = difference(search.origin, partial(search.run, program))
        report = search.check(program) if compared.failing is None else None
        if report is None or report.verdict == UNSAFE:
            continue
        evidence = evidence_of(report, compared, (), search.cost(program))
        note = "the source is left as it is: put this function beside your own code and call it instead"
        yield Fix(made.title, ADVICE, made.text, replace(evidence, notes=(note,)))


def told_logits(job: Job, report: Report) -> Iterator[Fix]:
    """`from_logits=True` for a Keras loss that takes logits for probabilities, checked again."""
    place = next((f.site for f in report.findings if f.cause == TAKEN_FOR_PROBABILITIES and f.site is not None), None)
    path = Path(place.file).resolve() if place is not None else None
    text = text_of(path) if path is not None and kind_of(str(path)) == USER else None
    if place is None or path is None or text is None or job.model is not None:
        return
    new = with_from_logits(text, (place.line, place.column), (place.end_line, place.end_column))
    if new is None:
        return
    try:
        with Isolated() as isolated:
            again = job.check(job.remake(isolated.changed(job.target, job.expression, {path: new})))
    except WhynanError:
        return
    if again.verdict != UNSAFE and not any(f.cause == TAKEN_FOR_PROBABILITIES for f in again.findings):
        change = FileChange(path, text, new, *read_file(path)[1:])
        evidence = Evidence(again.verdict, 0, 0, None, _OTHER_LOSS, "gradient alive where it was 0 outside (0, 1)", None)
        yield Fix("tell the loss that it is given logits", REVIEW, diff(change), evidence, (change,))


def advised(job: Job, report: Report) -> Iterator[Fix]:
    """What to change outside the loss, if that is better than any change of it."""
    place = next((f.site for f in report.findings if f.cause in _FROM_PROBABILITIES and f.site is not None), None)
    text = text_of(Path(place.file)) if place is not None else None
    if place is None or text is None:
        return
    found = contexts(Source(text), job.program.framework, (place.line, place.column), (place.end_line, place.end_column))
    given = [n for n, d in job.domains.items() if d.kind == "prob" and d.grad]
    said = advice(found[0], given) if found else ""
    if said:
        yield Fix(said, ADVICE, "", Evidence("", 0, 0, None, "", "", None, ("the change is outside the loss",)))
