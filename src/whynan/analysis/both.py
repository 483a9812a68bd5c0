"""What holds in both of two worlds: a condition below a reduction is true in one, false in the other."""

import numpy as np

from whynan.analysis import worlds
from whynan.analysis.branch import ceiling, least
from whynan.analysis.exact.limits import Exact
from whynan.analysis.look import LEAST_A_LOOK, look_closer, worth_a_look
from whynan.analysis.order import changed
from whynan.analysis.relations import Relations
from whynan.analysis.slack import Slack
from whynan.analysis.state import State, bounds_at
from whynan.analysis.tighten import bounded, choose
from whynan.domain.interval import Bounds, join, make, meet


def of_both_worlds(state: State) -> dict[int, Bounds]:
    """Bounds that hold whether a condition is true or false, where they say more than what is known."""
    out: dict[int, Bounds] = {}
    for c in worlds.conditions(state.view, state.bounds):
        cases = [case for outcome in (True, False) if (case := _world(state, c, outcome)) is not None]
        for i in set.intersection(*map(set, cases)) if cases else ():
            both = meet(out.get(i, bounds_at(state, i)), join(*(case[i] for case in cases)), state.view.nodes[i].format)
            if changed(bounds_at(state, i), both):
                out[i] = both
    return out


def _world(state: State, condition: int, outcome: bool) -> dict[int, Bounds] | None:
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
    here = State(inside, bounds, facts, attained, Exact(inside, bounds), min(state.budget // 4, LEAST_A_LOOK * 8), state.simplexes)
    for i in sorted(labels.keys() - seeds.keys()):
        node = view.nodes[i]
        if not inside.live[i]:
            continue
        first = inside.representative[i]
        known = bounds_at(here, first) if first != i else bounded(here, node, {})
        bounds[i] = meet(bounds_at(state, i), known, node.format)
        for u in [u for u in seeds if first == i and "dims" in view.nodes[u].attrs and u != i]:
            bounds[i] = _beside(here, (u, seeds[u][1]), i, bounds_at(here, i))
        choose(here, node)
        if first == i and worth_a_look(here, node, True):
            look_closer(here, node, lambda b: b.nonfinite)
    state.boxes += here.boxes
    return {i: bounds_at(here, i) for i in labels}


def _alike(state: State, u: int, known: Bounds) -> dict[int, Bounds]:
    """What follows from a narrower bound of one reduction for others of the same shape that are related to it."""
    out, view = {}, state.view
    for node in view.nodes:
        if node.id != u and "dims" in node.attrs and node.shape == view.nodes[u].shape and view.representative[node.id] == node.id:
            b = _beside(state, (u, known), node.id, bounds_at(state, node.id))
            if changed(bounds_at(state, node.id), b):
                out[node.id] = b
    return out


def _beside(state: State, other: tuple[int, Bounds], i: int, b: Bounds) -> Bounds:
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
