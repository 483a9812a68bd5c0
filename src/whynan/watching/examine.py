"""From a recorded step that failed to what an incident says of it: finding, class of the cause, samples, values. Knows no framework."""

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, replace

import numpy as np

from whynan.analysis.blame import Blame, blame, finding_of, number
from whynan.analysis.evaluate import fill
from whynan.analysis.finding import Finding
from whynan.analysis.scene import Scene
from whynan.ir.dtype import Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import BACKWARD
from whynan.watching.culprits import Culprits
from whynan.watching.record import BAD_DATA, BAD_STATE, CUSTOM_BACKWARD, OPERATION, OVERFLOW, Element

MOST_ELEMENTS = 6
MOST_SAMPLES = 1000

_ALL_MASKED = "all-masked-softmax"
_OVERFLOWS = frozenset("exp square product sum cast".split())
_READS = frozenset("gather index take_flat".split())
_FILL = "an index lies outside of the array, and JAX fills in NaN for what it would read there (mode='fill')."


@dataclass(frozen=True, slots=True, eq=False)
class Examined:
    """What the recording of a failing step shows. `why.node` is a node of `trace.graph`."""

    trace: Trace
    why: Blame
    finding: Finding
    kind: str
    samples: tuple[int, ...]
    elements: tuple[Element, ...]
    notes: tuple[str, ...] = ()


def examined(trace: Trace, mode: str, given: Mapping[str, Array], batch: int, axes: Mapping[str, int] | None = None) -> Examined | None:
    """Explain a recorded step; None if every output of it is finite.

    `given` are the step's data by argument name, `batch` is how many samples there are (0: unknown), `axes` say along which axis of each
    argument they lie: without it, along the first where that has as many entries.
    """
    trace = replace(trace, values=tuple(fill(trace.graph, trace.values)))  # those inside of compiled programs
    masks = {trace.graph.inputs[n]: n for n, a in given.items() if n in trace.graph.inputs and _is_mask(a)}
    scene, why = Scene(trace, masks.keys()), blame(trace, hidden=True, masks=masks.keys())
    if why is None:
        return None
    if scene.meant(why.node) or (why.cause != _ALL_MASKED and any(map(scene.meant, trace.graph.nodes[why.node].inputs))):
        masks, scene, why = {}, Scene(trace), blame(trace, hidden=True) or why  # what it hides has failed: it was no mask
    along = axes if axes is not None else {n: 0 for n, a in given.items() if batch and a.ndim and a.shape[0] == batch}
    seen = _classed(trace, scene, why, mode, given, along, masks.values())
    told = () if why.cause == _ALL_MASKED else masks.values()
    return replace(seen, notes=tuple(f"{name} has -inf where it masks, which is no failure" for name in told))


def _classed(
    trace: Trace, scene: Scene, why: Blame, mode: str, given: Mapping[str, Array], along: Mapping[str, int], masks: Collection[str]
) -> Examined:
    """The blame with its class, samples and values. Infinities of the masks do not count."""
    culprits = Culprits(scene, why, given, along)
    bad = tuple(e for e in _nonfinite(given) if e.name not in masks or e.value != -np.inf)
    broken = tuple(sorted({e.index[along[e.name]] for e in bad if e.name in along}))
    outside, own = _outside(trace, why), _handwritten(trace, why)
    read = not (trace.graph.nodes[why.node].inputs or outside or own)  # of the step's data, or from anywhere else
    if why.cause == "nonfinite-input" or read:
        name = next((n for n, i in scene.graph.inputs.items() if i == why.node), "")
        state = bool(name) and name not in given
        kind, elements = (BAD_STATE, _parameter(scene, why)) if state else (BAD_DATA, bad or _parameter(scene, why))
        why, samples = _entering(scene, why, given), broken or culprits.samples
        return Examined(trace, why, finding_of(why, mode), kind, samples[:MOST_SAMPLES], elements[:MOST_ELEMENTS])
    if outside:
        finding = replace(finding_of(why, mode), message=_FILL, op="gather")
        return Examined(trace, why, finding, BAD_DATA, culprits.samples[:MOST_SAMPLES], culprits.elements()[:MOST_ELEMENTS])
    kind = CUSTOM_BACKWARD if own else kind_of(why, bool(bad))
    if kind != BAD_DATA and bad and _from_data(scene, why, given):
        return Examined(trace, why, finding_of(why, mode), BAD_DATA, broken[:MOST_SAMPLES], bad[:MOST_ELEMENTS])
    return Examined(trace, why, finding_of(why, mode), kind, culprits.samples[:MOST_SAMPLES], culprits.elements()[:MOST_ELEMENTS])


def kind_of(why: Blame, bad_data: bool) -> str:
    """The class of a cause. Data count only where the failure comes from them: a NaN that a mask removes is no cause."""
    if bad_data and why.cause == "nonfinite-input":
        return BAD_DATA
    if why.cause == "custom-gradient-wrong":
        return CUSTOM_BACKWARD
    return OVERFLOW if why.cause.removesuffix("-overflow") in _OVERFLOWS else OPERATION


def _entering(scene: Scene, why: Blame, given: Mapping[str, Array]) -> Blame:
    """The blame of an input that is not finite, with the expression that it goes into and words for what it is."""
    value, node = scene.value(why.node), scene.graph.nodes[why.node]
    user = next((n for n in scene.graph.nodes[why.node + 1 :] if why.node in n.inputs and n.site is not None and scene.bad(n.id)), None)
    name = next((n for n, i in scene.graph.inputs.items() if i == why.node), str(node.attrs.get("name", "")))
    if value is None or user is None:
        return why
    place = f"[{', '.join(map(str, why.element))}]" if why.element else ""
    what = f"{name}{place}" if name else f"What this expression is given{f' (its element {place})' if place else ''}"
    left = "" if name in given or not name else " The last update, or a checkpoint, has left it so."
    message = f"{what} is {number(float(value[why.element]))} before anything is computed.{left}"
    return replace(why, cause="nonfinite-input", site=user.site, message=message)


def _parameter(scene: Scene, why: Blame) -> tuple[Element, ...]:
    """The element of a parameter that is not finite."""
    value = scene.value(why.node)
    name = next((n for n, i in scene.graph.inputs.items() if i == why.node), "")
    return (Element(name, why.element, float(value[why.element])),) if value is not None and name else ()


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
        found = [j for j in node.inputs if j not in seen and scene.bad(j) and not scene.meant(j)]
        seen.update(found)
        stack += found
    return False


def _outside(trace: Trace, why: Blame) -> bool:
    """Whether an array was read at an index outside of it, for which JAX puts in a constant: no function is outside its domain there."""
    node = trace.graph.nodes[why.node]
    return node.op == "const" and any(n.op in _READS for n in trace.graph.nodes if n.site == node.site)


def _is_mask(values: Array) -> bool:
    """Whether these are numbers to be added to scores: 0 where these count, -inf where not. A NaN in it is none of that."""
    if values.dtype.kind in "iub":
        return False
    wide = values.astype(np.float64)
    hidden = np.isneginf(wide)
    return bool(hidden.any() and (wide == 0).any() and (hidden | np.isnan(wide) | (wide == 0)).all())


def _nonfinite(given: Mapping[str, Array]) -> Iterator[Element]:
    """The data's elements that are not finite, the first of each sample first."""
    for name, values in given.items():
        if values.dtype.kind in "iub":
            continue
        wide = values.astype(np.float64)
        for index in np.argwhere(~np.isfinite(wide))[:MOST_SAMPLES]:
            where = tuple(int(k) for k in index)
            yield Element(name, where, float(wide[where]))
