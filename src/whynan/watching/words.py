"""An incident in words: what happened, where, which sample, why, how the last steps went, what to do next. Typography as in reports."""

import math
import shlex
from collections.abc import Callable, Iterable, Sequence
from pathlib import Path

from rich.cells import cell_len
from rich.console import Console

from whynan.analysis.blame import number
from whynan.analysis.finding import Finding
from whynan.frontends import FRAMEWORKS
from whynan.ir.graph import BACKWARD
from whynan.ir.where import Site
from whynan.report import _text
from whynan.report._source import short_path, shown_path
from whynan.report.terminal import Page, chain, new_page, source
from whynan.report.words import words
from whynan.watching.record import (
    BAD_DATA,
    BAD_STATE,
    CUSTOM_BACKWARD,
    DIVERGENCE,
    OPERATION,
    OVERFLOW,
    UNEXPLAINED,
    Element,
    Incident,
    Moment,
    Stored,
    Suspects,
)

UNTOUCHED = "Nothing was updated: parameters, optimizer state and buffers are as before this step."

_CLASSES = {
    BAD_DATA: "the batch itself held values that are not finite",
    BAD_STATE: "a parameter, or a number that the optimizer keeps, was not finite before this step",
    OPERATION: "data and parameters were finite, this operation's result was not",
    OVERFLOW: "the numbers outgrew the dtype's range",
    CUSTOM_BACKWARD: "a backward function that the user wrote gave values that are not finite",
    DIVERGENCE: "no single operation is at fault: the numbers grew from step to step",
    UNEXPLAINED: "the step did not fail again where it could be looked at",
}
_FAILED = {
    "gradient": "a gradient is not finite",
    "scale": "the gradient scaler's scale has collapsed",
    "update": "the optimizer's update is not finite",
}
_UNREPEATED = (
    "See that the model and loss= are watched, so that the step can be run again. If it was and stayed finite, look for what does not "
    "repeat: kernels that are not deterministic, the device, other threads."
)
_RESTORE = "Begin again from a checkpoint without it. Watched from there on, the run shows the step that breaks it."
_STEPS_SHOWN = 6
_NAMES_SHOWN = 8
_LINKS_SHOWN = 10
_LEVELS = "_.:-=+*#"  # of a sparkline, low to high
_WRONG = "!"  # a value that is not finite
_LOG = " (log)"
_SPARKS = 50  # columns of a sparkline
_STEEP = 100.0  # a larger ratio of largest to smallest is shown by logarithms


def told(incident: Incident, console: Console | None = None, width: int | None = None, color: bool | None = False) -> str:
    """The incident as text of several lines, most important first: plain and 100 columns wide, or as the console has it."""
    page = new_page(console, width, color) if console is not None or color or width is not None else Page(100, False, "utf-8")
    _headline(page, incident)
    _finding(page, incident)
    _last_steps(page, incident)
    _rest(page, incident)
    return page.text().rstrip("\n")


def summary(incident: Incident) -> str:
    """The incident in one sentence: what went wrong at which operation and line."""
    finding = incident.finding
    if finding is None:
        return f"{what_failed(incident)}; {words('divergence').title if incident.kind == DIVERGENCE else 'no operation could be named'}"
    first = next((e for e in incident.suspects.elements if e.value is not None), None)
    if incident.kind == BAD_DATA and first is not None:
        return f"{what_failed(incident)}: the batch has {element(first)}"
    if incident.kind == BAD_STATE and first is not None:
        return f"{what_failed(incident)}: before the step {element(first)}"
    layer = f", layer {incident.layer}" if incident.layer and finding.site is not None and _in_library(finding.site) else ""
    return f"{what_failed(incident)}: {_culprit(finding, incident.kind == CUSTOM_BACKWARD)}{layer}"


def what_failed(incident: Incident) -> str:
    """What was not finite: "the loss is NaN", "a gradient is not finite"."""
    if incident.failed == "loss":
        return f"the loss is {number(incident.loss)}"
    return _FAILED.get(incident.failed, f"{incident.failed} is not finite")


def _culprit(finding: Finding, handwritten: bool) -> str:
    first = finding.chain[0] if finding.chain else None
    inputs = ", ".join(first.inputs) if first else ""
    what = f"{first.op}({inputs})" if first and first.op and inputs and len(inputs) < 40 else words(finding.cause).title
    derived = first is not None and finding.phase == BACKWARD and finding.op not in ("", first.op)
    what += f" in the derivative of {finding.op}" if derived else ""
    if finding.site is None:
        return what
    of = "," if derived else " in the gradient of" if finding.phase == BACKWARD and not handwritten else " in"
    return f"{what}{of} {short_path(finding.site.file)}:{finding.site.line}"


# ---------------------------------------------------------------- the parts


def _headline(page: Page, incident: Incident) -> None:
    word = f"STEP {incident.step}"
    page.prose(summary(incident), "bold", indent=len(word) + 2, first=(word + "  ", "bold red"))
    indent = len(word) + 2 if page.width >= 60 else 2
    page.prose(UNTOUCHED, "", indent=indent)
    page.prose(", ".join(_context(incident)), "dim", indent=indent)


def _context(incident: Incident) -> list[str]:
    facts = FRAMEWORKS.get(incident.framework)
    parts = [f"{facts.product if facts else incident.framework} {incident.framework_version}".strip() + f" ({incident.how})"]
    if incident.world > 1:
        parts.append(f"rank {incident.rank} of {incident.world}")
        if incident.ranks and incident.ranks != (incident.rank,):
            parts.append(f"failed on rank{'s' if len(incident.ranks) > 1 else ''} {several(incident.ranks)}")
    return [
        *parts,
        *([moment_text(incident.when)] if incident.when else []),
        f"policy {incident.action}",
        f"explained in {incident.seconds:.1f} s",
    ]


def _finding(page: Page, incident: Incident) -> None:
    finding = incident.finding
    page.line()
    if finding is None:
        page.prose(f"error[{incident.kind or UNEXPLAINED}] {_CLASSES.get(incident.kind, '')}".rstrip(), "bold red")
        page.field("why", [incident.unexplained] if incident.unexplained else [])
        page.field("to do", [words("divergence").hint if incident.kind == DIVERGENCE else _UNREPEATED])
        _place(page, incident)
        return
    text = words(finding.cause)
    page.prose(f"error[{finding.cause}] {text.title}", "bold red")
    if finding.site is not None:
        source(page, finding, finding.site)
    page.field("what", [finding.message])
    page.field("why", [text.why] if text.why not in finding.message else [])
    page.field("related", [", ".join(finding.related)] if finding.related else [])
    page.field("class", [f"{incident.kind}: {_CLASSES[incident.kind]}" if incident.kind in _CLASSES else incident.kind])
    _place(page, incident)
    page.field("how", _text.shortened(chain(finding), _LINKS_SHOWN))
    page.field("to do", [_RESTORE if incident.kind == BAD_STATE else text.hint])
    page.field("fix", [_text.fix_text(fix) for fix in finding.fixes])


def _place(page: Page, incident: Incident) -> None:
    """Layer, parameters, and where in the batch."""
    page.field("layer", [incident.layer] if incident.layer else [])
    page.field("parameter", [parameters_text(incident)] if incident.parameters else [])
    page.field("sample", [text] if (text := sample_text(incident.suspects)) else [])
    page.field("data", [element(e) for e in incident.suspects.elements])


def _rest(page: Page, incident: Incident) -> None:
    fields = {
        "advice": list(incident.advice),
        "run again": _again(incident),
        "in bundle": stored_text(incident.stored),
        "look up": _look_up(incident),
        "notes": [*_doubt(incident), *incident.notes],
    }
    if not any(fields.values()):
        return
    page.line()
    page.prose("What next", "bold")
    for label, texts in fields.items():
        page.field(label, texts)


def _doubt(incident: Incident) -> list[str]:
    if incident.finding is None or incident.reproduced:
        return []
    return ["run again from the kept state, the step did not fail: what is said above is from the failing step's own values."]


def _again(incident: Incident) -> list[str]:
    """How to see it fail again."""
    if incident.folder is None and not incident.stored:
        return []
    script = "replay.py" if incident.folder is None else shlex.quote(shown_path(str(incident.folder / "replay.py")))
    whose = ", beside this report" if incident.folder is None else ""
    return [f"python {script}", f"(runs the step with your code{whose}; look through its top first)"]


def _look_up(incident: Incident) -> list[str]:
    """Commands and places that say more."""
    lines = []
    finding, sample = incident.finding, incident.sample
    if incident.kind == BAD_DATA and sample is not None:
        lines.append(f"sample {sample} of this batch in your data set: every step that draws it will fail")
    elif finding is not None and finding.site is not None and incident.kind != BAD_STATE and _is_checkable(incident, finding.site):
        target = shlex.quote(f"{shown_path(finding.site.file)}:{finding.site.function}")
        lines.append(f"whynan check {target}")
        lines.append(f"whynan fix {target}")
    if incident.folder is not None:
        lines.append(f"whynan explain {shlex.quote(shown_path(str(incident.folder)))}")
    return lines


def _is_checkable(incident: Incident, site: Site) -> bool:
    """Whether `whynan check` could be given the failing function: at the top of a file of the user's, neither a layer's nor the loop."""
    return site.function.isidentifier() and not _in_library(site) and not incident.layer and not incident.in_loop


def _in_library(site: Site) -> bool:
    return not {"site-packages", "dist-packages"}.isdisjoint(Path(site.file).parts)


# ---------------------------------------------------------------- phrases


def parameters_text(incident: Incident) -> str:
    """The parameters whose gradients, or what the optimizer made of which, failed: the first by name, the others by number."""
    first, *others = incident.parameters
    if incident.failed == "update":
        return f"{first}{' and ' + _text.count(len(others), 'other value') if others else ''} would not be finite after the update"
    return f"the gradient by {first}{' and by ' + _text.count(len(others), 'other parameter') if others else ''} is not finite"


def sample_text(s: Suspects) -> str:
    """Which samples failed first and which of them fail alone; empty if none could be told."""
    of = f" of micro-batch {s.call}" if s.call else " of the batch"
    of += f" of {_text.count(s.batch, 'sample')}" if s.batch else ""
    first = f"{several(s.samples)}{of} (counted from 0)" if s.samples else ""
    if not s.alone or len(s.alone) == s.batch or (s.samples and len(s.alone) > max(_NAMES_SHOWN, s.batch // 2)):
        return first
    if s.alone == s.samples:
        return f"{first}; without the rest of the batch {'it fails' if len(s.alone) == 1 else 'they fail'} as well"
    rest = f"{several(s.alone)} alone {'fails' if len(s.alone) == 1 else 'fail together'}"
    return f"{first}; {rest} as well" if first else f"{rest}{of} (counted from 0)"


def moment_text(when: str) -> str:
    """A date and time in ISO 8601 as people read it, to the second."""
    return when[:19].replace("T", " ")


def several(numbers: Sequence[int], most: int = _NAMES_SHOWN) -> str:
    """Numbers with commas, the first few of many."""
    shown = ", ".join(map(str, numbers[:most]))
    return shown + (f", ... ({len(numbers)} in all)" if len(numbers) > most else "")


def element(e: Element) -> str:
    """An element as Python would write it: `x[3, 1] = inf`."""
    where = f"{e.name}[{', '.join(map(str, e.index))}]" if e.index else e.name
    return f"{where} (its value is not saved)" if e.value is None else f"{where} = {number(e.value)}"


def stored_text(stored: Iterable[Stored]) -> list[str]:
    """What of the step is in the bundle, by the first part of the tensors' names, and what is not and why; a line for each."""
    groups: dict[tuple[str, str], list[Stored]] = {}
    for s in stored:
        cut = "" if s.samples is None else f"only sample{'s' if len(s.samples) > 1 else ''} {several(s.samples)}"
        groups.setdefault((s.name.partition("/")[0], f"left out: {s.left_out}" if s.left_out else cut), []).append(s)
    return [f"{group}: {_group_text(members, note)}" for (group, note), members in sorted(groups.items())]


def _group_text(members: list[Stored], note: str) -> str:
    size = sum(s.size for s in members)
    sized = f", {bytes_text(size)}" if size else ""
    return f"{_text.count(len(members), 'tensor')}{sized}{f'; {note}' if note else ''}"


def bytes_text(n: int) -> str:
    """A size as people say it: "312 B", "1.5 MiB"."""
    units = ("B", "KiB", "MiB", "GiB")
    power = min(max(n.bit_length() - 1, 0) // 10, len(units) - 1)
    return f"{n / 1024**power:.3g} {units[power]}"


# ---------------------------------------------------------------- the last steps

_Column = tuple[str, Callable[[Moment], float]]
_COLUMNS: tuple[_Column, ...] = (
    ("loss", lambda m: m.loss),
    ("gradient norm", lambda m: m.gradient_norm),
    ("before clipping", lambda m: m.clipped_from),
    ("update ratio", lambda m: m.update_ratio),
    ("parameter norm", lambda m: m.parameter_norm),
    ("learning rate", lambda m: max(m.learning_rates, default=math.nan)),
    ("scale", lambda m: m.scale),
)


def _last_steps(page: Page, incident: Incident) -> None:
    moments = _with_own(incident)
    if len(moments) < 2:
        return
    page.line()
    page.prose("Last steps", "bold")
    columns = [c for c in _COLUMNS if any(not math.isnan(c[1](m)) for m in moments[:-1])]
    for row in _table(moments[-_STEPS_SHOWN:], columns, page.width - 2, incident):
        page.line(("  " + page.clean(row), ""))
    for name, value in columns[:2]:
        if len(moments) > _STEPS_SHOWN:
            _spark(page, name, [v for m in moments if not math.isnan(v := value(m)) or m.outcome != "applied"])  # NaN: not measured


def _with_own(incident: Incident) -> tuple[Moment, ...]:
    """The steps with the bad one last; of several optimizers those of its own."""
    own = next((m for m in incident.moments[::-1] if m.step == incident.step), Moment(incident.step, incident.loss))
    before = tuple(m for m in incident.moments if m.step < incident.step and m.optimizer == own.optimizer)
    return (*before, own if own.outcome != "applied" else own._replace(outcome="not applied"))


def _table(moments: Sequence[Moment], columns: Sequence[_Column], room: int, incident: Incident) -> list[str]:
    """Rows of right-aligned columns, as many columns as there is room for. Of the bad step itself a NaN is one, not a gap."""
    texts = [["step", *(str(m.step) for m in moments)]]
    texts += [[name, *(_short(value(m)) for m in moments)] for name, value in columns]
    if columns and columns[0][0] == "loss":
        texts[1][-1] = number(incident.loss) if math.isnan(incident.loss) else texts[1][-1]
    widths = [max(map(cell_len, column)) for column in texts]
    fitting = sum(1 for i in range(len(widths)) if sum(widths[: i + 1]) + 2 * i <= room)
    outcomes = ["", *("" if m.outcome == "applied" else m.outcome for m in moments)]
    last = max(map(cell_len, outcomes)) if sum(widths[:fitting]) + 2 * fitting + max(map(cell_len, outcomes)) <= room else 0
    rows = ["  ".join(column[i].rjust(w) for column, w in zip(texts[:fitting], widths, strict=False)) for i in range(len(moments) + 1)]
    return [f"{row}  {outcome}".rstrip() if last else row for row, outcome in zip(rows, outcomes, strict=True)]


def _short(x: float) -> str:
    return "-" if math.isnan(x) else f"{x:.4g}"


def _spark(page: Page, name: str, values: Sequence[float]) -> None:
    finite = [x for x in values if math.isfinite(x)]
    if len(finite) < 2:
        return
    ends = f"{_short(min(finite))} to {_short(max(finite))}"
    room = min(_SPARKS, page.width - 19 - len(ends) - len(_LOG))
    if room >= 10:
        line, scale = sparkline(values, room)
        page.line((f"  {name:<15}", "bold"), (f" {line} ", ""), (f"{ends}{scale}", "dim"))


def sparkline(values: Sequence[float], room: int) -> tuple[str, str]:
    """The values as one line of at most `room` ASCII characters, "!" for what is not finite, and " (log)" if it shows logarithms.

    Of more values than there is room for, each character shows the largest of its part, so that no spike is lost.
    """
    parts = (
        [values[i * len(values) // room : (i + 1) * len(values) // room] for i in range(room)]
        if len(values) > room
        else [[v] for v in values]
    )
    tops = [max(part) if all(map(math.isfinite, part)) else math.nan for part in parts]
    finite = [x for x in tops if math.isfinite(x)]
    if not finite:
        return _WRONG * len(tops), ""
    steep = min(finite) > 0 and max(finite) > _STEEP * min(finite)
    scaled: Callable[[float], float] = math.log if steep else float
    low, high = scaled(min(finite)), scaled(max(finite))
    return "".join(_level(scaled(x), low, high) if math.isfinite(x) else _WRONG for x in tops), _LOG if steep else ""


def _level(x: float, low: float, high: float) -> str:
    share = (x / 2 - low / 2) / (high / 2 - low / 2) if high / 2 > low / 2 else 0.0  # halves: their difference does not overflow
    return _LEVELS[min(int(share * len(_LEVELS)), len(_LEVELS) - 1)]
