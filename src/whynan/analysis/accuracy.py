"""Digits that a loss or a gradient loses although it stays finite: where, on which input, by how much (`--accuracy`).

A finding rests on a run of the real framework and on the real values of the recorded graph (`precise`) on the same input: at least one
output has less than half of its format's digits right (`digits` says against what the error is measured). Not reported is

- what the inputs' own rounding explains: where moving every floating input by half a unit in its last place moves the output by a quarter
  of the error or more, the problem is ill-conditioned there and the code is not to blame (w * x - y of a good fit), unless a form without
  the loss is known (a² - b²);
- what is lost inside a library's function or in a derivative that the framework made: nothing in the user's code could be changed (the
  stable forms do it too: log_softmax of a confident answer, layer_norm far from zero);
- what takes another branch in real arithmetic, or what underflow has rounded: that is not cancellation.

The expression to blame is the first whose value, put right to the format's last digit, puts the output right.
"""

import ast
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np

from whynan.analysis.culprit import Case, culprit, in_ulps
from whynan.analysis.digits import CHOICES, LOOKED, Inputs, Measure, both, is_choice, lost, measure, quick, worst
from whynan.analysis.evaluate import ancestors, evaluate, fill
from whynan.analysis.finding import WARNING, Accuracy, Finding
from whynan.analysis.health import Patient
from whynan.analysis.precise import MOST_ELEMENTS, Precise, precise, rounded
from whynan.analysis.region import in_words, region
from whynan.analysis.shrink import shrink
from whynan.domain import sample
from whynan.domain.spec import CONTINUOUS, Domain
from whynan.ir.dtype import Array, Float64, Format, next_down, next_up
from whynan.ir.frontend import Trace
from whynan.ir.graph import FORWARD, Graph, Node, Output
from whynan.ir.where import Site

MOST_FOUND = 4  # findings for one mode
MOST_SUSPECTS = 10  # inputs that are looked at closely
SIGNS = 6  # patterns of half a unit added to and taken from the inputs
EXPLAINED = 4.0  # an error this many times as large as what those patterns move is the code's
SHRINKS = 80

COMPOSITE = frozenset({"var", "norm", "softmax", "log_softmax", "logsumexp", "cdist", "logcumsumexp"})  # a library's function each
# other names of the functions that compute an operation
CALLED = {
    "sub": ("subtract", "rsub"),
    "acos": ("arccos",),
    "asin": ("arcsin",),
    "pow": ("power",),
    "sum": ("reduce_sum",),
    "add": ("add_n",),
}


def inaccurate(patient: Patient, trace: Trace) -> Iterator[Finding]:
    """Findings for one mode, one for each expression that loses digits."""
    m = measure(trace.graph, patient.domains, patient.settings.seed)
    if m is None:
        return
    blamed: list[Site] = []
    for inputs in _suspects(m, worst(m, patient.domains, patient.settings.seed)):
        if len(blamed) == MOST_FOUND:
            return
        found = _judged(patient, m, inputs)
        site = found[1].site if found is not None else None
        if found is None or site is None or any(site.overlaps(other) for other in blamed):  # a part of what is reported, or the whole
            continue
        blamed.append(site)
        yield _finding(patient, *_simplest(patient, *found))


def counted(graph: Graph, domains: Mapping[str, Domain], seed: int) -> str:
    """What a report must say of the count: how far it went, or why digits could not be counted at all."""
    rng = np.random.default_rng(seed)
    real = precise(graph, {n: sample.ordinary(d, rng) for n, d in domains.items()})
    if real is None:
        return f"digits were not counted: the computation has more than {MOST_ELEMENTS} numbers; smaller shapes would show the same."
    needed = set().union(*(ancestors(graph, o.node) for o in graph.outputs))
    unknown = next((graph.nodes[i] for i in sorted(needed) if real.values[i] is None), None)
    if unknown is not None:
        return f"digits were not counted: no exact value of {unknown.spelling or unknown.op} is known."
    return f"digits were counted on {LOOKED} inputs, which is a search and no proof."


# ---------------------------------------------------------------- which inputs to look at


def _suspects(m: Measure, ranked: Sequence[tuple[float, Inputs]]) -> list[Inputs]:
    """The worst inputs for each operation that adds most to the error there, at most `MOST_SUSPECTS`."""
    bad = [inputs for share, inputs in ranked if share > 0.5][:400]
    looked = quick(m)
    values = both(looked, bad) if bad else None
    if values is None:
        return []
    wrong = {i: _ulps(v, values[1][i], m.graph.nodes[i].format, len(bad)) for i, v in values[0].items()}
    order = [i for i in sorted(wrong) if m.graph.nodes[i].inputs and m.graph.nodes[i].format.is_float]
    growth = np.stack([wrong[i] / np.maximum(1.0, np.max([wrong[j] for j in m.graph.nodes[i].inputs], axis=0)) for i in order])
    groups: dict[int, list[Inputs]] = {}
    for column, inputs in enumerate(bad):
        groups.setdefault(int(growth[:, column].argmax()), []).append(inputs)
    rows = list(groups.values())
    return [row[k] for k in range(3) for row in rows if k < len(row)][:MOST_SUSPECTS]


def _ulps(computed: Array, exact: Array, fmt: Format, count: int) -> Float64:
    """For each row the largest error in units of the last place."""
    if not fmt.is_float:
        return np.zeros(count)
    with np.errstate(invalid="ignore"):
        error = np.abs(computed.astype(np.float64) - exact.astype(np.float64))
    return np.asarray(in_ulps(error, exact, fmt).reshape(count, -1).max(axis=1, initial=0.0))


# ---------------------------------------------------------------- is it true, and whose fault is it?


def _case(patient: Patient, m: Measure, inputs: Inputs) -> Case | None:
    """The real run and the real values on an input; None where they cannot be compared."""
    if not all(sample.contains(d, inputs[name]) for name, d in patient.domains.items()):
        return None
    run = patient.execute(inputs)
    if run.error:
        return None
    trace = patient.capture(inputs)
    seen = {n.id: v for n in trace.graph.nodes if n.op == "random" and (v := trace.values[n.id]) is not None}
    real = precise(trace.graph, inputs, given=seen)
    if real is None or not _one_path(trace, real):
        return None
    return Case(inputs, run, trace, real, replace(m, graph=trace.graph))


def _one_path(trace: Trace, real: Precise) -> bool:
    """Whether every comparison and every step came out in the run as in real arithmetic."""
    values = fill(trace.graph, trace.values)
    for node in trace.graph.nodes:
        one, other = values[node.id], real.values[node.id]
        if is_choice(trace.graph, node.id) and one is not None and other is not None:
            exact = rounded(other) if node.op in CHOICES else other
            if not np.array_equal(one.astype(np.float64), exact.astype(np.float64)):
                return False
    return True


def _judged(patient: Patient, m: Measure, inputs: Inputs) -> tuple[Case, Node, Output] | None:
    """The case, the operation to blame and the output that suffers most, if the input shows a loss of digits that is the code's."""
    case = _case(patient, m, inputs)
    if case is None:
        return None
    for o in sorted((o for o in case.graph.outputs if o.name in m.sizes), key=lambda o: case.digits(o) / m.of(o.name)):
        if case.digits(o) >= m.of(o.name) / 2:
            return None
        node = culprit(case, o)
        if node is None or not _written(node) or _underflows(case, node):
            continue
        if _better_known(case.graph, node) or _beyond_condition(patient, case, o):
            return case, node, o
    return None


def _written(node: Node) -> bool:
    """Whether the user wrote the operation itself: as an operator, or by calling the function of its name."""
    if node.phase != FORWARD or node.site is None or node.op in COMPOSITE:
        return False
    try:
        tree = ast.parse(node.site.text.strip(), mode="eval").body
    except (SyntaxError, ValueError):  # a statement, such as x -= y
        return True
    if not isinstance(tree, ast.Call):
        return True
    function = tree.func
    name = function.attr if isinstance(function, ast.Attribute) else function.id if isinstance(function, ast.Name) else ""
    return name in (node.op, *CALLED.get(node.op, ()))


def _underflows(case: Case, node: Node) -> bool:
    """Whether a number that the operation reads or makes is too small for the format's full precision."""
    for i in (node.id, *node.inputs):
        value, fmt = case.real.values[i], case.graph.nodes[i].format
        if value is not None and fmt.is_float:
            size = np.abs(rounded(value))
            if bool(((size > 0) & (size < fmt.tiny)).any()):
                return True
    return False


def _beyond_condition(patient: Patient, case: Case, o: Output) -> bool:
    """Whether the error is well beyond what half a unit in the last place of the inputs makes of the output."""
    error = case.error(o)
    base = case.real.values[o.node]
    if error is None or base is None:
        return False
    rng = np.random.default_rng(patient.settings.seed)
    most = 0.0
    for _ in range(SIGNS):
        moved = precise(case.graph, _jittered(patient.domains, case.inputs, rng), digits=6, nodes=(o.node,))
        after = None if moved is None else moved.values[o.node]
        change = None if after is None else case.real.distance(o.node, after)
        if change is None or not np.isfinite(change).all():
            continue
        most = max(most, float(change.max(initial=0.0)) / 2)
    return float(error.max(initial=0.0)) > EXPLAINED * most


def _jittered(domains: Mapping[str, Domain], inputs: Inputs, rng: np.random.Generator) -> dict[str, Array]:
    """The inputs with every element of a continuous one a whole unit in its last place higher or lower: half a unit is no number of it."""
    out = dict(inputs)
    for name, d in domains.items():
        if d.value is None and d.kind in CONTINUOUS and d.format.is_float:
            x = inputs[name].astype(np.float64)
            moved = np.where(rng.random(x.shape) < 0.5, next_up(d.format, x), next_down(d.format, x))
            out[name] = np.clip(moved, d.low, d.high).astype(d.format.numpy)
    return out


def _better_known(graph: Graph, node: Node) -> bool:
    """Whether the operation is a difference of two squares, which (a - b) (a + b) gives with all digits."""
    return node.op == "sub" and all(_squared(graph, graph.nodes[j]) for j in node.inputs)


def _squared(graph: Graph, node: Node) -> bool:
    if node.op == "pow":
        power = graph.nodes[node.inputs[1]]
        return power.op == "const" and bool((np.asarray(power.attrs["value"], np.float64) == 2).all())
    return node.op == "square" or (node.op == "mul" and node.inputs[0] == node.inputs[1])


# ---------------------------------------------------------------- the finding


def _simplest(patient: Patient, case: Case, node: Node, o: Output) -> tuple[Case, Node, Output]:
    """The same defect on the simplest input found that loses about as many digits."""
    m = case.measure
    here = lost(m, [case.inputs])[0]
    enough = max(0.5, here - 1 / m.of(o.name)) if np.isfinite(here) else 0.5
    simple = shrink(case.inputs, patient.domains, lambda i: bool(lost(m, [i])[0] >= enough), budget=SHRINKS)
    again = _judged(patient, m, simple)
    return again if again is not None and again[1].site == node.site else (case, node, o)


def _finding(patient: Patient, case: Case, node: Node, o: Output) -> Finding:
    found = region(case.measure, patient.domains, case.inputs, patient.settings.seed)
    real = case.real.float64(o.node)
    computed = case.computed(o.name)
    assert real is not None and computed is not None
    error = case.error(o)
    assert error is not None
    at = np.unravel_index(int(error.argmax()), error.shape) if error.size else ()
    shown = Accuracy(
        o.name,
        case.digits(o),
        case.measure.of(o.name),
        float(computed.reshape(real.shape)[at]),
        float(real[at]),
        found.where,
        found.share,
    )
    exact = {p.name: e for p in case.graph.outputs if (e := case.real.float64(p.node)) is not None}
    witness = replace(patient.witness(case.inputs, case.run), exact=exact)
    message = " ".join(filter(None, (_what(shown), _why(case, node), in_words(found))))
    about = Finding("", "inaccurate", WARNING, "cancellation", message, node.op, node.phase, node.site, (patient.mode,))
    return replace(about, witness=witness, accuracy=shown)


def _what(a: Accuracy) -> str:
    output = "the loss" if a.output == "loss" else f"the gradient by {a.output}"
    count = int(a.digits)
    digits = "less than one correct digit" if count < 1 else f"{count} correct digit{'s' if count > 1 else ''}"
    shown = 9 if a.of < 10 else 17
    numbers = f"{a.computed:.{shown}g} where the exact value is {a.exact:.{shown}g}"
    return f"on this input {output} has {digits} of {int(a.of)}: {numbers}."


def _why(case: Case, node: Node) -> str:
    """What the operation does to the digits, with the numbers it works on."""
    text = " ".join(node.site.text.split()) if node.site else node.op
    text = text if len(text) <= 60 else text[:57] + "..."
    pair = _operands(case, node)
    if node.op in ("sum", "mean", "matmul", "cumsum"):
        return f"`{text}` adds numbers that nearly cancel: what is left is mostly their rounding error."
    if node.op not in ("sub", "add") or pair is None:
        return f"`{text}`{_taken(case, node)} makes the rounding error of its operand large."
    first, second = (_number(x, node.format) for x in pair)
    small, large = sorted(map(abs, pair))
    if small < 0.1 * large:
        return f"In `{text}` the sum of {first} and {second} keeps few digits of the small number, and what follows needs them."
    done = f"subtracts {second} from {first}" if node.op == "sub" else f"adds {second} to {first}"
    return f"`{text}` {done}: what is left is mostly their rounding error."


def _taken(case: Case, node: Node) -> str:
    """What an operation of one operand got and what it should have got, where its result is furthest off."""
    at, values = _furthest(case, node), evaluate(case.graph, case.inputs)
    floats = [j for j in node.inputs if case.graph.nodes[j].format.is_float and case.graph.nodes[j].op != "const"]
    value, real = (values[floats[0]], case.real.values[floats[0]]) if len(floats) == 1 else (None, None)
    if at is None or value is None or real is None or value.shape != node.shape:
        return ""
    computed, exact, fmt = float(value[at]), float(rounded(real)[at]), case.graph.nodes[floats[0]].format
    return f" of {_number(computed, fmt)}, which should be {exact:.{_shown(fmt) + 2}g}," if computed != exact else ""


def _furthest(case: Case, node: Node) -> tuple[Any, ...] | None:
    """The element of an operation's result that is furthest off."""
    result, real = evaluate(case.graph, case.inputs)[node.id], case.real.values[node.id]
    error = None if result is None or real is None or not result.size else case.real.distance(node.id, result)
    if error is None or real is None:
        return None
    return np.unravel_index(int(in_ulps(error, rounded(real), node.format).argmax()), error.shape) if error.shape else ()


def _number(x: float, fmt: Format) -> str:
    """A number with all digits of its format."""
    return f"{x:.{_shown(fmt)}g}"


def _shown(fmt: Format) -> int:
    """How many digits tell a format's numbers apart."""
    return int(np.ceil(1 - np.log10(fmt.eps / 2)))


def _operands(case: Case, node: Node) -> tuple[float, float] | None:
    """The two operands of a sum where its error is largest."""
    values, at = evaluate(case.graph, case.inputs), _furthest(case, node)
    operands = [v for j in node.inputs if (v := values[j]) is not None]
    if at is None or len(operands) != 2:
        return None
    first, second = (float(np.broadcast_to(v, node.shape)[at]) for v in operands)
    return first, second
