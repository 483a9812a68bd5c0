"""Python code that looks at values: every path is recorded and proven, what is left over is named, and no input takes a path unseen."""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

import whynan
from whynan.analysis import cases, conditions, paths
from whynan.analysis.coverage import varying
from whynan.domain import sample
from whynan.domain.interval import contains
from whynan.domain.spec import Domain
from whynan.errors import WhynanError
from whynan.frontends.torch import load
from whynan.ir.dtype import Array
from whynan.ir.frontend import Program


def reasons(report: Any) -> str:
    return "\n".join(o.reason for o in report.undecided)


# ---------------------------------------------------------------- losses that branch


def masked_mean(x, m):
    if m.sum() == 0:
        return x.sum() * 0
    return (x * m).sum() / m.sum()


def masked_mean_any(x, m):
    if not m.any():
        return x.sum() * 0.0
    return (x * x * m).sum() / m.sum()


def counted(x, m):
    n = int(m.sum())
    return (x * m).sum() / max(n, 1)


def image_range(x):
    if x.max() > 1:
        x = x / 255
    return torch.log(2 - x).mean()


def hinge_labels(y, x):
    if ((y == 0) | (y == 1)).all():
        y = 2 * y - 1
    return F.relu(1 - y * x).mean()


def positive_part(x):
    chosen = x[x > 0.5]
    if chosen.numel() == 0:
        return x.sum() * 0
    return torch.log(chosen).mean()


def hard_examples(x, y):
    loss = (x - y) ** 2
    hard = loss[loss > 0.25]
    return hard.mean() if len(hard) > 0 else loss.mean()


def halved(x):
    for _ in range(20):
        if x.norm() <= 1:
            break
        x = x / 2
    return x.sum()


def ordered(x, y):
    a, b = x.mean(), y.mean()
    if a > b:
        return torch.sqrt(a - b)
    return (x * y).sum()


def nan_check(x):
    loss = torch.exp(x).sum()
    if torch.isnan(loss) or torch.isinf(loss):
        return torch.log(x * 0).sum()
    return loss


def nested(x, m):
    if m.any():
        if m.all():
            return x.mean()
        return (x * m).sum() / m.sum() + (x * ~m).sum() / (~m).sum()
    return x.abs().sum()


def whole(n: int = 5) -> Domain:
    return whynan.real(n, low=-10, high=10)


SAFE: dict[str, tuple[Callable[..., Any], dict[str, Domain]]] = {
    "a sum of a mask": (masked_mean, {"x": whole(), "m": whynan.binary(5)}),
    "any of a mask": (masked_mean_any, {"x": whole(), "m": whynan.mask(5)}),
    "a count": (counted, {"x": whole(4), "m": whynan.mask(4)}),
    "the largest element": (image_range, {"x": whynan.real(6, low=0, high=255)}),
    "which labels": (hinge_labels, {"y": whynan.real(3, low=-1, high=1), "x": whole(3)}),
    "labels of one kind": (hinge_labels, {"y": whynan.binary(3), "x": whole(3)}),
    "a selection": (positive_part, {"x": whole()}),
    "a selection of a computed value": (hard_examples, {"x": whole(4), "y": whole(4)}),
    "a loop": (halved, {"x": whynan.real(4, low=-100, high=100)}),
    "two computed values": (ordered, {"x": whynan.real(3, low=-1, high=1), "y": whynan.real(3, low=-1, high=1)}),
    "a check that never fires": (nan_check, {"x": whynan.real(3, low=-5, high=5)}),
    "looks behind looks": (nested, {"x": whole(4), "m": whynan.mask(4)}),
}


@pytest.mark.parametrize(("loss", "domains"), SAFE.values(), ids=SAFE)
def test_a_loss_that_is_finite_on_every_path_is_safe(loss: Callable[..., Any], domains: dict[str, Domain]) -> None:
    report = whynan.check(loss, **domains)
    assert report.verdict == "safe", reasons(report)


# ---------------------------------------------------------------- every input takes a recorded path, within its bounds


def explored(program: Program, domains: dict[str, Domain], mode: str) -> tuple[cases.Problem, paths.Covered]:
    wrt = tuple(n for n, d in domains.items() if d.grad)
    lead = partial(program.capture, wrt=wrt, mode=mode)
    problem = cases.Problem(lambda inputs: lead(inputs), domains, 60_000, 0, lambda inputs, told: lead(inputs, told=told))
    rng = np.random.default_rng(0)
    first, second = ({n: sample.ordinary(d, rng) for n, d in domains.items()} for _ in range(2))
    trace = problem.capture(first)
    return problem, paths.explore(problem, trace, problem.prove(trace.graph), first, second)


def violations(problem: cases.Problem, covered: paths.Covered, tried: list[dict[str, Array]]) -> list[str]:
    """Inputs that take no recorded path, and values outside what was proven of their path."""
    interned: dict[object, int] = {}
    known: dict[object, list[paths.Path]] = {}
    for p in covered.paths:
        known.setdefault(tuple(paths.looks_of(p.trace.graph, interned)), []).append(p)
    out = []
    for inputs in tried:
        trace = problem.capture(inputs)
        alike = known.get(tuple(paths.looks_of(trace.graph, interned)), [])
        path = next((p for p in alike if _holds(p, inputs)), None)
        if path is None and len(covered.paths) > 1:
            out.append(f"no path for {inputs}")
        elif path is not None:
            for node, value, b in zip(trace.graph.nodes, trace.values, path.proof.bounds, strict=True):
                if value is not None and not contains(b, value).all():
                    out.append(f"{node.op} of {inputs}")
    return out


def _holds(path: paths.Path, inputs: dict[str, Array]) -> bool:
    """Whether the inputs are among those that the path's proof is about: in one case some are constants."""
    return all(bool(contains(path.proof.bounds[i], inputs[n]).all()) for n, i in path.trace.graph.inputs.items())


def many(domains: dict[str, Domain], count: int) -> list[dict[str, Array]]:
    rng = np.random.default_rng(1)
    kinds = (sample.draw, sample.mosaic, sample.ordinary)
    made = [{n: kinds[k % 3](d, rng) for n, d in domains.items()} for k in range(count)]
    for k in range(count // 3):  # values at the edges of each other
        one, other = made[int(rng.integers(count))], made[int(rng.integers(count))]
        made.append({n: one[n] if rng.random() < 0.5 else other[n] for n in domains} if k % 2 else {n: np.sort(v) for n, v in one.items()})
    return made


@pytest.mark.parametrize(("loss", "domains"), SAFE.values(), ids=SAFE)
def test_no_input_takes_a_path_unseen_or_leaves_its_bounds(loss: Callable[..., Any], domains: dict[str, Domain]) -> None:
    problem, covered = explored(load(loss, "loss"), domains, "eager")
    assert not covered.unproven
    assert violations(problem, covered, many(domains, 60)) == []


def test_the_harness_finds_a_path_that_was_left_out() -> None:
    loss, domains = SAFE["a selection"]
    problem, covered = explored(load(loss, "loss"), domains, "eager")
    fewer = paths.Covered(covered.paths[:-2], ())
    assert any("no path" in v for v in violations(problem, fewer, many(domains, 60)))


def test_the_harness_finds_a_fact_that_does_not_hold(monkeypatch: pytest.MonkeyPatch) -> None:
    negated = {**conditions._NEGATED, "gt": "lt", "eq": "lt"}  # not (a > b) taken for a < b, not (a == b) for a < b
    monkeypatch.setattr(conditions, "_NEGATED", negated)
    _, domains = SAFE["a sum of a mask"]
    problem, covered = explored(load(lambda x, m: torch.log(masked_mean(x, m)), "loss"), domains, "eager")
    with pytest.raises(AssertionError):
        assert violations(problem, covered, many(domains, 60)) == []


# ---------------------------------------------------------------- what fails on another path is found


def rare_log(x):
    if (x == 0.1).any():
        return torch.log(x - 0.1).sum()
    return x.sum()


def rare_sum(x):
    if x.sum() == 0.7391:
        return torch.log(x * 0).sum()
    return x.sum()


def empty_mean(x):
    loss = x * x
    return loss[loss > 0.5].mean()


def count_divides(x, m):
    return x.sum() / int(m.sum())


def behind_two(x, y):
    if x.max() < -9:
        if y.min() > 9:
            return torch.log(y.min() - 9.5).sum() + x.sum()
        return x.sum()
    return (x * y).sum()


UNSAFE: dict[str, tuple[Callable[..., Any], dict[str, Domain], str]] = {
    "a hair's breadth": (rare_log, {"x": whynan.real(4, low=-1, high=1)}, "torch.log(x - 0.1)"),
    "a sum at one number": (rare_sum, {"x": whynan.real(4, low=-1, high=1)}, "torch.log(x * 0)"),
    "an empty selection": (empty_mean, {"x": whole()}, "loss[loss > 0.5].mean()"),
    "behind two looks": (behind_two, {"x": whole(3), "y": whole(3)}, "torch.log(y.min() - 9.5)"),
}


@pytest.mark.parametrize(("loss", "domains", "text"), UNSAFE.values(), ids=UNSAFE)
def test_what_fails_on_another_path_is_found_and_blamed(loss: Callable[..., Any], domains: dict[str, Domain], text: str) -> None:
    report = whynan.check(loss, **domains)
    assert report.verdict == "unsafe", reasons(report)
    assert text in [f.site.text for f in report.findings if f.kind == "non-finite"]


def test_a_count_that_divides_is_unsafe() -> None:
    report = whynan.check(count_divides, x=whole(4), m=whynan.mask(4))
    assert report.verdict == "unsafe"


# ---------------------------------------------------------------- what cannot be covered stays undecided


def hidden(x):
    """Fails only where two different roundings meet: no search finds it."""
    if torch.sin(x * 1e3).sum() * 1e5 % 1 == 0.123456:
        return torch.log(x * 0).sum()
    return x.sum()


def test_a_path_that_was_not_reached_is_never_taken_for_none() -> None:
    report = whynan.check(hidden, x=whynan.real(4, low=-1, high=1))
    assert report.verdict != "safe"
    assert "true" in reasons(report) or report.verdict == "unsafe"


def test_a_number_that_enters_the_loss_leaves_it_undecided() -> None:
    report = whynan.check(lambda x: x.sum() / (1 + x.abs().max().item()), x=whole(3))
    assert report.verdict == "undecided" and ".item()" in reasons(report)


def test_a_number_that_is_the_same_everywhere_does_not_matter() -> None:
    report = whynan.check(lambda x: x.sum() * (x * 0).sum().item(), x=whole(3))
    assert report.verdict == "safe"


def test_a_path_that_raises_is_named() -> None:
    def loss(x):
        if x.min() < 0:
            raise ValueError("negative numbers are not allowed")
        return torch.sqrt(x + 1).sum()

    report = whynan.check(loss, x=whynan.real(3, low=-1, high=1))
    assert report.verdict == "undecided" and "negative numbers are not allowed" in reasons(report)


@pytest.mark.slow
def test_more_paths_than_the_limit_leave_it_undecided() -> None:
    report = whynan.check(lambda x: (x[x > 0.5] - x[x < -0.5].sum()).sum(), x=whynan.real(12, low=-1, high=1))
    assert report.verdict == "undecided" and str(paths.MOST_LED) in reasons(report)


def test_a_path_that_is_proven_needs_no_input_that_takes_it() -> None:
    def close_pairs(x):
        distances = torch.cdist(x, x)
        near = distances[distances < 1]
        return near.sum() / (1 + len(near))

    report = whynan.check(close_pairs, x=whynan.real(3, 2, low=-5, high=5))  # a number of pairs that is even cannot be
    assert report.verdict == "safe", reasons(report)


def test_a_path_that_no_input_takes_and_that_is_not_proven_stays_open() -> None:
    def lonely(x):
        distances = torch.cdist(x, x)
        near = distances[distances < 1]
        return torch.log(near - 9).sum() if len(near) == 4 else distances.sum()

    report = whynan.check(lonely, x=whynan.real(3, 2, low=-5, high=5))
    assert report.verdict == "undecided" and "the one for 4" in reasons(report)


@pytest.mark.parametrize("told", [[0.0], [1.0], [3.0], [4.0]])
def test_a_recording_that_is_led_is_that_of_inputs_that_take_the_path(told: list[float]) -> None:
    def loss(x):
        above = x > 0
        kept = x[above]
        if above.any():
            return (kept.mean() - x).square()[above].sum() + kept.std(unbiased=len(kept) > 1)
        return x.square().sum()

    program = load(loss, "loss")
    truly = program.capture({"x": np.float32([1.5] * int(told[0]) + [-1.0] * (4 - int(told[0])))}, ("x",), "eager")
    outcomes = [a.low for a in truly.graph.assumptions]
    led = program.capture({"x": np.float32([-0.5, 0.5, -2.0, 0.25])}, ("x",), "eager", told=outcomes)
    assert [a.low for a in led.graph.assumptions] == outcomes and outcomes[0] == told[0]
    assert not varying(truly.graph, led.graph)
    assert [o.node for o in truly.graph.outputs] == [o.node for o in led.graph.outputs]
    seen = np.float32([-0.5, 0.5, -2.0, 0.25])
    program.capture({"x": seen}, ("x",), "eager", told=outcomes)
    assert np.array_equal(seen, np.float32([-0.5, 0.5, -2.0, 0.25]))


def test_the_same_again_is_the_same() -> None:
    first, second = (whynan.check(hard_examples, x=whole(4), y=whole(4)).to_dict() for _ in range(2))
    for report in (first, second):
        report.pop("seconds")
        report["search"].pop("seconds")
    assert first == second


def test_numbers_computed_out_of_sight_are_seen_on_every_path() -> None:
    def loss(x, m):
        if m.any():
            return (x * m).sum()
        return (x * torch.tensor(np.asarray(x.detach()).copy())).sum()

    report = whynan.check(loss, x=whole(3), m=whynan.mask(3))
    assert report.verdict == "undecided"


def test_the_limit_of_paths_bounds_the_recordings() -> None:
    captures = 0
    program = load(lambda x: x[x > 0].sum(), "loss")

    def capture(inputs: Any) -> Any:
        nonlocal captures
        captures += 1
        return program.capture(inputs, ("x",), "eager")

    domains = {"x": whynan.real(40, low=-1, high=1)}
    problem = cases.Problem(capture, domains, 60_000, 0)
    rng = np.random.default_rng(0)
    first, second = ({"x": sample.ordinary(domains["x"], rng)} for _ in range(2))
    trace = capture(first)
    paths.explore(problem, trace, problem.prove(trace.graph), first, second)
    assert captures <= 2 + paths.MOST_PATHS * (1 + paths.MOST_TRIED)


def test_a_loss_that_raises_on_most_inputs_still_ends() -> None:
    def loss(x):
        if (x > 0.5).sum() != 2:
            raise ValueError("two of them")
        return x.sum()

    try:
        report = whynan.check(loss, x=whynan.real(4, low=0, high=1))
    except WhynanError:
        return
    assert report.verdict == "undecided"


# ---------------------------------------------------------------- both cases of one truth


def test_a_quotient_that_one_truth_guards_is_proven_by_cases() -> None:
    def loss(x, m):
        count = m.sum()
        return torch.where(m.any(), (x * m).sum() / torch.where(count == 0, 1, count), x.sum() * 0)

    assert whynan.check(loss, x=whole(4), m=whynan.mask(4)).verdict == "safe"


def test_a_case_that_fails_is_not_proven() -> None:
    """The gradient of the quotient is 0 / 0 where nothing is selected: `where` hides the value only."""

    def loss(x, m):
        return torch.where(m.any(), (x * m).sum() / m.sum(), x.sum() * 0)

    report = whynan.check(loss, x=whole(4), m=whynan.mask(4))
    assert report.verdict == "unsafe"


def test_a_case_is_left_out_only_if_it_contradicts_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: every case that does not prove anything is taken for impossible. Then a failing loss looks safe, which must not be."""
    program = load(lambda x, m: torch.where(m.any(), (x * m).sum() / m.sum(), x.sum() * 0), "loss")
    domains = {"x": whole(4), "m": whynan.mask(4)}
    _, covered = explored(program, domains, "eager")
    assert not covered.paths[0].proof.finite
    monkeypatch.setattr(cases, "contradictory", lambda *given: True)
    _, planted = explored(program, domains, "eager")
    assert planted.paths[0].proof.finite


def test_an_outcome_is_excluded_only_by_a_contradiction(monkeypatch: pytest.MonkeyPatch) -> None:
    """Planted: what was not reached is taken for impossible. Then the path that no search finds is forgotten."""
    monkeypatch.setattr(paths, "reach", lambda *given: [])
    assert whynan.check(rare_log, x=whynan.real(4, low=-1, high=1)).verdict != "safe"
    monkeypatch.setattr(paths, "contradictory", lambda *given: True)
    _, planted = explored(load(rare_log, "loss"), {"x": whynan.real(4, low=-1, high=1)}, "eager")
    assert len(planted.paths) == 1 and not planted.unproven


def test_pairs_of_labels_are_counted_through() -> None:
    """The number of equal pairs is even: the odd ones need no path."""

    def loss(x, t):
        same = (t[:, None] == t[None, :]) & ~torch.eye(3, dtype=torch.bool)
        i, j = torch.where(same)
        return (x[i] - x[j]).square().sum() / max(len(i), 1)

    assert whynan.check(loss, x=whynan.real(3, low=-1, high=1), t=whynan.classes(3, 3)).verdict == "safe"


def test_candidates_are_foreseen_by_the_graph_of_their_path() -> None:
    domains = {"x": whole(4)}
    program = load(lambda x: torch.log(x - 9).sum() if x.max() > 9 else x.sum(), "loss")
    _, covered = explored(program, domains, "eager")
    foresee = paths.foreseeing(covered.paths)
    assert foresee is not None and len(covered.paths) == 2
    tried = [{"x": np.full(4, v, np.float32)} for v in (1.0, 9.5)] + [{"x": np.array([9.5, 9, 9.5, 9.5], np.float32)}]
    assert foresee(tried).fails.tolist() == [False, False, True]


def test_whole_numbers_that_wrap_around_take_their_path() -> None:
    """-1 is 255 as a byte, and the opposite of a byte is no smaller than it: what is known of the result says nothing of its source."""

    def cast(x, k):
        return torch.log(x * 0).sum() if (k.to(torch.uint8) > 100).all() else x.sum()

    def opposite(x, k):
        return torch.log(x * 0).sum() if (-k.to(torch.uint8) > 200).all() else x.sum()

    def magnitude(x, k):
        return torch.log(x * 0).sum() if (k.to(torch.int8).abs() < 0).all() else x.sum()

    for loss, low in ((cast, -1), (opposite, 0), (magnitude, -128)):
        _, covered = explored(load(loss, "loss"), {"x": whole(2), "k": whynan.integers(low, low + 2, 1)}, "eager")
        assert not all(p.proof.finite for p in covered.paths) or covered.unproven, loss


def test_allclose_is_a_look() -> None:
    def loss(x):
        return torch.log(x * 0).sum() if torch.allclose(x, torch.ones(3)) else x.sum()

    assert whynan.check(loss, x=whole(3)).verdict != "safe"


def test_a_single_whole_number_in_a_witness() -> None:
    report = whynan.check(lambda x, k: torch.log(x * k).sum(), x=whole(2), k=whynan.integers(0, 1))
    assert report.verdict == "unsafe"


def test_a_limit_computed_out_of_sight_is_seen_to_vary() -> None:
    """Two recordings are alike only if their attributes are, too: the limit of a clamp is one."""
    limits = iter(range(1, 9))
    program = load(lambda x: x.clamp(max=next(limits)).sum(), "loss")
    _, covered = explored(program, {"x": whole(2)}, "eager")
    assert any("computed outside the framework" in o.reason for o in covered.unproven)
