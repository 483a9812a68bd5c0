"""The abstract run: bounds of every value on every input of the domain, and from them what is proven.

Nodes are bounded in order from their inputs' bounds, tightened by relations between values; where a result could be
non-finite although what goes in does not force it, branch and prune looks closer.
"""

from collections.abc import Callable, Collection, Mapping
from dataclasses import dataclass, field

import numpy as np

from whynan.analysis import worlds
from whynan.analysis.attained import Attained
from whynan.analysis.branch import ceiling, least, prune
from whynan.analysis.conditions import chosen_by, deciding
from whynan.analysis.cones import cones_of
from whynan.analysis.contracted import contracted
from whynan.analysis.exact.limits import Exact
from whynan.analysis.guarded import guarded
from whynan.analysis.left import what_is_left
from whynan.analysis.order import changed
from whynan.analysis.relations import Relations, Slack
from whynan.analysis.view import View
from whynan.domain.interval import Bounds, collapse, entering, join, make, meet, of_array, top
from whynan.ir.dtype import Format, nearest
from whynan.ir.graph import Graph, Node
from whynan.ops._opdef import bound, known

# ops whose result can be finite although an input is not
SELECTIVE = frozenset({"where", "minimum", "maximum", "clamp", "nan_to_num", "relu", "index", "gather", "pow", "xlogy"})

# operations through which sharper operands make a sharper result
CARRIED = frozenset("mul div prod square neg reshape expand permute clamp maximum minimum sqrt add sub cast".split())
SHARPENED = 4  # how many operations back operands are sharpened

BOXES = 60_000  # that branch and prune may evaluate in all, unless told otherwise
PASS = 64  # boxes that a pass through a cone counts for, beside those that it evaluates: a long program has many places to look at
MOST_A_LOOK, LEAST_A_LOOK = 4096, 256  # boxes for one look: most decide within a hundred boxes or never
PATIENCE = MOST_A_LOOK  # boxes without a decision after which looks become short

Ranges = Mapping[int, tuple[float, float]]  # node id -> a range of values


@dataclass(frozen=True, slots=True, eq=False)
class Proof:
    """What the abstract run found.

    `bounds` per node; `outputs` says per output (in the graph's order) whether it is proven finite; `open` are the nodes where a
    non-finite value may arise and reach an output that is not proven, with the reason; `hints` are ranges of input
    elements in which it may happen (for the search); `boxes` counts the boxes that branch and prune evaluated.
    """

    bounds: tuple[Bounds, ...]
    outputs: tuple[bool, ...]
    open: Mapping[int, str]
    hints: tuple[Ranges, ...]
    boxes: int

    @property
    def finite(self) -> bool:
        """True if every output is proven finite."""
        return all(self.outputs)


@dataclass(slots=True)
class _State:
    """What grows while the nodes are bounded."""

    view: View
    bounds: list[Bounds | None]
    facts: Relations
    attained: Attained
    exact: Exact
    budget: int
    simplexes: frozenset[int] = frozenset()  # input nodes whose rows sum to 1
    boxes: int = 0
    charged: int = 0
    sharpened: dict[tuple[int, str], Bounds | None] = field(default_factory=dict)  # what exact arithmetic says, by node and way
    wasted: int = 0  # boxes that decided nothing
    hints: list[Ranges] = field(default_factory=list)
    left: dict[int, str] = field(default_factory=dict)  # what branch and prune left open of a node, in words


def propagate(
    graph: Graph,
    domains: Mapping[str, Bounds],
    budget: int = BOXES,
    refine: bool = True,
    simplexes: Collection[str] = (),
    given: Mapping[int, Bounds] | None = None,
) -> Proof:
    """Bound every value of the graph for all inputs in the domains (bounds by input name).

    `simplexes` are the inputs of non-negative numbers whose rows along the last axis sum to 1. `budget` limits the boxes that branch and
    prune may evaluate in all; without `refine` it is not used. `given` are bounds of some nodes that are known beforehand (of the first
    node of those that compute the same): the result is then about the inputs that comply. Where outputs stay
    open, conditions below reductions are split (`worlds`), and what holds in both cases enters a second pass.
    """
    by_node = {i: domains[name] for name, i in graph.inputs.items()}
    known = dict(given or {})
    rows = frozenset(graph.inputs[n] for n in simplexes)
    state = _passed(View(graph), by_node, rows, budget if refine else 0, known, sharp=refine)
    if refine and not all(_bounds(state, o.node).finite for o in graph.outputs):
        more = _of_both_worlds(state)
        if more:
            first, left = state, max(state.budget - state.charged, state.budget // 4)
            state = _passed(View(graph), by_node, rows, left, {**known, **more}, sharp=True)
            state.boxes += first.boxes
    done = tuple(b for b in state.bounds if b is not None)
    proven = tuple(done[o.node].finite for o in graph.outputs)
    return Proof(done, proven, _open(state.view, done, state.left), tuple(state.hints), state.boxes)


def _passed(
    view: View, domains: Mapping[int, Bounds], simplexes: frozenset[int], budget: int, more: Mapping[int, Bounds], sharp: bool
) -> _State:
    """All nodes bounded in order; `more` is known of some of them beforehand. `sharp` asks exact arithmetic, too."""
    bounds: list[Bounds | None] = [None] * len(view.nodes)
    state = _State(view, bounds, Relations(view, bounds), Attained(view, bounds), Exact(view, bounds), budget, simplexes)
    outputs = {o.node for o in view.graph.outputs}
    conditions = deciding(view.graph)
    for node in view.nodes:
        if not view.live[node.id]:
            bounds[node.id] = top(node.format, len(node.shape))
            continue
        first = view.representative[node.id]
        if first != node.id:
            bounds[node.id] = bounds[first]
            continue
        result = _node(state, node, domains)
        bounds[node.id] = meet(result, more[node.id], node.format) if node.id in more else result
        _choose(state, node)
        if _worth_a_look(state, node, node.id in outputs):
            _look_closer(state, node, lambda b: b.nonfinite)
        elif node.id in conditions and _worth_deciding(state, node):
            _look_closer(state, node, lambda b: b.lo < b.hi)
        if sharp and _in_danger(state, node):
            _sharpen(state, node, domains)
    return state


def _bounds(state: _State, i: int) -> Bounds:
    found = state.bounds[i]
    assert found is not None
    return found


def _of_both_worlds(state: _State) -> dict[int, Bounds]:
    """Bounds that hold whether a condition is true or false, where they say more than what is known."""
    out: dict[int, Bounds] = {}
    for c in worlds.conditions(state.view, state.bounds):
        cases = [case for outcome in (True, False) if (case := _world(state, c, outcome)) is not None]
        for i in set.intersection(*map(set, cases)) if cases else ():
            both = meet(out.get(i, _bounds(state, i)), join(*(case[i] for case in cases)), state.view.nodes[i].format)
            if changed(_bounds(state, i), both):
                out[i] = both
    return out


def _world(state: _State, condition: int, outcome: bool) -> dict[int, Bounds] | None:
    """Bounds of all that depends on one element of the condition, where it is true (or false); None if it cannot be."""
    view = state.view
    seeds = worlds.assumed(view, state.bounds, condition, outcome)
    if seeds is None:
        return None
    for u in [u for u in seeds if "dims" in view.nodes[u].attrs]:
        apart = worlds.dependents(view, seeds)
        for r, b in _alike(state, u, seeds[u][1]).items():
            if r not in apart:
                seeds.setdefault(r, (seeds[u][0], b))
    labels = worlds.scope(view, {i: axes for i, (axes, _) in seeds.items()})
    bounds = list(state.bounds)
    for i, (_, b) in seeds.items():
        bounds[i] = b
    inside = view.assuming(worlds.chosen(view, condition, outcome, labels), labels)
    facts, attained = Relations(inside, bounds), state.attained.copied(inside, bounds)
    here = _State(inside, bounds, facts, attained, Exact(inside, bounds), min(state.budget // 4, LEAST_A_LOOK * 8), state.simplexes)
    for i in sorted(labels.keys() - seeds.keys()):
        node = view.nodes[i]
        if not inside.live[i]:
            continue
        first = inside.representative[i]
        known = _bounds(here, first) if first != i else _node(here, node, {})
        bounds[i] = meet(_bounds(state, i), known, node.format)
        for u in [u for u in seeds if first == i and "dims" in view.nodes[u].attrs and u != i]:
            bounds[i] = _beside(here, (u, seeds[u][1]), i, _bounds(here, i))
        _choose(here, node)
        if first == i and _worth_a_look(here, node, True):
            _look_closer(here, node, lambda b: b.nonfinite)
    state.boxes += here.boxes
    return {i: _bounds(here, i) for i in labels}


def _alike(state: _State, u: int, known: Bounds) -> dict[int, Bounds]:
    """What follows from a narrower bound of one reduction for others of the same shape that are related to it."""
    out, view = {}, state.view
    for node in view.nodes:
        if node.id != u and "dims" in node.attrs and node.shape == view.nodes[u].shape and view.representative[node.id] == node.id:
            b = _beside(state, (u, known), node.id, _bounds(state, node.id))
            if changed(_bounds(state, node.id), b):
                out[node.id] = b
    return out


def _beside(state: _State, other: tuple[int, Bounds], i: int, b: Bounds) -> Bounds:
    """The bounds of one reduction, narrowed by those of a related one; terms that underflow are lost in one of the two at most."""
    (u, known), nodes, view = other, state.view.nodes, state.view
    if nodes[u].shape != nodes[i].shape or nodes[u].op != nodes[i].op or not nodes[i].format.is_float:
        return b
    if known.may_nan.any() or b.may_nan.any():
        return b
    terms = int(np.prod(nodes[nodes[i].inputs[0]].shape, initial=1))
    lost = Slack(0.0, 4 * terms * nodes[i].format.tiny)
    below, above = state.facts.at_most(view.root(u), view.root(i)), state.facts.at_most(view.root(i), view.root(u))
    lo = -np.inf if below is None else least(known, below + lost, False)
    hi = np.inf if above is None else ceiling(known, above + lost)
    return meet(b, make(lo, hi), nodes[i].format)


def _node(state: _State, node: Node, domains: Mapping[int, Bounds]) -> Bounds:
    if node.id in domains:
        return entering(domains[node.id], node.format)
    if node.op == "const":
        return entering(of_array(node.attrs["value"]), node.format)
    inputs = [state.bounds[i] for i in node.inputs]
    result = bound(state.view.calls[node.id], [b for b in inputs if b is not None])
    state.bounds[node.id] = result
    return _tighten(state, node, result)


def _choose(state: _State, node: Node) -> None:
    """A `where` with a condition that is the same everywhere is its operand: `where(isfinite(m), m, 0)` hides no maximum."""
    if node.op != "where":
        return
    condition = state.bounds[node.inputs[0]]
    if condition is None or condition.may_nan.any():
        return
    for selected, end in ((node.inputs[1], 1.0), (node.inputs[2], 0.0)):
        if bool((condition.lo == end).all() and (condition.hi == end).all()) and state.view.nodes[selected].format.name == node.format.name:
            state.view.choose(node.id, selected)


def _tighten(state: _State, node: Node, result: Bounds) -> Bounds:
    """Narrow a result by what is known about pairs of values."""
    result = _pair(state, node, result)
    result = _contracted(state, node, result)
    if node.op in ("masked_select", "index") and (chosen := chosen_by(state.view, state.bounds, node)) is not None:
        result = meet(result, chosen, node.format)
    if node.op == "where" and (difference := guarded(state.view, state.bounds, node)) is not None:
        result = meet(result, difference, node.format)
    if node.op == "sum":
        result = _row_sum(state, node, result)
    least = state.attained.learn(node, result)
    return result if least is None else _raised(result, least, node)


def _row_sum(state: _State, node: Node, result: Bounds) -> Bounds:
    """The sum along the rows of a simplex: 1, up to the rounding of the row's own elements and of the additions."""
    found = state.view.reduced(state.view.root(node.id), -2) if state.simplexes else None
    if found is None or found[0][0] not in state.simplexes:
        return result
    (source, axes), names = found
    if len(names) != 1 or axes.count(names[0]) != 1 or axes[-1] != names[0]:
        return result
    fmt = node.format if node.format.eps > state.view.nodes[source].format.eps else state.view.nodes[source].format
    slack = (4 + state.view.nodes[source].shape[-1]) * fmt.eps
    return meet(result, make(np.full(result.shape, 1 - slack), np.full(result.shape, 1 + slack), fraction=True))


def _contracted(state: _State, node: Node, result: Bounds) -> Bounds:
    """A sum that a compiler may contract: without the rounding of a product it differs from the plain sum by no more than that."""
    found = contracted(state.view, state.bounds, node)
    if found is None:
        return result
    plain, room = state.bounds[found[0]], found[1]
    assert plain is not None
    return meet(result, make(plain.lo - room, plain.hi + room), node.format)


def _pair(state: _State, node: Node, result: Bounds) -> Bounds:
    if node.op not in ("sub", "div", "mul", "add") or len(node.inputs) != 2:
        return result
    a, b = state.view.inputs(state.view.root(node.id))
    left, right = state.bounds[a[0]], state.bounds[b[0]]
    if left is None or right is None or not node.format.is_float:
        return result
    if a == b:
        return _same_operand(node, result, left)
    if node.op == "sub":
        return _difference(state, node, result, state.facts.at_most(a, b), state.facts.at_most(b, a))
    if node.op == "div" and bool((right.lo >= 0).all()):
        return _quotient(state, node, result, a, b, right)
    return result


def _same_operand(node: Node, result: Bounds, operand: Bounds) -> Bounds:
    """x - x = 0 and x / x = 1 for finite (nonzero) x; x * x >= 0."""
    if node.op == "mul":
        return meet(result, make(0.0, np.inf, nan=True, neg_zero=False))
    if node.op == "sub" and not operand.nonfinite.any():
        return make(np.zeros(result.shape), np.zeros(result.shape), neg_zero=False, fraction=False)
    if node.op == "div" and not operand.nonfinite.any() and not operand.may_zero.any():
        return make(np.ones(result.shape), np.ones(result.shape), fraction=False)
    return result


def _difference(state: _State, node: Node, result: Bounds, below: Slack | None, above: Slack | None) -> Bounds:
    """a - b <= slack where a <= b (exactly 0 without slack), and the mirror image."""
    b = state.bounds[node.inputs[1]]
    a = state.bounds[node.inputs[0]]
    assert a is not None and b is not None
    hi = np.asarray(np.inf) if below is None else _room(below, float(b.magnitude.max(initial=0.0)), node.format)
    lo = np.asarray(-np.inf) if above is None else -_room(above, float(a.magnitude.max(initial=0.0)), node.format)
    return result if below is None and above is None else meet(result, make(lo, hi, nan=True), node.format)


def _room(slack: Slack, magnitude: float, fmt: Format) -> np.ndarray:
    if slack.relative == 0 and slack.absolute == 0:
        return np.asarray(0.0)
    return nearest(fmt, (slack.relative * magnitude + slack.absolute) * (1 + 1e-6))


def _quotient(
    state: _State, node: Node, result: Bounds, a: tuple[int, tuple[int, ...]], b: tuple[int, tuple[int, ...]], divisor: Bounds
) -> Bounds:
    """a / b <= 1 where a <= b and b >= 0 (a slack adds to it); |a| / b likewise."""
    least = float(divisor.lo.min(initial=np.inf))
    magnitude = state.facts.magnitude_at_most(a, b)
    plain = state.facts.at_most(a, b) if magnitude is None else magnitude
    if plain is None:
        return result
    slack_at_least = plain.absolute / least if plain.absolute and least > 0 else (np.inf if plain.absolute else 0.0)
    most = 1.0 + (plain.relative + slack_at_least) * (1 + 1e-6) if plain.relative or plain.absolute else 1.0
    most = float(nearest(node.format, np.nextafter(most, np.inf))) if most > 1 else most
    limit = make(-most if magnitude is not None else -np.inf, np.inf if divisor.may_zero.any() else most, nan=True)
    if magnitude is not None and divisor.may_zero.any():
        limit = make(-np.inf, np.inf, nan=True)
    return meet(result, limit, node.format)


def _raised(result: Bounds, least: float, node: Node) -> Bounds:
    """The same with all elements at least `least`."""
    return meet(result, make(least, np.inf, nan=True), node.format)


def _worth_a_look(state: _State, node: Node, is_output: bool) -> bool:
    """Whether splitting may show finite what the plain run could not: a danger that starts here, or a choice between inputs."""
    b = state.bounds[node.id]
    if b is None or not node.inputs or not b.nonfinite.any() or state.charged >= state.budget or not known(node.op):
        return False
    if not state.view.elementwise(state.view.root(node.id)):
        return False
    fresh = all(not _nonfinite(state, i) for i in node.inputs)
    return fresh or is_output or node.op in SELECTIVE or _vanishes(state, node)


def _in_danger(state: _State, node: Node) -> bool:
    """Whether a non-finite value may begin here, from finite operands."""
    return bool(node.inputs) and known(node.op) and _nonfinite(state, node.id) and not any(_nonfinite(state, i) for i in node.inputs)


def _sharpen(state: _State, node: Node, domains: Mapping[int, Bounds]) -> None:
    """Bound the operands by what they would be in exact arithmetic, and what follows from them once more."""
    for look, depth in ((state.exact.bounds, 0), (state.exact.shallow, 0), (state.exact.together, SHARPENED)):
        for i in node.inputs:
            _sharper(state, i, look, depth)
        before = state.bounds[node.id]
        assert before is not None
        state.bounds[node.id] = meet(before, _node(state, node, domains), node.format)
        if not _in_danger(state, node):
            return
        if _worth_a_look(state, node, False):
            _look_closer(state, node, lambda b: b.nonfinite)


def _sharper(state: _State, i: int, look: Callable[[int], Bounds | None], depth: int) -> None:
    """Narrow the bounds of a value, and with some depth of what it is computed from."""
    node, before = state.view.nodes[i], state.bounds[i]
    if before is None or not node.inputs or not node.format.is_float:
        return
    if depth and node.op in CARRIED:
        for j in node.inputs:
            _sharper(state, j, look, depth - 1)
        again = bound(state.view.calls[i], [b for b in (state.bounds[j] for j in node.inputs) if b is not None])
        before = meet(before, again, node.format)
    name = state.view.representative[i], look.__name__
    if name not in state.sharpened:
        state.sharpened[name] = look(name[0])
    found = state.sharpened[name]
    if found is not None:
        before = meet(before, make(nearest(node.format, found.lo), nearest(node.format, found.hi), nan=True), node.format)
    state.bounds[i] = before


def _nonfinite(state: _State, i: int) -> bool:
    b = state.bounds[i]
    return b is None or bool(b.nonfinite.any())


def _vanishes(state: _State, node: Node) -> bool:
    """A product with something that may be zero, a quotient by something that may be infinite: a mask at work."""
    if node.op not in ("mul", "div"):
        return False
    return any(bool(b.may_zero.any() or b.may_inf.any()) for b in (state.bounds[i] for i in node.inputs) if b is not None)


def _worth_deciding(state: _State, node: Node) -> bool:
    """Whether splitting may show that a condition that Python code looks at has one outcome only."""
    b = _known(state, node.id)
    return bool((b.lo < b.hi).any()) and state.charged < state.budget and state.view.elementwise(state.view.root(node.id))


def _known(state: _State, i: int) -> Bounds:
    b = state.bounds[i]
    assert b is not None  # nodes are bounded in order
    return b


def _look_closer(state: _State, node: Node, undecided: Callable[[Bounds], np.ndarray]) -> None:
    nonfinite = node.format.is_float
    root = state.view.root(node.id)
    inputs = set(state.view.graph.inputs.values())
    for cone in cones_of(state.view, root):
        found = prune(state.view, state.facts, cone, undecided, _allowance(state))
        state.boxes += found.boxes
        cost = found.boxes + PASS * found.passes
        state.charged += cost
        before = state.bounds[node.id]
        assert before is not None
        state.bounds[node.id] = meet(before, found.bounds, node.format)
        if found.decided:
            state.left.pop(node.id, None)
            return
        state.wasted += cost
        if not nonfinite:  # no input fails because a condition has two outcomes
            continue
        state.left[node.id] = what_is_left(state.view, found)
        hints = [{v[0]: r for v, r in box.items() if v[0] in inputs} for box in found.left]
        state.hints += [h for h in hints if h]


def _allowance(state: _State) -> int:
    """The boxes for one look: a larger budget buys longer ones; they become short where many have decided nothing."""
    share = state.budget / BOXES
    patient = min(MOST_A_LOOK * share, PATIENCE * share - state.wasted)
    return int(min(max(patient, LEAST_A_LOOK), state.budget - state.charged))


def _open(view: View, bounds: tuple[Bounds, ...], left: Mapping[int, str]) -> dict[int, str]:
    """Nodes where a non-finite value may arise from finite ones and flow to an output."""
    flows = [False] * len(bounds)
    for o in view.graph.outputs:
        flows[o.node] = bool(bounds[o.node].nonfinite.any())
    out: dict[int, str] = {}
    for node in reversed(view.nodes):
        if not flows[node.id]:
            continue
        guilty = [i for i in node.inputs if bounds[i].nonfinite.any() and view.nodes[i].op != "const"]
        for i in guilty:
            flows[i] = True
        if not guilty or not known(node.op):
            out[node.id] = _reason(view, node, bounds) + left.get(view.representative[node.id], "")
    return out


def _reason(view: View, node: Node, bounds: tuple[Bounds, ...]) -> str:
    if node.op == "input":
        return "the domain itself holds NaN or Inf"
    if not known(node.op):
        return f"whynan has no bounds for the operation {node.spelling or node.op}"
    if not node.inputs:
        return "a number that is computed here is not finite"
    parts = ", ".join(_range_text(collapse(bounds[i], 0)) for i in node.inputs)
    return f"{node.op} of {parts} could not be shown to stay finite"


def _range_text(b: Bounds) -> str:
    return "NaN" if bool(b.empty) else f"[{float(b.lo):.4g}, {float(b.hi):.4g}]"
