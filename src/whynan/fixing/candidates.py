"""Changed sources for the first failure of a source: contexts of the failing expression, proposals for them, written back."""

import ast
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path

from whynan.analysis.propagate import propagate
from whynan.domain.abstract import bounds_of
from whynan.fixes import Proposal, propose
from whynan.fixes._proposal import EQUIVALENT
from whynan.fixing.job import Candidate, Job, State, text_of
from whynan.frontends.source import USER, kind_of
from whynan.ir.dtype import FORMATS, Format
from whynan.ir.frontend import Trace
from whynan.ir.graph import FORWARD
from whynan.ir.term import Term, size
from whynan.ir.where import Site
from whynan.patches.load import plain_function
from whynan.patches.read import Context, contexts
from whynan.patches.source import Source
from whynan.patches.spell import Unwritable
from whynan.patches.write import rewritten

MOST_LOOKED_AT = 3  # expressions around the failing one, the largest apart
LARGE = 60  # operations: what is larger is not changed as a whole

_WRITTEN_OUT = "write the library's call out"
_LINEAR = frozenset({"mean", "sum", "cast", "move"})
_PLAIN = frozenset({"neg", "mean", "sum", "cast", "move", "opaque", "detach"})  # around a context, these offer no further change


@dataclass(frozen=True, eq=False)
class Known:
    """What the original's recording tells: the bounds of expressions by their text, formats."""

    job: Job
    trace: Trace

    @cached_property
    def ranges(self) -> dict[str, tuple[float, float]]:
        """What is known of expressions by their text: inputs by their domains, others by the bounds of the original's graph."""
        bounds = {name: bounds_of(self.job.domains[name]) for name in self.trace.graph.inputs}
        proof = propagate(self.trace.graph, bounds, 2000)
        known: dict[str, tuple[float, float]] = {}
        for node, b in zip(self.trace.graph.nodes, proof.bounds, strict=True):
            if node.phase == FORWARD and node.site is not None and b.lo.size and not b.may_nan.any():
                known[node.site.text] = (float(b.lo.min()), float(b.hi.max()))
        return known | {name: (float(b.lo.min()), float(b.hi.max())) for name, b in bounds.items() if b.lo.size}

    @property
    def function(self) -> str:
        """The name of the loss's own function."""
        return str(getattr(plain_function(self.job.target), "__name__", ""))

    def format(self, place: Site) -> Format:
        """The format of the failing operation."""
        here = [n.format for n in self.trace.graph.nodes if n.site == place and n.format.is_float]
        return here[-1] if here else FORMATS[self.dtype()]

    def dtype(self) -> str:
        """The dtype of the first input of real numbers."""
        return next((d.dtype for d in self.job.domains.values() if d.format.is_float), "float32")


def candidates(state: State, known: Known) -> Iterator[Candidate]:
    """Changes that keep the value first, from the smallest expression to the largest; then the others in order of rank."""
    others: list[Candidate] = []
    for candidate in _proposed(state, known):
        if candidate.proposal.kind == EQUIVALENT:
            yield candidate
        else:
            others.append(candidate)
    yield from sorted(others, key=lambda c: c.rank)


def _proposed(state: State, known: Known) -> Iterator[Candidate]:
    if state.place is None:
        return
    place, cause = state.place.site, state.place.cause
    path = Path(place.file).resolve()
    text = state.texts.get(path) or text_of(path)
    if text is None or kind_of(str(path)) != USER:
        return
    around = contexts(Source(text), known.job.program.framework, (place.line, place.column), (place.end_line, place.end_column))
    ranges = _ranges_in(around[0], known) if around else known.ranges
    fmt, mode = known.format(place), (state.place.modes or known.job.settings.modes)[0]
    chosen = telling(around)
    for k, context in enumerate(chosen[::-1] if state.notes else chosen):  # logits want the whole loss in its stable form
        made = list(propose(context.term, context.at, cause, ranges, fmt, mode))
        if context.expanded is not None:
            made = [Proposal(context.expanded, _WRITTEN_OUT, EQUIVALENT), *made]
            made += propose(context.expanded, context.at, cause, ranges, fmt, mode)
        for i, proposal in enumerate(made):
            new = _without_signs(around, context, proposal) or _written(context, proposal)
            if new is not None and new != text:
                yield Candidate({**state.texts, path: new}, proposal, _rank(proposal, i, k, len(new)))


def _ranges_in(context: Context, known: Known) -> dict[str, tuple[float, float]]:
    """The ranges as they hold inside the function of a context: a helper's arguments have those of what it is called with in its file."""
    function = context.source.function(context.root)
    if not isinstance(function, ast.FunctionDef) or function.name == known.job.expression or function.name == known.function:
        return known.ranges
    names = [a.arg for a in (*function.args.posonlyargs, *function.args.args)]
    given: dict[str, list[tuple[float, float]]] = {}
    for call in ast.walk(context.source.tree):
        if isinstance(call, ast.Call) and isinstance(call.func, ast.Name) and call.func.id == function.name:
            pairs = [*zip(names, call.args, strict=False), *((k.arg or "", k.value) for k in call.keywords)]
            for name, value in pairs:
                text = context.source.text_of(value)
                if text in known.ranges:
                    given.setdefault(name, []).append(known.ranges[text])
    own = {n: (min(low for low, _ in r), max(high for _, high in r)) for n, r in given.items()}
    return {n: r for n, r in known.ranges.items() if n not in names} | own


def telling(around: Sequence[Context]) -> list[Context]:
    """The contexts worth a look of their own: the failing expression, those that add an operation which may matter, and the largest."""
    chosen = [c for k, c in enumerate(around) if k == 0 or c.term.op not in _PLAIN][:MOST_LOOKED_AT]
    last = [c for c in around if size(c.term) <= LARGE][-1:]
    return chosen + [c for c in last if c not in chosen]


def _rank(proposal: Proposal, position: int, context: int, length: int) -> tuple[int, ...]:
    """Where a candidate stands in line: what keeps the value first, then the proposals' own order, then what reads shorter."""
    same = proposal.kind == EQUIVALENT
    return (0, position, length) if same else (1, position + context, context)


def _written(context: Context, proposal: Proposal) -> str | None:
    try:
        return rewritten(context, proposal.term)
    except Unwritable:
        return None


def _without_signs(around: Sequence[Context], inner: Context, proposal: Proposal) -> str | None:
    """A change to -y whose place is negated once more, as in -(…).mean(), with both signs left out: y.mean(). Signs round nothing."""
    if proposal.term.op != "neg" or proposal.kind != EQUIVALENT:
        return None
    for outer in around:
        if outer.term.op == "neg" and outer.source is inner.source:
            whole = _inside(outer.term.args[0], inner.term, proposal.term.args[0])
            if whole is not None:
                return _written(outer, replace(proposal, term=whole))
    return None


def _inside(whole: Term, old: Term, new: Term) -> Term | None:
    """The term with another one in place of `old`, if only sums, means and moves stand between."""
    if whole == old:
        return new
    if whole.op not in _LINEAR or len(whole.args) != 1:
        return None
    below = _inside(whole.args[0], old, new)
    return None if below is None else replace(whole, args=(below,))
