"""Text that is safe to show, and arrays, domains and outcomes in words. Shared by all report formats; nothing here knows of one."""

import unicodedata
from collections.abc import Iterable
from typing import Any

import numpy as np

from whynan.analysis.finding import ERROR, SAFE, UNSAFE, Finding, Open, Report, Step, Witness
from whynan.ir.dtype import Array
from whynan.ir.graph import BACKWARD
from whynan.ir.where import Site
from whynan.report._source import short_path, shown_path
from whynan.report.words import words

_HIDDEN = frozenset(("Cc", "Cf", "Cs", "Zl", "Zp"))
_TINY = 4  # elements: always shown in full
_SMALL = 8  # elements: shown in full unless a plain value and its exceptions say it shorter
_LONGEST_TEXT = 70  # characters
_MOST_LINES = 10
_OF_GRADIENTS = ("exploding-gradient", "dead-gradient")
PATH = "path"  # the op of an open site where Python code looks at a value
_EXCEPTIONS = 4  # elements named one by one besides the plain value


def visible(text: str, encoding: str = "utf-8") -> str:
    """The text with control, bidirectional and unencodable characters written as escapes; newlines and tabs stay."""
    shown = "".join(c if c in "\n\t" or unicodedata.category(c) not in _HIDDEN else _escaped(c) for c in text)
    return shown.encode(encoding, "backslashreplace").decode(encoding)


def _escaped(c: str) -> str:
    return c.encode("unicode_escape").decode("ascii")


def one_line(text: str) -> str:
    """The text with every run of white space as one space."""
    return " ".join(text.split())


# ---------------------------------------------------------------- numbers and arrays


def number(value: Any) -> str:
    """A NumPy or Python scalar in the fewest digits that name it in its own dtype."""
    x = np.asarray(value)
    if x.dtype.kind == "b":
        return "true" if x else "false"
    if x.dtype.kind in "iu":
        return str(int(x))
    if np.isnan(x.astype(np.float64)):
        return "nan"
    if x.dtype in (np.float16, np.float32, np.float64):
        return str(x.dtype.type(x))
    texts = (f"{float(x):.{digits}g}" for digits in range(1, 18))
    return str(float(next(text for text in texts if x.dtype.type(float(text)) == x)))


def shape_text(shape: tuple[int, ...]) -> str:
    """A shape as people write it: "8 x 1", "scalar"."""
    return " x ".join(str(n) for n in shape) or "scalar"


def array_text(value: Array) -> str:
    """An array in few words: small ones in full, others as a plain value and its exceptions, else as a range."""
    value = np.asarray(value)
    if value.size == 0:
        return "no elements"
    if value.size <= _TINY:
        return _nested(value)
    plain, others = plain_value(value)
    if not len(others):
        return f"{number(plain)} everywhere"
    if len(others) <= _EXCEPTIONS and len(others) * 2 <= value.size:
        named = ", ".join(f"{_index(i)} = {number(value[i])}" for i in map(tuple, others))
        return f"{number(plain)} everywhere but {named}"
    return _nested(value) if value.size <= _SMALL else _range(value)


def _nested(value: Array) -> str:
    if value.ndim == 0:
        return number(value[()])
    return "[" + ", ".join(_nested(part) for part in value) + "]"


def plain_value(value: Array) -> tuple[Any, Any]:
    """The most frequent element (bit for bit) of a non-empty array and the indices, one row each, of all others."""
    bits = np.ascontiguousarray(value).reshape(-1).view(f"u{value.dtype.itemsize}")
    patterns, first, counts = np.unique(bits, return_index=True, return_counts=True)
    most = int(np.argmax(counts))
    others = np.argwhere((bits != patterns[most]).reshape(value.shape))
    return value.reshape(-1)[first[most]], others


def _index(i: Iterable[Any]) -> str:
    return "[" + ", ".join(str(int(n)) for n in i) + "]"


def _range(value: Array) -> str:
    wide = value.astype(np.float64)
    finite = value[np.isfinite(wide)]
    parts = []
    if finite.size:
        ordered = finite[np.argsort(finite.astype(np.float64))]
        parts.append(f"{value.size} values from {number(ordered[0])} to {number(ordered[-1])}")
    parts += _nonfinite_counts(wide)
    return ", ".join(parts)


def _nonfinite_counts(wide: Array) -> list[str]:
    kinds = (("NaN", np.isnan(wide)), ("inf", wide == np.inf), ("-inf", wide == -np.inf))
    return [f"{int(where.sum())} {name}" for name, where in kinds if where.any()]


def outcome_text(value: Array) -> str:
    """What came out, the bad elements first: "nan", "1 NaN among 8 elements, at [3, 1]", "largest 1e+12 at [0]"."""
    value = np.asarray(value)
    if value.size <= 1:
        return array_text(value)
    wide = value.astype(np.float64)
    bad = ~np.isfinite(wide)
    if bad.any():
        where = _index(tuple(np.argwhere(bad)[0]))
        return f"{', '.join(_nonfinite_counts(wide))} among {value.size} elements, {'at' if bad.sum() == 1 else 'first at'} {where}"
    if value.size <= _SMALL:
        return array_text(value)
    if not wide.any():
        return "0 everywhere"
    top = np.unravel_index(int(np.argmax(np.abs(wide))), wide.shape)
    return f"finite, largest {number(value[top])} at {_index(top)}"


# ---------------------------------------------------------------- domains

_RANGED = ("real", "logit", "positive", "nonnegative")


def domain_text(name: str, domain: Any) -> str:
    """A domain in the user's own notation, with its range where the notation leaves that to a default."""
    text = f"{name} = {domain}"
    if domain.kind not in _RANGED or ("low=" in text and "high=" in text):
        return text
    above_zero = domain.kind == "positive" and domain.low <= domain.format.smallest
    return f"{text}, {'above 0, up to' if above_zero else f'from {domain.low:g} to'} {domain.high:g}"


def domains(report: Report, assumed: bool) -> list[str]:
    """The domains that the user gave, or those that were assumed, a line each; without constants."""
    return some([domain_text(name, d) for name, d in report.domain.items() if d.assumed == assumed and d.value is None])


def constants(report: Report) -> list[str]:
    """The inputs of one value, a module's parameters among them, a line each."""
    fixed = {name: d.value for name, d in report.domain.items() if d.value is not None}
    return some([f"{name} = {array_text(value)}  ({value.dtype}, {shape_text(value.shape)})" for name, value in fixed.items()])


def concrete(report: Report) -> bool:
    """Whether the report is about one concrete input."""
    return bool(report.domain) and all(d.value is not None for d in report.domain.values())


# ---------------------------------------------------------------- the report's own sentences


def split_target(target: str) -> tuple[str, str]:
    """File or module and expression of a target; the first is empty where the target is only a name.

    The colon after ".py" decides, so that a drive letter or a colon in the expression does no harm.
    """
    file, found, expression = target.partition(".py:")
    if found:
        return file + ".py", expression
    module, found, expression = target.partition(":")
    return (module, expression) if found else ("", target)


def target_name(report: Report) -> str:
    """The expression part of the target: `focal_loss` of `losses.py:focal_loss`."""
    return split_target(report.target)[1] or report.target


def step_text(step: Step) -> str:
    """A chain step as `log(0.0) -> -inf`; as `log -> -inf` where the inputs are not known."""
    given = f"({', '.join(step.inputs)})" if step.inputs else ""
    return f"{step.op}{given} -> {step.output}"


def errors(report: Report) -> list[Finding]:
    """The findings that make the target unsafe."""
    return [f for f in report.findings if f.severity == ERROR]


def ordered(report: Report) -> list[Finding]:
    """All findings, errors first, otherwise in the report's order."""
    return sorted(report.findings, key=lambda f: f.severity != ERROR)


def becomes(witness: Witness | None, one: bool = False) -> str:
    """What a witness shows: "can become NaN", "has a gradient that can become infinite"; on `one` input, what it is there."""
    if witness is None:
        return "can fail"
    loss = np.asarray(witness.loss).astype(np.float64)
    if not np.isfinite(loss).all():
        return f"is {bad_kind(loss)} on this input" if one else f"can become {bad_kind(loss)}"
    bad = [g for g in (np.asarray(g).astype(np.float64) for g in witness.gradients.values()) if not np.isfinite(g).all()]
    if not bad:
        return "can fail"
    kind = bad_kind(np.concatenate([g.reshape(-1) for g in bad]))
    return f"has a gradient that is {kind} on this input" if one else f"has a gradient that can become {kind}"


def bad_kind(wide: Array) -> str:
    """NaN or infinite: what a value that is not finite is."""
    return "NaN" if np.isnan(wide).any() else "infinite"


ASSUMED = "(not given, so inferred: say what these inputs really are if this is wrong)"
_TO_TRY = {
    "path": "A proof covers one path: select with where() on tensors, or give domains on which the code always goes the same way.",
    "unknown": "An op that whynan does not know stays open: write it in terms of others.",
    "bound": "Narrow the domain to what the loss really gets, or search longer with a larger budget.",
}


def to_try(sites: Iterable[Open]) -> list[str]:
    """What helps with sites that were left open, by why they were."""
    why = {"path" if s.op == PATH else "unknown" if s.op.startswith("unknown") else "bound" for s in sites}
    return [advice for reason, advice in _TO_TRY.items() if reason in why]


def headline(report: Report) -> str:
    """The verdict in one sentence, without the verdict's own word."""
    name = target_name(report)
    if report.verdict == UNSAFE and errors(report):
        # what has no inputs is a step of a training run that happened
        witness = errors(report)[0].witness
        what = becomes(witness, concrete(report)) if report.domain or witness else "went bad"
        return f"{name} {what}: {_culprit(errors(report)[0])}"
    if errors(report):  # not one that makes a result non-finite
        return f"{name}: {_culprit(errors(report)[0])}; {_finiteness(report)}"
    return f"{name}: {_finiteness(report)}"


def _finiteness(report: Report) -> str:
    """What is known of the loss that no input was found for on which it fails."""
    if report.verdict == SAFE:
        warnings = len(report.findings) - len(errors(report))
        also = f" ({count(warnings, 'warning')})" if warnings else ""
        where = "this one input" if concrete(report) else "the whole domain"
        return f"the loss and its gradients are finite on {where}{also}"
    if errors(report) and not report.sites.get("total"):
        return "it raises, so nothing could be proven"
    left = report.sites.get("undecided", 0) or sum(s.op != PATH for s in report.undecided)
    if left:
        of = f" of {report.sites['total']}" if report.sites.get("total") else ""
        return f"{left}{of} sites {'is' if left == 1 else 'are'} left open, and no failing input was found"
    if report.undecided:
        return "finite on the path that was recorded, but other inputs may take another; no failing input was found"
    return "neither proven finite nor shown to fail"


def _culprit(finding: Finding) -> str:
    first = finding.chain[0] if finding.chain else None
    call = _call(first) if first else ""
    site, phase = (first.site, first.phase) if first and first.site and call else (finding.site, finding.phase)
    what = call or words(finding.cause).title
    if site is None:
        return what
    return f"{what} in {'the gradient of ' if phase == BACKWARD else ''}line {site.line}"


def _call(step: Step) -> str:
    """The step as `log(0.0)` if its inputs are plain numbers, else an empty string."""
    inputs = ", ".join(step.inputs)
    return f"{step.op}({inputs})" if inputs and all(map(_is_number, inputs.split(", "))) else ""


def _is_number(text: str) -> bool:
    try:
        float(text)
    except ValueError:
        return False
    return True


def gives(witness: Witness) -> list[str]:
    """What came out of the witness, a line each: the loss and the gradients, those that are not finite first."""
    if not np.asarray(witness.loss).size and not witness.gradients:
        return ["no loss: it raises"]
    gradients = sorted(witness.gradients.items(), key=lambda item: bool(np.isfinite(np.asarray(item[1], np.float64)).all()))
    rows = [("loss", witness.loss), *((f"gradient by {name}", g) for name, g in gradients)]
    return some([f"{name}: {outcome_text(value)}" for name, value in rows])


def exact(witness: Witness) -> list[str]:
    """What should have come out, a line each, where it is known."""
    rows = [("loss" if name == "loss" else f"gradient by {name}", value) for name, value in witness.exact.items()]
    return some([f"{name}: {outcome_text(value)}" for name, value in rows])


def inputs(witness: Witness) -> list[str]:
    """The witness's inputs, a line each, with dtype and shape."""
    return some([f"{name} = {array_text(value)}  ({value.dtype}, {shape_text(value.shape)})" for name, value in witness.inputs.items()])


def place(site: Site | None, home: Site | None) -> str:
    """Where a step stands, seen from the finding's own site: "line 12", or with its file where that is another."""
    if site is None:
        return "no source line"
    return f"line {site.line}" if home is not None and site.file == home.file else f"{short_path(site.file)}:{site.line}"


def location(finding: Finding, site: Site) -> str:
    """File, line and function of a finding."""
    inside = f" in {site.function}" if site.function else ""
    return f"{shown_path(site.file)}:{site.line}{inside}{', in its gradient' if finding.phase == BACKWARD else ''}"


def open_text(site: Open) -> str:
    """An undecided site: what it is, where it stands, and its expression on one line."""
    what = "the path that the code takes" if site.op == PATH else site.op
    if site.site is None:
        return what
    text = one_line(site.site.text)
    short = text if len(text) <= _LONGEST_TEXT else text[: _LONGEST_TEXT - 3] + "..."
    return f"{what} at {shown_path(site.site.file)}:{site.site.line}: {'gradient of ' if site.phase == BACKWARD else ''}{short}"


def fix_text(fix: Any) -> str:
    """A fix by title and applicability."""
    return f"{getattr(fix, 'title', fix)} ({getattr(fix, 'applicability', 'advice')})"


def some(lines: list[str]) -> list[str]:
    """The first lines of many, and how many were left out: a module may have hundreds of parameters."""
    return lines if len(lines) <= _MOST_LINES else [*lines[:_MOST_LINES], f"... and {len(lines) - _MOST_LINES} more"]


def shortened(lines: list[str], most: int) -> list[str]:
    """At most so many lines, the last of them always, each only once in a row: what stands between is counted."""
    once = [line for i, line in enumerate(lines) if i == 0 or line != lines[i - 1]]
    left_out = len(once) - most
    return once if left_out < 2 else [*once[: most - 1], f"... {left_out} more", once[-1]]


def differentiated(report: Report) -> list[str]:
    """By what the loss was differentiated, where the trouble is a gradient alone: perhaps it is one that nobody needs."""
    names = [name for name, d in report.domain.items() if d.grad]
    about = [f.witness for f in report.findings if f.witness is not None and (f.severity == ERROR or f.kind in _OF_GRADIENTS)]
    losses = [np.asarray(w.loss).astype(np.float64) for w in about]
    if len(names) < 2 or not any(loss.size and np.isfinite(loss).all() for loss in losses):
        return []
    return [f"by {', '.join(names)}; if one of them is data that nobody trains, say grad=False in its domain"]


def count(n: int, what: str) -> str:
    """A number of things: "1 site", "2 sites"."""
    return f"{n} {what}{'' if n == 1 else 's'}"


def scope_text(report: Report) -> str:
    """What the verdict is about besides the domain."""
    return f"{report.dtype}, {', '.join(report.modes)}, for {'this input alone' if concrete(report) else 'these shapes'}"


def proof_title(report: Report) -> str:
    """The heading of what the report covers."""
    return "Proven" if report.verdict == SAFE and report.sites.get("proven") else "Checked"


def counts_text(report: Report) -> str:
    """How many sites were proven: "12 of 14 sites proven finite, 2 undecided"."""
    sites = report.sites
    text = f"{sites.get('proven', 0)} of {sites.get('total', 0)} sites proven finite"
    rest = [f"{sites[k]} {k}" for k in ("refuted", "undecided") if sites.get(k)]
    return ", ".join([text, *rest])


def search_text(report: Report) -> str:
    """How much was searched and split, or an empty string if nothing was."""
    n, boxes = int(report.search.get("evaluations", 0)), int(report.search.get("boxes", 0))
    screened = int(report.search.get("screened", 0))
    more = f", {screened} more looked at through the graph" if screened else ""
    tried = f"{count(n, 'input')} tried{more} in {report.search.get('seconds', 0.0):.2f} s" if n else ""
    split = f"{boxes:,} {'box' if boxes == 1 else 'boxes'} of inputs bounded" if boxes else ""
    return "; ".join(part for part in (tried, split) if part)



def context_text(report: Report) -> str:
    """Target, framework, modes, dtype and time on one line."""
    framework = f"{report.framework} {report.framework_version}".strip()
    place, expression = split_target(report.target)
    target = f"{shown_path(place)}:{expression}" if place else expression
    return f"{target}, {framework} ({', '.join(report.modes)}), {report.dtype}, {report.seconds:.2f} s"
