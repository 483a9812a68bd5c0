"""From a failing run to its cause: the first value that went wrong, the expression, the reason, the way to the output.

Works on a recorded run with all values. A non-finite value is followed back from the output to the operation that made it
out of finite ones. Infinities that the program put there on purpose (a mask of -inf) are not followed: the operation that turns
them into NaN is the origin. Where the loss itself is finite, only the backward half is walked: there the failure begins,
unless the derivative is of an expression that got NaN already and what made that is asked for.
"""

from collections.abc import Sequence, Set
from dataclasses import dataclass

import numpy as np

from whynan.analysis.causes import cause_of, danger_of, inner_derivative, lost_epsilon
from whynan.analysis.finding import ERROR, Finding, Step, Witness
from whynan.analysis.scene import Scene, written
from whynan.analysis.unseen import explicable
from whynan.ir.dtype import Array
from whynan.ir.frontend import Trace
from whynan.ir.graph import FORWARD, Node
from whynan.ir.where import Site
from whynan.ops._opdef import OPS

_HUGE = 2.0**16  # what layers may make of a format's largest number
PLUMBING = frozenset({"reshape", "permute", "expand", "cast", "const", "slice", "concat", "either", "fma"})


@dataclass(frozen=True, slots=True, eq=False)
class Blame:
    """The first non-finite value of a failing run: where it arose, why, and how it travelled to the output `output`."""

    node: int
    op: str
    phase: str
    site: Site | None
    cause: str
    related: tuple[str, ...]
    message: str
    chain: tuple[Step, ...]
    output: str
    element: tuple[int, ...]  # the first failing element of the node's value


def finding_of(why: Blame, mode: str, witness: Witness | None = None) -> Finding:
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
        witness=witness,
    )


def blame(trace: Trace, hidden: bool = False, masks: Set[int] = frozenset()) -> Blame | None:
    """Explain the first failing output of a recorded run: the loss before the gradients. None if every output is finite.

    `hidden` asks for what the forward half has made that the loss does not show, where a derivative fails because of it. `masks` are
    inputs, by their node, whose -inf is there on purpose.
    """
    scene = Scene(trace, masks)
    for output in sorted(trace.graph.outputs, key=lambda o: o.kind != "loss"):
        if scene.bad(output.node):
            plausible = explicable(trace, output.node)
            return _explain(scene if plausible is trace else Scene(plausible, masks), output.node, output.name, hidden)
    return None


def _explain(scene: Scene, output: int, name: str, hidden: bool) -> Blame:
    origin, parents = _origin(scene, output, hidden)
    node = scene.graph.nodes[origin]
    op = _reported_op(scene, node)
    cause, related = cause_of(scene, node)
    return Blame(
        origin,
        op,
        node.phase,
        node.site,
        cause,
        related,
        _message(scene, node, op, cause),
        _chain(scene, origin, parents),
        name,
        _first_failing(scene, node),
    )


def _first_failing(scene: Scene, node: Node) -> tuple[int, ...]:
    """The index of the first element that failed."""
    wrong = scene.wrong(node.id)
    if wrong is None or not wrong.size:
        return ()
    return tuple(int(k) for k in np.unravel_index(int(np.argmax(wrong)), wrong.shape))


def _origin(scene: Scene, output: int, hidden: bool) -> tuple[int, dict[int, int]]:
    """The earliest node that made a non-finite value out of finite ones, and for each visited node the one it was reached from."""
    parents: dict[int, int] = {output: -1}
    stack, origins = [output], []
    while stack:
        node = scene.graph.nodes[stack.pop()]
        guilty = [j for j in _chosen(scene, node) if scene.followed(node, j)]
        if not guilty and scene.meant(node.id):  # a mask's infinity has come through as it is: back to where it was put in
            guilty = [j for j in node.inputs if scene.bad(j) and scene.graph.nodes[j].op != "const"]
        guilty = guilty or _hidden(scene, node) or (_passed_on(scene, node) if hidden else [])
        if not guilty:
            origins.append(node.id)
        for j in guilty:
            if j not in parents:
                parents[j] = node.id
                stack.append(j)
    return min(origins), parents


def _passed_on(scene: Scene, node: Node) -> list[int]:
    """What was not finite when an expression got it whose derivative this is: something masks it from the loss, but not from this."""
    group = scene.derived(node)
    got = {j for n in group for j in n.inputs if scene.bad(j) and not scene.meant(j)} - {n.id for n in group}
    return sorted(got)


def _hidden(scene: Scene, node: Node) -> list[int]:
    """The non-finite values behind a node's finite inputs: some kernels take the largest of NaN for the lowest number of all.

    The way back to where that number came from leads over numbers of its size.
    """
    found: list[int] = []
    stack, seen = list(node.inputs) if node.phase == FORWARD else [], set()
    while stack:
        i = stack.pop()
        value, n = scene.value(i), scene.graph.nodes[i]
        if i in seen or value is None or not value.size or not n.format.is_float or scene.bad(i):
            continue
        seen.add(i)
        size = float(np.abs(value).max())
        behind = [j for j in n.inputs if scene.followed(n, j)] if size == n.format.max else []
        found += behind
        stack += n.inputs if size >= n.format.max / _HUGE and not behind else ()
    return found


def _chosen(scene: Scene, node: Node) -> Sequence[int]:
    """The inputs whose elements reach the result: for `where` only the branch that was taken."""
    if node.op != "where":
        return node.inputs
    condition, a, b = node.inputs
    taken, left, right = scene.values[condition], scene.value(a), scene.value(b)
    if taken is None or left is None or right is None:
        return node.inputs
    taken = taken.astype(bool)
    out = []
    if (taken & ~np.isfinite(left)).any():
        out.append(a)
    if (~taken & ~np.isfinite(right)).any():
        out.append(b)
    return out or (a, b)


# ---------------------------------------------------------------- words


def _reported_op(scene: Scene, node: Node) -> str:
    """The op's own name; for a derivative that of the forward op."""
    if node.phase == FORWARD:
        return written(node)
    # code that the user wrote for the backward phase has a site of its own
    group = [n for n in scene.derived(node) if n.op not in PLUMBING and n.site == node.site]
    steep = [n for n in group if n.op in OPS and OPS[n.op].steep]
    if steep:
        return written(steep[-1])
    return written(group[0]) if len(group) == 1 else node.op


def _message(scene: Scene, node: Node, op: str, cause: str) -> str:
    """One or two sentences: what the operation got, what it gave, and why."""
    got, gave = _element(scene, node)
    call = f"{node.op}({', '.join(got)})" if got else op
    derivative = node.phase != FORWARD or inner_derivative(node)
    what = f"in the derivative of {op}, {call} gives {gave}" if derivative else f"{call} gives {gave}"
    record = OPS.get(node.op)
    because = next((d.because for d in record.dangers if d.cause == danger_of(scene, node)), "") if record else ""
    lost = lost_epsilon(scene, node) if cause == "epsilon-rounds-away" else None
    parts = [what + (f": {because}" if because else "."), lost.text if lost else ""]
    return " ".join(p for p in parts if p)


def _element(scene: Scene, node: Node) -> tuple[tuple[str, ...], str]:
    """The operands and the result at the first failing element, in words."""
    out = scene.value(node.id)
    if out is None or not out.size:
        return (), "a value of no elements"
    where = _first_failing(scene, node)
    operands = []
    for j in node.inputs:
        v = scene.value(j)
        try:
            operands.append(number(float(np.broadcast_to(v, out.shape)[where])) if v is not None else "?")
        except ValueError:
            operands.append(summary(v) if v is not None else "?")
    return tuple(operands), number(float(out[where]))


def number(x: float) -> str:
    """A number as a reader wants it: short, exact where it is short."""
    return f"{x:.9g}" if np.isfinite(x) else str(x).replace("nan", "NaN")


def summary(v: Array) -> str:
    """An array in a few words: its value if it is one number, else its range and what is wrong in it."""
    x = v.astype(np.float64)
    if x.size == 0:
        return "no elements"
    if x.size == 1 or (x == x.reshape(-1)[0]).all():
        return number(float(x.reshape(-1)[0]))
    wrong = ~np.isfinite(x)
    if wrong.any():
        kinds = [f"{int(m.sum())} {t}" for m, t in ((np.isnan(x), "NaN"), (x == np.inf, "inf"), (x == -np.inf, "-inf")) if m.any()]
        return f"{' and '.join(kinds)} of {x.size} elements"
    return f"{number(float(x.min()))} to {number(float(x.max()))}"


def _chain(scene: Scene, origin: int, parents: dict[int, int], most: int = 8) -> tuple[Step, ...]:
    """The steps from the origin to the output; plumbing is left out."""
    path, i = [], origin
    while i >= 0:
        path.append(i)
        i = parents[i]
    kept = [i for k, i in enumerate(path) if k == 0 or scene.graph.nodes[i].op not in PLUMBING]
    if len(kept) > most:
        kept = [*kept[: most - 1], kept[-1]]
    return tuple(_step(scene, scene.graph.nodes[i], first=k == 0) for k, i in enumerate(kept))


def _step(scene: Scene, node: Node, first: bool) -> Step:
    out = scene.value(node.id)
    if first:
        got, gave = _element(scene, node)
        return Step(node.op, node.site, node.phase, got, gave)
    inputs = tuple(summary(v) if (v := scene.value(j)) is not None else "?" for j in node.inputs)
    return Step(node.op, node.site, node.phase, inputs, summary(out) if out is not None else "?")
