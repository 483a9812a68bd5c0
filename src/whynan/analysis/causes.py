"""From the operation that failed to the one cause that a person would fix, and the related ones.

An op's own dangers come first. A failing derivative is named after the forward op; if what failed had been masked, it is the `where` trap.
Constants that were meant to keep a value away from the edge and rounded away are found on the way that leads to the operation.
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from whynan.analysis.scene import SUMMARIES, Scene, written
from whynan.ir.dtype import Array, spacing
from whynan.ir.graph import BACKWARD, FORWARD, Graph, Node, call_of
from whynan.ops._opdef import OPS

# data operands of operations that choose between values: what they do not choose is hidden
CHOOSERS = {
    "where": (1, 2),
    "gather": (0,),
    "index": (0,),
    "minimum": (0, 1),
    "maximum": (0, 1),
    "clamp": (0,),
    "nan_to_num": (0,),
    "amax": (0,),
    "amin": (0,),
    "masked_select": (0,),
}
OUT_OF_DOMAIN = frozenset({"log-of-negative", "sqrt-of-negative", "inverse-trig-domain", "pow-domain"})
# where the domains of functions that have one edge begin
EDGES = {"log": 0.0, "log2": 0.0, "log10": 0.0, "log1p": -1.0, "sqrt": 0.0, "rsqrt": 0.0, "acosh": 1.0}
# what a sum of exponentials of which all are masked ends in
EMPTY_ROW = frozenset({"inf-minus-inf", "log-of-zero", "zero-over-zero"})
# causes behind which an epsilon may have been lost
AT_EDGE = frozenset(
    {
        "log-of-zero",
        "div-by-zero",
        "zero-over-zero",
        "sqrt-grad-at-zero",
        "norm-grad-at-zero",
        "pow-grad-at-zero",
        "inverse-trig-grad-at-edge",
        "inverse-trig-domain",
        "masked-branch-gradient",
        "zero-times-inf",
        "underflow-then-divide",
    }
)
# functions whose derivative inside the loss (a gradient penalty, a residual of a differential equation) is named after them
SLOPED = ("sqrt", "log")
# how a derivative that is infinite at one point fails there
SINGULAR = frozenset({"", "div-by-zero", "zero-over-zero", "zero-times-inf", "log-of-zero", "other-domain-error", "inf-over-inf"})


def cause_of(scene: Scene, node: Node) -> tuple[str, tuple[str, ...]]:
    """The one cause that a person would fix, and related ones."""
    own = _named(node, danger_of(scene, node))
    related = [own] if own else []
    cause = own or "other-domain-error"
    if node.phase == BACKWARD:
        cause, more = _backward_cause(scene, node, cause)
        related += more
    elif own in SINGULAR and inner_derivative(node):
        cause = OPS[written(node)].steep
    related += _background(scene, node)
    if cause in ("zero-over-zero", "div-by-zero") and "zero-variance" in related:
        related.append(cause)
        cause = "zero-variance"
    if cause in ("zero-over-zero", "div-by-zero") and node.phase == FORWARD and _underflowed(scene, node):
        related.append(cause)
        cause = "underflow-then-divide"
    if cause in OUT_OF_DOMAIN and (_only_by_rounding(scene, node) or _barely_outside(scene, node)):
        related += [cause, "log-of-zero"] if cause == "log-of-negative" else [cause]
        cause = "rounding-out-of-domain"
    if cause == "div-by-zero" and written(node) == "pow":
        related.append("pow-domain")
    if (cause == "inf-minus-inf" and _subtracts_maximum(scene, node)) or (cause in EMPTY_ROW and _all_masked(scene, node)):
        related.append(cause)
        cause = "all-masked-softmax"
    if (cause in AT_EDGE or set(related) & AT_EDGE) and lost_epsilon(scene, node) is not None:
        related.append(cause)
        cause = "epsilon-rounds-away"
    return cause, tuple(dict.fromkeys(c for c in related if c != cause))


def _named(node: Node, danger: str) -> str:
    """The danger as the source's op names it: the square root inside of acos is negative outside of [-1, 1]."""
    record = OPS.get(written(node))
    infinite = danger in SINGULAR and record is not None and record.steep == "inverse-trig-grad-at-edge"  # atanh(1), by a logarithm
    if record is None or not (danger in OUT_OF_DOMAIN or (infinite and node.phase == FORWARD)):
        return danger
    return next((d.cause for d in record.dangers if d.cause in OUT_OF_DOMAIN), danger)


def inner_derivative(node: Node) -> bool:
    """Whether a forward operation computes the derivative of another one: the loss holds a gradient itself."""
    return node.phase == FORWARD and written(node) in SLOPED and written(node) != node.op


def danger_of(scene: Scene, node: Node) -> str:
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


def _backward_cause(scene: Scene, node: Node, own: str) -> tuple[str, list[str]]:
    """Name a failing derivative after the forward op, or the `where` trap if what failed had been masked."""
    group = scene.derived(node)
    steep = [OPS[written(n)].steep for n in group if written(n) in OPS and OPS[written(n)].steep] if own in SINGULAR else []
    if steep and any(n.op == "var" for n in group):
        steep.append("zero-variance")
    specific = steep[-1] if steep else own
    if specific == "other-domain-error":  # an infinity of the forward pass that the loss does not show
        specific = next((c for j in node.inputs if scene.bad(j) for c in _origin_causes(scene, scene.graph.nodes[j])), own)
    related = [c for c in [*steep, own] if c != specific]
    hidden = [c for n in group if scene.bad(n.id) for c in [danger_of(scene, n), *_origin_causes(scene, n)] if c]
    if group and _masked(scene, node, group, bool(hidden)):
        return "masked-branch-gradient", [specific, *related, *hidden]
    return specific, [*related, *hidden]


def _origin_causes(scene: Scene, node: Node) -> list[str]:
    """Causes of the forward value that is non-finite (and hidden from the loss)."""
    stack, seen, out = [node.id], set(), []
    while stack:
        n = scene.graph.nodes[stack.pop()]
        guilty = [j for j in n.inputs if scene.bad(j) and not scene.meant(j)]
        if not guilty:
            cause = danger_of(scene, n)
            out += [cause] if cause else []
            if cause == "inf-minus-inf" and _subtracts_maximum(scene, n):
                out.append("all-masked-softmax")
            if lost_epsilon(scene, n) is not None:
                out.append("epsilon-rounds-away")
        fresh = [j for j in guilty if j not in seen]
        seen.update(fresh)
        stack += fresh
    return out


def _masked(scene: Scene, node: Node, group: Sequence[Node], hidden: bool) -> bool:
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


def _zero_cotangent(scene: Scene, node: Node) -> bool:
    """Whether the failing element met a zero gradient: 0/0 or 0*inf, here or, for a factor by itself, where it is multiplied in."""
    return scene.value(node.id) is not None and (bool(_made_of_zero(scene, node)) or _meets_zero(scene, node))


def _made_of_zero(scene: Scene, node: Node) -> list[int]:
    """The operands that are 0 where the node's value is NaN."""
    out = scene.value(node.id)
    found: list[int] = []
    if out is None:
        return found
    for j in node.inputs:
        v = scene.value(j)
        if v is None:
            continue
        try:
            if (np.isnan(out) & (np.broadcast_to(v, out.shape) == 0)).any():
                found.append(j)
        except ValueError:
            continue
    return found


def _meets_zero(scene: Scene, node: Node, most: int = 6) -> bool:
    """Whether a factor of a derivative that is not finite is multiplied with a gradient of 0 a few steps on (JAX has factors apart)."""
    users = scene.graph.users()
    frontier = [node.id]
    for _ in range(most):
        after = [scene.graph.nodes[u] for i in frontier for u in users[i] if scene.bad(u)]
        if any(_of_a_choice(scene, j) for n in after if n.op in ("mul", "fma", "div") for j in _made_of_zero(scene, n)):
            return True
        frontier = [n.id for n in after]
    return False


def _of_a_choice(scene: Scene, i: int, most: int = 6) -> bool:
    """Whether a gradient with zeros in it has them from a choice on its way back: a `where`, or a mask that is multiplied in."""
    frontier = [i]
    for _ in range(most):
        nodes = [scene.graph.nodes[k] for k in frontier]
        if any(n.op == "where" or (n.op == "cast" and scene.graph.nodes[n.inputs[0]].format.kind == "bool") for n in nodes):
            return True
        frontier = [j for n in nodes if n.phase == BACKWARD for j in n.inputs if _has_zero(scene, j)]
    return False


def _has_zero(scene: Scene, i: int) -> bool:
    value = scene.value(i)
    return value is not None and bool((value == 0).any())


def _background(scene: Scene, node: Node) -> list[str]:
    """What else lies behind: a variance of equal values, a divisor that underflowed."""
    out: list[str] = []
    if node.op == "div" and len(node.inputs) == 2:
        divisor = node.inputs[1]
        if any(_is_variance(scene.graph, scene.graph.nodes[i]) for i in _ancestors(scene.graph, divisor, 6)):
            out.append("zero-variance")
        if _underflowed(scene, node):
            out.append("underflow-then-divide")
    return out


def _underflowed(scene: Scene, node: Node) -> bool:
    """Whether the divisor of a forward division is zero only because small numbers were lost."""
    if node.phase != FORWARD or node.op not in ("div", "reciprocal"):
        return False
    here, exact = scene.value(node.inputs[-1]), scene.wide[node.inputs[-1]]
    return here is not None and exact is not None and exact.shape == here.shape and bool(((here == 0) & (exact != 0)).any())


def _ancestors(graph: Graph, i: int, most: int) -> list[int]:
    """A node and what it is computed from, a few steps back; conversions are no steps."""
    out = frontier = _converted(graph, i)
    for _ in range(most):
        frontier = [c for k in frontier for j in graph.nodes[k].inputs for c in _converted(graph, j) if c not in out]
        out = out + frontier
    return out


def _converted(graph: Graph, i: int) -> list[int]:
    """A node and, if it converts a value to another format, that value too."""
    out = [i]
    while graph.nodes[out[-1]].op == "cast":
        out.append(graph.nodes[out[-1]].inputs[0])
    return out


def _only_by_rounding(scene: Scene, node: Node) -> bool:
    """Whether the same operation is fine when nothing is rounded: only rounding pushed its input out of the domain."""
    here, exact = scene.value(node.id), scene.wide[node.id]
    if not node.inputs or here is None or exact is None or exact.shape != here.shape:
        return False
    if (np.isnan(here) & np.isfinite(exact)).any():
        return True
    x, y = scene.value(node.inputs[0]), scene.wide[node.inputs[0]]
    if node.op not in EDGES or x is None or y is None or x.shape != y.shape:
        return False
    beyond = EDGES[node.op] - x  # float64 rounds too, but leaves far less of an overshoot that is rounding's
    return bool(((beyond > 0) & (EDGES[node.op] - y <= beyond * 2.0**-10)).any())


def _all_masked(scene: Scene, node: Node) -> bool:
    """Whether a sum of exponentials, computed by several operations, met a row of nothing but a mask's infinities."""
    if written(node) not in SUMMARIES or written(node) == node.op:
        return False
    return any(scene.bad(i) and scene.meant(i) for i in _ancestors(scene.graph, node.inputs[0], 8))


def _barely_outside(scene: Scene, node: Node) -> bool:
    """Whether what leaves [-1, 1] does so by a few ulps; of an acos that is computed by a root, 1 - x*x is seen: twice as far."""
    x = scene.value(node.inputs[0]) if node.inputs else None
    if x is None or written(node) not in ("acos", "asin", "atanh") or node.op not in ("acos", "asin", "atanh", "sqrt"):
        return False
    beyond = -x[x < 0] / 2 if node.op == "sqrt" else np.abs(x[np.abs(x) > 1]) - 1
    return bool(beyond.size and beyond.min() <= 8 * node.format.eps)


def _subtracts_maximum(scene: Scene, node: Node) -> bool:
    """Whether a value's own maximum is taken away from it."""
    return node.op == "sub" and _subtracts_own(scene.graph, node, ("amax",), 6)


def _subtracts_own(graph: Graph, node: Node, summaries: Sequence[str], most: int = 4) -> bool:
    """Whether what a subtraction takes away from a value is such a summary of that value, so many steps back: x - max(x), x - mean(x)."""
    value, taken = node.inputs
    itself = set(_ancestors(graph, value, 3))
    found = (graph.nodes[i] for i in _ancestors(graph, taken, most))
    return any(n.op in summaries and itself.intersection(c for j in n.inputs for c in _converted(graph, j)) for n in found)


def _is_variance(graph: Graph, node: Node) -> bool:
    """Whether a node is a variance, or the square of deviations from a mean of which one is computed."""
    squared = node.op == "square" or (node.op == "mul" and node.inputs[0] == node.inputs[1])
    deviation = graph.nodes[node.inputs[0]] if squared else None
    return node.op == "var" or (deviation is not None and deviation.op == "sub" and _subtracts_own(graph, deviation, ("mean", "sum")))


# ---------------------------------------------------------------- epsilons that round away


@dataclass(frozen=True, slots=True)
class Lost:
    """A small constant that changed nothing: `text` says which and why."""

    text: str


def lost_epsilon(scene: Scene, node: Node) -> Lost | None:
    """A constant on the way to the failing operation that was meant to keep it away from the edge and rounded away."""
    nodes = scene.graph.nodes
    found = _folded(scene, node)
    if found is not None:
        return found
    frontier = [node.id, *(n.id for n in scene.derived(node))]
    seen = set(frontier)
    for _ in range(12):
        for i in frontier:
            found = _lost_here(scene, nodes[i], node)
            if found is not None:
                return found
        # of a derivative: its own formula and what lies before its forward operation; an epsilon behind that protects something else
        frontier = sorted({j for i in frontier for j in nodes[i].inputs if _before(nodes[j], node)} - seen)
        seen.update(frontier)
    return None


def _before(node: Node, failing: Node) -> bool:
    return node.phase == FORWARD or (node.derives == failing.derives >= 0) or failing.phase == FORWARD


def _folded(scene: Scene, node: Node) -> Lost | None:
    """A constant added in the failing expression that rounds to 0, which is why the compiled program does not add it."""
    for addend in scene.graph.added:
        fmt = addend.format
        if fmt is None or addend.site is None or node.site is None or not addend.site.overlaps(node.site):
            continue
        if float(np.asarray(addend.value).astype(fmt.numpy)) == 0:
            return Lost(_rounds_to(fmt.name, addend.value, 0.0, spacing(fmt, 1.0), fmt.smallest))
    return None


def _lost_here(scene: Scene, node: Node, failing: Node) -> Lost | None:
    fmt = node.format
    for key, rounded in (
        ("low_written", node.attrs.get("low")),
        ("high_written", node.attrs.get("high")),
        ("written", node.attrs.get("value")),
    ):
        written = node.attrs.get(key)
        if isinstance(written, float) and rounded is not None and written not in (0.0, 1.0, -1.0):
            kept = float(np.asarray(rounded, np.float64).reshape(-1)[0])
            if kept in (0.0, 1.0, -1.0) and kept != written and (kept != 0.0 or written > 0):
                return Lost(_rounds_to(fmt.name, written, kept, spacing(fmt, 1.0), fmt.smallest))
    if node.op in ("add", "sub") and len(node.inputs) == 2:
        return _absorbed(scene, node, failing)
    return None


def _absorbed(scene: Scene, node: Node, failing: Node) -> Lost | None:
    """x + c == x for a small constant c at an element where x is not 0, and which leads to one that fails."""
    fmt, out, result = node.format, scene.value(node.id), scene.value(failing.id)
    for constant, other in (node.inputs, node.inputs[::-1]):
        c, x = scene.value(constant), scene.value(other)
        if scene.graph.nodes[constant].op != "const" or c is None or x is None or out is None or c.size != 1:
            continue
        small = float(c.reshape(-1)[0])
        if not 0 < abs(small) <= 1e-3:
            continue
        same = (np.broadcast_to(x, out.shape) == out) & (out != 0) & np.isfinite(out)
        if result is not None and result.shape == out.shape:
            same &= ~np.isfinite(result)
        if same.any() and np.abs(out[same]).min() <= 2:
            near = float(np.abs(out[same]).reshape(-1)[0])
            return Lost(f"{small:.3g} added to {near:.6g} changes nothing in {fmt.name}: numbers there are {spacing(fmt, near):.3g} apart.")
    return None


def _rounds_to(name: str, written: float, kept: float, gap: float, smallest: float) -> str:
    if kept == 0:
        return f"{written:.3g} rounds to 0 in {name}, whose smallest positive number is {smallest:.3g}."
    return f"{written!r} rounds to {kept:g} in {name}: the largest number below 1 is 1 - {gap / 2:.3g}."
