"""From what each mode gave to one report: findings joined, the verdict, what is left undecided, what was covered."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from whynan.analysis.coverage import PATH, live
from whynan.analysis.finding import ERROR, SAFE, UNDECIDED, UNSAFE, Finding, Open, Report
from whynan.analysis.paths import Path
from whynan.analysis.search import Searched
from whynan.domain.spec import Domain
from whynan.errors import TargetError
from whynan.ir.frontend import Program
from whynan.ir.graph import FORWARD, Graph
from whynan.ir.where import Site


@dataclass(frozen=True, slots=True, eq=False)
class ModeResult:
    """What one mode's program gave. Its recorded paths have proofs of their own."""

    mode: str
    paths: tuple[Path, ...]
    unproven: tuple[Open, ...]  # why the proofs, finite or not, do not cover the domain
    searched: Searched
    findings: tuple[Finding, ...]
    notes: tuple[str, ...] = ()  # beside those of the graphs

    @property
    def finite(self) -> bool:
        """Whether every output is proven finite on each path."""
        return all(p.proof.finite for p in self.paths)


def span_of(site: Site | None) -> tuple[object, ...] | None:
    """The place of an expression, whatever library code stands below it."""
    return (site.file, site.line, site.column, site.end_line, site.end_column) if site else None


def merged(findings: Sequence[Finding]) -> tuple[Finding, ...]:
    """Findings of all modes, equal ones joined, errors first, numbered."""
    joined: dict[tuple[object, ...], Finding] = {}
    for f in findings:
        key = _same(f)
        before = joined.get(key)
        if before is None:
            joined[key] = f
        elif f.kind != "non-finite":
            joined[key] = replace(before, modes=tuple(dict.fromkeys([*before.modes, *f.modes])))
        elif set(f.modes) <= set(before.modes):
            joined[key] = _told_better(before, f)
        else:  # the first one's witness is fine there: this one has its own
            joined[(*key, f.modes)] = f
    failing = {f.site for f in joined.values() if f.severity == ERROR}
    # where a gradient can be infinite it can be large as well: that is no news
    news = [f for f in joined.values() if f.kind != "exploding-gradient" or f.site not in failing]
    # stable: else in order of execution
    ordered = sorted(news, key=lambda f: (f.severity != ERROR, f.kind != "non-finite", f.phase != FORWARD))
    return tuple(replace(f, id=f"F{n}") for n, f in enumerate(ordered, 1))


def _same(f: Finding) -> tuple[object, ...]:
    """What findings of one defect have in common; compilers write the same mistake with other operations."""
    if f.kind == "contract":
        return f.kind, f.cause, span_of(f.site)
    return (f.kind, f.phase, f.op, span_of(f.site)) if f.kind == "non-finite" else (f.kind, f.cause, f.phase, f.op, span_of(f.site))


def _told_better(one: Finding, other: Finding) -> Finding:
    """One finding for a defect that fails in several modes, with the cause that says more: that of a lost epsilon."""
    if one.cause == other.cause:
        return one
    first, second = (other, one) if other.cause.startswith("epsilon") and not one.cause.startswith("epsilon") else (one, other)
    related = dict.fromkeys([*first.related, second.cause, *second.related])
    return replace(first, modes=one.modes, related=tuple(c for c in related if c != first.cause))


def assembled(
    program: Program,
    domains: Mapping[str, Domain],
    wanted: Sequence[str],
    modes: Sequence[ModeResult],
    findings: tuple[Finding, ...],
    unable: Mapping[str, TargetError],
    seconds: float,
) -> Report:
    """The report of a check: `wanted` are all modes asked for, `modes` what came of those that ran, `unable` why others did not."""
    unsafe = any(f.kind == "non-finite" for f in findings)
    stopped = [mode for mode in tuple(wanted) if mode not in unable and mode not in {m.mode for m in modes}]
    covered = not stopped and not unable and all(m.finite and not m.unproven for m in modes)
    verdict = UNSAFE if unsafe else SAFE if covered else UNDECIDED
    left = [] if verdict == SAFE else [o for m in modes for o in _left(m, findings)]
    left += [Open(PATH, None, FORWARD, f"mode {mode} could not be checked: {error.message}") for mode, error in unable.items()]
    return Report(
        target=program.name,
        framework=program.framework,
        framework_version=program.framework_version,
        dtype=dtype_of(domains),
        modes=tuple(wanted),
        verdict=verdict,
        seconds=seconds,
        domain=domains,
        sites=_sites(modes, findings),
        findings=findings,
        undecided=tuple(left),
        search={
            **{key: sum(getattr(m.searched, key) for m in modes) for key in ("evaluations", "screened", "seconds")},
            "boxes": sum(p.proof.boxes for m in modes for p in m.paths),
        },
        notes=tuple(dict.fromkeys([n for m in modes for n in _notes(m)] + [_RAISES.format(m) for m in stopped])),
    )


_RAISES = "nothing is known of mode {}: the loss raises there"


def _notes(m: ModeResult) -> list[str]:
    return [*(n for p in m.paths for n in p.trace.graph.notes), *m.notes]


def _left(m: ModeResult, findings: Sequence[Finding]) -> Iterator[Open]:
    """Sites that are neither proven nor refuted, and what a proof does not cover."""
    refuted = {f.site for f in findings if f.kind == "non-finite"}
    seen = set()
    for path in m.paths:
        for i, reason in sorted(path.proof.open.items()):
            node = path.trace.graph.nodes[i]
            if node.site not in refuted and (node.site, node.phase) not in seen:
                seen.add((node.site, node.phase))
                yield Open(node.op, node.site, node.phase, reason)
    yield from m.unproven


def _sites(modes: Sequence[ModeResult], findings: Sequence[Finding]) -> dict[str, int]:
    """Op applications of the recorded programs that reach an output, by what is known of them."""
    paths = [p for m in modes for p in m.paths]
    total = sum(len(_applications(p.trace.graph, range(len(p.trace.graph.nodes)))) for p in paths)
    refuted_sites = {(f.site, f.phase) for f in findings if f.kind == "non-finite"}
    refuted, undecided = 0, 0
    for p in paths:
        graph = p.trace.graph
        open_ = [i for i in p.proof.open if (graph.nodes[i].site, graph.nodes[i].phase) not in refuted_sites]
        undecided += len(_applications(graph, open_))
    refuted = len(refuted_sites)
    return {"total": total, "proven": max(total - refuted - undecided, 0), "refuted": refuted, "undecided": undecided}


def _applications(graph: Graph, nodes: Sequence[int] | range) -> set[int]:
    alive = live(graph)
    return {graph.nodes[i].source for i in nodes if alive[i] and graph.nodes[i].op not in ("const", "input")}


def dtype_of(domains: Mapping[str, Domain]) -> str:
    """The float dtype of the inputs, the narrowest first; float32 if there is none."""
    names = [d.dtype for d in domains.values() if d.format.is_float]
    return min(names, key=lambda n: ("float16", "bfloat16", "float32", "float64").index(n)) if names else "float32"
