"""From a failing run to its cause: the first value that went wrong, the expression, the reason, the way to the output.

Works on a recorded run with all values. A non-finite value is followed back from the output to the operation that made it
out of finite ones. Infinities that the program put there on purpose (a mask of -inf) are not followed: the operation that turns
them into NaN is the origin. Where the loss itself is finite, only the backward half is walked: there the failure begins.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.evaluate import evaluate, fill
from whynan.analysis.finding import Step
from whynan.ir.dtype import Array, spacing
from whynan.ir.frontend import Trace
from whynan.ir.graph import BACKWARD, FORWARD, Graph, Node, call_of
from whynan.ir.where import Site
from whynan.ops._opdef import OPS

# data operands of operations that choose between values: what they do not choose is hidden
CHOOSERS = {"where": (1, 2), "gather": (0,), "index": (0,), "minimum": (0, 1), "maximum": (0, 1), "clamp": (0,), "nan_to_num": (0,), "amax": (0,), "amin": (0,), "masked_select": (0,)}
PLUMBING = frozenset({"reshape", "permute", "expand", "cast", "const", "slice", "concat"})
OUT_OF_DOMAIN = frozenset({"log-of-negative", "sqrt-of-negative", "inverse-trig-domain", "pow-domain"})
AT_ZERO = frozenset({"log-of-zero", "div-by-zero", "zero-over-zero", "sqrt-grad-at-zero", "norm-grad-at-zero", "pow-grad-at-zero", "inverse-trig-grad-at-edge", "inverse-trig-domain", "masked-branch-gradient", "zero-times-inf", "underflow-then-divide"})
# how a derivative that is infinite at one point fails there
SINGULAR = frozenset({"", "div-by-zero", "zero-over-zero", "zero-times-inf", "log-of-zero", "other-domain-error", "inf-over-inf"})


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


def blame(trace: Trace) -> Blame | None:
    """Explain the first failing output of a recorded run: the loss before the gradients. None if every output is finite."""
    scene = _Scene(trace)
    for output in sorted(trace.graph.outputs, key=lambda o: o.kind != "loss"):
        if scene.bad(output.node):
            return _explain(scene, output.node, output.name)
    return None


class _Scene:
    """The recorded run with its values, and the same run in float64."""

    def __init__(self, trace: Trace) -> None:
        self.graph: Graph = trace.graph
        self.values = fill(trace.graph, trace.values)
        self._bad: dict[int, bool] = {}
        self._meant: dict[int, bool] = {}
        self._wide: list[Array | None] | None = None
        self.loss_finite = not any(self.bad(o.node) for o in self.graph.outputs if o.kind == "loss")

    @property
    def wide(self) -> list[Array | None]:
        """All values without rounding to the program's formats."""
        if self._wide is None:
            inputs = {name: self.values[i] for name, i in self.graph.inputs.items()}
            self._wide = evaluate(self.graph, {k: v for k, v in inputs.items() if v is not None}, wide=True)
        return self._wide

    def value(self, i: int) -> Array | None:
        """The value of node i as float64, or None if it was never seen."""
        v = self.values[i]
        return None if v is None else v.astype(np.float64)

    def bad(self, i: int) -> bool:
        """Whether the value holds NaN or an infinity."""
        if i not in self._bad:
            v = self.value(i)
            self._bad[i] = v is not None and not np.isfinite(v).all()
        return self._bad[i]

    def meant(self, i: int) -> bool:
        """Whether all that is non-finite in the value are infinities that a constant brought in."""
        if i not in self._meant:
            self._meant[i] = False
            node, value = self.graph.nodes[i], self.value(i)
            if value is not None and self.bad(i) and not np.isnan(value).any():
                sources = [j for j in node.inputs if self.bad(j)]
                self._meant[i] = node.op == "const" or (bool(sources) and all(self.meant(j) for j in sources))
        return self._meant[i]

    def derived(self, node: Node) -> list[Node]:
        """The forward nodes whose derivative a backward node computes (none for a forward node)."""
        if node.phase == FORWARD:
            return []
        return [n for n in self.graph.nodes if n.phase == FORWARD and (n.source == node.derives if node.derives >= 0 else n.site == node.site)]

    def followed(self, node: Node, j: int) -> bool:
        """Whether the search for the origin goes on from a node to its input j."""
        if not self.bad(j) or self.meant(j):
            return False
        return self.graph.nodes[j].phase == BACKWARD or not (self.loss_finite and node.phase == BACKWARD)


def _explain(scene: _Scene, output: int, name: str) -> Blame:
    origin, parents = _origin(scene, output)
    node = scene.graph.nodes[origin]
    op = _reported_op(scene, node)
    cause, related = _cause(scene, node)
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
    )


def _origin(scene: _Scene, output: int) -> tuple[int, dict[int, int]]:
    """The earliest node that made a non-finite value out of finite ones, and for each visited node the one it was reached from."""
    parents: dict[int, int] = {output: -1}
    stack, origins = [output], []
    while stack:
        node = scene.graph.nodes[stack.pop()]
        guilty = [j for j in _chosen(scene, node) if scene.followed(node, j)]
        if not guilty:
            origins.append(node.id)
        for j in guilty:
            if j not in parents:
                parents[j] = node.id
                stack.append(j)
    return min(origins), parents


def _chosen(scene: _Scene, node: Node) -> Sequence[int]:
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


# ---------------------------------------------------------------- the cause


def _cause(scene: _Scene, node: Node) -> tuple[str, tuple[str, ...]]:
    """The one cause that a person would fix, and related ones."""
    own = _danger(scene, node)
    related = [own] if own else []
    cause = own or "other-domain-error"
    if node.phase == BACKWARD:
        cause, more = _backward_cause(scene, node, cause)
        related += more
    related += _background(scene, node)
    if cause in ("zero-over-zero", "div-by-zero") and "zero-variance" in related:
        related.append(cause)
        cause = "zero-variance"
    if cause in OUT_OF_DOMAIN and (_only_by_rounding(scene, node) or _barely_outside(scene, node)):
        related.append(cause)
        cause = "rounding-out-of-domain"
    if cause == "inf-minus-inf" and _subtracts_maximum(scene, node):
        related.append(cause)
        cause = "all-masked-softmax"
    if (cause in AT_ZERO or set(related) & AT_ZERO) and _lost_epsilon(scene, node) is not None:
        related.append(cause)
        cause = "epsilon-rounds-away"
    return cause, tuple(dict.fromkeys(c for c in related if c != cause))


def _danger(scene: _Scene, node: Node) -> str:
    """The danger of the op's record that applies at a non-finite element."""
    record, out = OPS.get(node.op), scene.value(node.id)
    inputs = [v for j in node.inputs if (v := scene.values[j]) is not None]
    if node.op == "input":
        return "nonfinite-input"
    if record is None or out is None or len(inputs) != len(node.inputs):
        return ""
    call = call_of(scene.graph, node)
    wrong = ~np.isfinite(out)
    for danger in record.dangers:
        with np.errstate(all="ignore"):
            mask = np.asarray(danger.when(call, *[_plain(v) for v in inputs]), bool)
        try:
            hit = bool((np.broadcast_to(mask, out.shape) & wrong).any())
        except ValueError:  # the mask is laid out like an input: any element counts
            hit = bool(mask.any())
        if hit:
            return danger.cause
    return ""


def _plain(v: Array) -> Array:
    """Half-precision arrays as float32: NumPy's functions know them all."""
    return v.astype(np.float32) if v.dtype.itemsize == 2 and v.dtype.kind not in "iu" else v


def _backward_cause(scene: _Scene, node: Node, own: str) -> tuple[str, list[str]]:
    """Name a failing derivative after the forward op, or the `where` trap if what failed had been masked."""
    group = scene.derived(node)
    steep = [OPS[_written(n)].steep for n in group if _written(n) in OPS and OPS[_written(n)].steep] if own in SINGULAR else []
    if steep and any(n.op == "var" for n in group):
        steep.append("zero-variance")
    specific = steep[-1] if steep else own
    related = [c for c in [*steep, own] if c != specific]
    hidden = [c for n in group if scene.bad(n.id) for c in [_danger(scene, n), *_origin_causes(scene, n)] if c]
    if group and _masked(scene, node, group, bool(hidden)):
        return "masked-branch-gradient", [specific, *related, *hidden]
    return specific, [*related, *hidden]


def _origin_causes(scene: _Scene, node: Node) -> list[str]:
    """Causes of the forward value that is non-finite (and hidden from the loss)."""
    stack, seen, out = [node.id], set(), []
    while stack:
        n = scene.graph.nodes[stack.pop()]
        guilty = [j for j in n.inputs if scene.bad(j) and not scene.meant(j)]
        if not guilty:
            cause = _danger(scene, n)
            out += [cause] if cause else []
            if cause == "inf-minus-inf" and _subtracts_maximum(scene, n):
                out.append("all-masked-softmax")
            if _lost_epsilon(scene, n) is not None:
                out.append("epsilon-rounds-away")
        fresh = [j for j in guilty if j not in seen]
        seen.update(fresh)
        stack += fresh
    return out


def _masked(scene: _Scene, node: Node, group: Sequence[Node], hidden: bool) -> bool:
    """Whether a choice stands between the forward value and the loss, and no gradient was to come back at the failing element."""
    if not _zero_cotangent(scene, node):
        return False
    users = scene.graph.users()
    stack, seen = [n.id for n in group], set()
    while stack:
        i = stack.pop()
        for u in users[i]:
            user = scene.graph.nodes[u]
            if user.phase != FORWARD or u in seen:
                continue
            seen.add(u)
            if user.op in CHOOSERS and i in [user.inputs[k] for k in CHOOSERS[user.op]] and (user.op == "where" or hidden):
                return True
            stack.append(u)
    return False


def _zero_cotangent(scene: _Scene, node: Node) -> bool:
    """Whether the failing element came from a zero gradient: 0/0 or 0*inf."""
    out = scene.value(node.id)
    if out is None or not np.isnan(out).any():
        return False
    for j in node.inputs:
        v = scene.value(j)
        if v is None:
            continue
        try:
            if (np.isnan(out) & (np.broadcast_to(v, out.shape) == 0)).any():
                return True
        except ValueError:
            continue
    return False


def _background(scene: _Scene, node: Node) -> list[str]:
    """What else lies behind: a variance of equal values, a divisor that underflowed."""
    out: list[str] = []
    if node.op == "div" and len(node.inputs) == 2:
        divisor = node.inputs[1]
        if any(scene.graph.nodes[i].op == "var" for i in _ancestors(scene.graph, divisor, 6)):
            out.append("zero-variance")
        here, exact = scene.value(divisor), scene.wide[divisor] if node.phase == FORWARD else None
        if here is not None and exact is not None and exact.shape == here.shape and ((here == 0) & (exact != 0)).any():
            out.append("underflow-then-divide")
    return out


def _ancestors(graph: Graph, i: int, most: int) -> list[int]:
    """A node and what it is computed from, a few steps back."""
    out, frontier = [i], [i]
    for _ in range(most):
        frontier = [j for k in frontier for j in graph.nodes[k].inputs if j not in out]
        out += frontier
    return out


def _only_by_rounding(scene: _Scene, node: Node) -> bool:
    """Whether the same operation is fine when nothing is rounded: only rounding pushed its input out of the domain."""
    here, exact = scene.value(node.id), scene.wide[node.id]
    if here is None or exact is None or exact.shape != here.shape:
        return False
    return bool((np.isnan(here) & np.isfinite(exact)).any())


def _barely_outside(scene: _Scene, node: Node) -> bool:
    """Whether what leaves [-1, 1] does so by a few ulps."""
    x = scene.value(node.inputs[0])
    if node.op not in ("acos", "asin", "atanh") or x is None:
        return False
    beyond = np.abs(x[np.abs(x) > 1])
    return bool(beyond.size and beyond.min() <= 1 + 8 * node.format.eps)


def _subtracts_maximum(scene: _Scene, node: Node) -> bool:
    return node.op == "sub" and any(scene.graph.nodes[i].op == "amax" for i in _ancestors(scene.graph, node.inputs[1], 3))


# ---------------------------------------------------------------- epsilons that round away


@dataclass(frozen=True, slots=True)
class Lost:
    """A small constant that changed nothing: `text` says which and why."""

    text: str


def _lost_epsilon(scene: _Scene, node: Node) -> Lost | None:
    """A constant on the way to the failing operation that was meant to keep it away from the edge and rounded away."""
    nodes = scene.graph.nodes
    frontier = [node.id, *(n.id for n in scene.derived(node))]
    seen = set(frontier)
    for _ in range(12):
        for i in frontier:
            found = _lost_here(scene, nodes[i])
            if found is not None:
                return found
        frontier = sorted({j for i in frontier for j in nodes[i].inputs} - seen)
        seen.update(frontier)
    return None


def _lost_here(scene: _Scene, node: Node) -> Lost | None:
    fmt = node.format
    for key, rounded in (("low_written", node.attrs.get("low")), ("high_written", node.attrs.get("high")), ("written", node.attrs.get("value"))):
        written = node.attrs.get(key)
        if isinstance(written, float) and rounded is not None and written not in (0.0, 1.0, -1.0):
            kept = float(np.asarray(rounded, np.float64).reshape(-1)[0])
            if kept in (0.0, 1.0, -1.0) and kept != written and (kept != 0.0 or written > 0):
                return Lost(_rounds_to(fmt.name, written, kept, spacing(fmt, 1.0), fmt.smallest))
    if node.op in ("add", "sub") and len(node.inputs) == 2:
        return _absorbed(scene, node)
    return None


def _absorbed(scene: _Scene, node: Node) -> Lost | None:
    """x + c == x for a small constant c at an element where x is not 0."""
    fmt, out = node.format, scene.value(node.id)
    for constant, other in (node.inputs, node.inputs[::-1]):
        c, x = scene.value(constant), scene.value(other)
        if scene.graph.nodes[constant].op != "const" or c is None or x is None or out is None or c.size != 1:
            continue
        small = float(c.reshape(-1)[0])
        if not 0 < abs(small) <= 1e-3:
            continue
        same = (np.broadcast_to(x, out.shape) == out) & (out != 0) & np.isfinite(out)
        if same.any() and np.abs(out[same]).min() <= 2:
            near = float(np.abs(out[same]).reshape(-1)[0])
            return Lost(
                f"{small:.3g} added to {near:.6g} changes nothing in {fmt.name}: "
                f"numbers there are {spacing(fmt, near):.3g} apart."
            )
    return None


def _rounds_to(name: str, written: float, kept: float, gap: float, smallest: float) -> str:
    if kept == 0:
        return f"{written:.3g} rounds to 0 in {name}, whose smallest positive number is {smallest:.3g}."
    return f"{written!r} rounds to {kept:g} in {name}: the largest number below 1 is 1 - {gap / 2:.3g}."


# ---------------------------------------------------------------- words


def _reported_op(scene: _Scene, node: Node) -> str:
    """The op's own name; for a derivative that of the forward op."""
    if node.phase == FORWARD:
        return _written(node)
    group = [n for n in scene.derived(node) if n.op not in PLUMBING]
    steep = [n for n in group if n.op in OPS and OPS[n.op].steep]
    return _written((steep or group)[-1]) if group else node.op


def _written(node: Node) -> str:
    """The op as the source has it: x ** 0.5 is computed as a square root, but it is a power."""
    return str(node.attrs.get("written_as", node.op))


def _message(scene: _Scene, node: Node, op: str, cause: str) -> str:
    """One or two sentences: what the operation got, what it gave, and why."""
    got, gave = _element(scene, node)
    what = f"{node.op}({got}) gives {gave}" if got else f"{node.op} gives {gave}"
    if node.phase == BACKWARD:
        what = f"the derivative of {op} computes {what}"
    record = OPS.get(node.op)
    because = next((d.because for d in record.dangers if d.cause == _danger(scene, node)), "") if record else ""
    lost = _lost_epsilon(scene, node) if cause == "epsilon-rounds-away" else None
    parts = [what + (f": {because}" if because else "."), lost.text if lost else ""]
    return " ".join(p for p in parts if p)


def _element(scene: _Scene, node: Node) -> tuple[str, str]:
    """The operands and the result at the first failing element, in words."""
    out = scene.value(node.id)
    if out is None or not out.size:
        return "", "a value of no elements"
    where = np.unravel_index(int(np.argmin(np.isfinite(out))), out.shape)
    operands = []
    for j in node.inputs:
        v = scene.value(j)
        try:
            operands.append(number(float(np.broadcast_to(v, out.shape)[where])) if v is not None else "?")
        except ValueError:
            operands.append(summary(v) if v is not None else "?")
    return ", ".join(operands), number(float(out[where]))


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


def _chain(scene: _Scene, origin: int, parents: dict[int, int], most: int = 8) -> tuple[Step, ...]:
    """The steps from the origin to the output; plumbing is left out."""
    path, i = [], origin
    while i >= 0:
        path.append(i)
        i = parents[i]
    kept = [i for k, i in enumerate(path) if k == 0 or scene.graph.nodes[i].op not in PLUMBING]
    if len(kept) > most:
        kept = [*kept[: most - 1], kept[-1]]
    return tuple(_step(scene, scene.graph.nodes[i], first=k == 0) for k, i in enumerate(kept))


def _step(scene: _Scene, node: Node, first: bool) -> Step:
    out = scene.value(node.id)
    if first:
        got, gave = _element(scene, node)
        return Step(node.op, node.site, node.phase, (got,) if got else (), gave)
    inputs = tuple(summary(v) if (v := scene.value(j)) is not None else "?" for j in node.inputs)
    return Step(node.op, node.site, node.phase, inputs, summary(out) if out is not None else "?")

