"""From a recorded step that failed to what an incident says of it: finding, class of the cause, samples, values. Knows no framework."""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from whynan.analysis.blame import Blame, blame
from whynan.analysis.finding import ERROR, Finding
from whynan.analysis.scene import Scene
from whynan.ir.dtype import Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import BACKWARD
from whynan.watching.record import BAD_DATA, CUSTOM_BACKWARD, OPERATION, OVERFLOW, Element

MOST_ELEMENTS = 6
MOST_SAMPLES = 1000

_OVERFLOWS = frozenset("exp square product sum cast".split())


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """What the recording of a failing step shows. `why.node` is a node of `trace.graph`."""

    trace: Trace
    why: Blame
    finding: Finding
    kind: str
    samples: tuple[int, ...]
    elements: tuple[Element, ...]


def examined(trace: Trace, mode: str, given: Mapping[str, Array], batch: int) -> Examined | None:
    """Explain a recorded step; None if every output of it is finite.

    `given` are the step's data by argument name, `batch` is the length of their first axis where that counts samples, else 0.
    """
    bad = tuple(_nonfinite(given))
    why = blame(trace)
    if why is None:
        return None
    scene = Scene(trace)
    kind = CUSTOM_BACKWARD if _handwritten(trace, why) else kind_of(why, bool(bad))
    if bad and kind != BAD_DATA and _from_data(scene, why, given):
        kind = BAD_DATA
    if kind == BAD_DATA and batch:
        samples = tuple(sorted({e.index[0] for e in bad if e.index and len(given[e.name]) == batch}))
    else:
        samples = _samples(scene, why, batch)
    elements = bad if kind == BAD_DATA else tuple(_beside(scene, why, given, batch, samples))
    return Examined(trace, why, finding_of(why, mode), kind, samples[:MOST_SAMPLES], elements[:MOST_ELEMENTS])


def finding_of(why: Blame, mode: str) -> Finding:
    """A blame as the finding of a report."""
    return Finding(
        id="",
        kind="non-finite",
        severity=ERROR,
        cause=why.cause,
        message=why.message,
        op=why.op,
        phase=why.phase,
        site=why.site,
        modes=(mode,),
        related=why.related,
        chain=why.chain,
    )


def kind_of(why: Blame, bad_data: bool) -> str:
    """The class of a cause. Data count only where the failure comes from them: a NaN that a mask removes is no cause."""
    if bad_data and why.cause == "nonfinite-input":
        return BAD_DATA
    if why.cause == "custom-gradient-wrong":
        return CUSTOM_BACKWARD
    return OVERFLOW if why.cause.removesuffix("-overflow") in _OVERFLOWS else OPERATION


def _handwritten(trace: Trace, why: Blame) -> bool:
    """Whether the failure arose in a backward of the user's own: there, or in the derivative of an expression that has one."""
    if why.phase != BACKWARD or why.site is None:
        return False
    return why.site in trace.graph.handwritten or not any(n.site == why.site for n in trace.graph.nodes if n.phase != BACKWARD)


def _from_data(scene: Scene, why: Blame, given: Mapping[str, Array]) -> bool:
    """Whether what the blamed operation got was non-finite already because of the data: a gradient can be the first that shows it."""
    data = {i for name, i in scene.graph.inputs.items() if name in given}
    stack, seen = [why.node], {why.node}
    while stack:
        node = scene.graph.nodes[stack.pop()]
        if node.id in data:
            return True
        found = [j for j in node.inputs if j not in seen and scene.bad(j)]
        seen.update(found)
        stack += found
    return False


def _nonfinite(given: Mapping[str, Array]) -> Iterator[Element]:
    """The data's elements that are not finite, the first of each sample first."""
    for name, values in given.items():
        if values.dtype.kind in "iub":
            continue
        wide = values.astype(np.float64)
        for index in np.argwhere(~np.isfinite(wide))[:MOST_SAMPLES]:
            where = tuple(int(k) for k in index)
            yield Element(name, where, float(wide[where]))


def _samples(scene: Scene, why: Blame, batch: int) -> tuple[int, ...]:
    """The batch indices at which the blamed operation's result, or what it was given, or what was made of it is not finite."""
    if not batch:
        return ()
    near = (why.node, *scene.graph.nodes[why.node].inputs, *_made_of(scene, why.node))
    return next((found for i in near if (found := _rows(scene.value(i), batch)) is not None), ())


def _made_of(scene: Scene, origin: int) -> Iterator[int]:
    """The nodes that are computed from one, as long as they are not finite: nearest first."""
    reached = {origin}
    for node in scene.graph.nodes[origin + 1 :]:
        if reached.intersection(node.inputs) and scene.bad(node.id):
            reached.add(node.id)
            yield node.id


def _rows(values: Array | None, batch: int) -> tuple[int, ...] | None:
    """The first-axis indices with non-finite elements; None if the first axis is not the batch or all is finite there."""
    if values is None or not values.ndim or values.shape[0] != batch:
        return None
    wrong = ~np.isfinite(values.astype(np.float64)).reshape(batch, -1)
    return tuple(int(i) for i in np.flatnonzero(wrong.any(axis=1))) if wrong.any() else None


def _beside(scene: Scene, why: Blame, given: Mapping[str, Array], batch: int, samples: Iterable[int]) -> Iterator[Element]:
    """What the data have where the operation failed: the element with the same index, or the sample's only value."""
    for sample in list(samples)[:3]:
        index = _index_in(scene.value(why.node), sample)
        for name, values in given.items():
            if not values.ndim or values.shape[0] != batch:
                continue
            where = next((i for i in (index, index[: values.ndim], (sample,)) if len(i) == values.ndim and _inside(i, values)), None)
            if where is not None:
                yield Element(name, where, float(values[where]))


def _index_in(values: Array | None, sample: int) -> tuple[int, ...]:
    """The index of the sample's first non-finite element."""
    if values is None or not values.ndim or sample >= values.shape[0]:
        return (sample,)
    row = ~np.isfinite(values[sample].astype(np.float64))
    return (sample, *(int(k) for k in np.unravel_index(int(np.argmax(row)), row.shape))) if row.ndim else (sample,)


def _inside(index: tuple[int, ...], values: Array) -> bool:
    return all(0 <= i < n for i, n in zip(index, values.shape, strict=True))
