"""The search: what it finds without help, that it repeats itself under a seed, and that it counts truly and stops."""

from collections.abc import Callable, Mapping

import numpy as np
import pytest

from whynan.analysis.search import Failure, Searched, fingerprint, search, signature
from whynan.domain import sample
from whynan.domain.spec import Domain, binary, classes, const, mask, onehot, positive, prob, real, simplex, unit
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run

Inputs = Mapping[str, Array]
ENOUGH = 600


def run(loss: float, **gradients: Array) -> Run:
    return Run(np.asarray(loss, np.float32), gradients)


def failing_where(condition: Callable[..., object], counted: list[Inputs] | None = None) -> Callable[[Inputs], Run]:
    """A loss that is NaN where a condition on its inputs holds."""

    def execute(inputs: Inputs) -> Run:
        if counted is not None:
            counted.append(inputs)
        return run(float("nan") if bool(np.any(np.asarray(condition(**inputs)))) else 0.0)

    return execute


def found(condition: Callable[..., object], domains: Mapping[str, Domain], seed: int = 0) -> tuple[Failure, ...]:
    result = search(failing_where(condition), domains, seed=seed, evaluations=ENOUGH, seconds=30)
    for failure in result.failures:
        assert all(sample.contains(d, failure.inputs[n]) for n, d in domains.items())
    return result.failures


COINCIDENCES = {
    "two inputs equal": (lambda a, b: (a == b).all(), {"a": real(4), "b": real(4)}),
    "two inputs equal, neither zero": (lambda a, b: (a == b).all() and (a != 0).all(), {"a": real(4), "b": real(4)}),
    "two rows equal": (lambda x: (x[0] == x[1]).all() and (x[0] != x[0, 0]).any(), {"x": real(3, 4)}),
    "one value everywhere": (lambda x: (x == x.flat[0]).all(), {"x": real(3, 4)}),
    "a row of zeros beside others": (lambda x: (x[0] == 0).all() and (x[1] != 0).all(), {"x": real(3, 4)}),
    "an empty mask": (lambda m: not m.any(), {"m": mask(16), "x": real(16)}),
    "a full mask": (lambda m: m.all(), {"m": mask(16), "x": real(16)}),
    "an empty row of a mask": (lambda m: not m[0].any() and m[1].any(), {"m": mask(4, 8)}),
    "all of one class": (lambda t: (t == t[0]).all(), {"t": classes(5, 12)}),
    "the last class": (lambda t: (t == 4).any(), {"t": classes(5, 12)}),
    "no positive targets": (lambda t: not t.any(), {"t": binary(20)}),
    "a probability of exactly 1 with target 0": (lambda p, t: ((p == 1) & (t == 0)).any(), {"p": prob(6), "t": binary(6)}),
    "a probability of exactly 0 with target 1": (lambda p, t: ((p == 0) & (t == 1)).any(), {"p": prob(6), "t": binary(6)}),
    "a vertex of the simplex": (lambda p: (p == 1).any(), {"p": simplex(3, 5)}),
    "a zero on the simplex": (lambda p: (p == 0).any(), {"p": simplex(3, 5)}),
    "an axis": (lambda u: (np.abs(u) == 1).any(), {"u": unit(2, 3)}),
    "the ends of a range": (lambda x: (x == 7.25).any(), {"x": real(4, low=-3, high=7.25)}),
    "all at the upper end": (lambda x: (x == 100).all(), {"x": real(8, low=-100, high=100)}),
    "the smallest positive number": (lambda x: (x < 1e-44).any(), {"x": positive(4)}),
    "squares that underflow": (lambda x: (np.sum(x * x) == 0) and (x != 0).any(), {"x": real(6)}),
    "the float below 1": (lambda p: (p == np.nextafter(np.float32(1), np.float32(0))).any(), {"p": prob(4)}),
    "opposite ends": (lambda a, b: (a == 10).all() and (b == -10).all(), {"a": real(3, low=-10, high=10), "b": real(3, low=-10, high=10)}),
    "one hot in the same place": (lambda t: (t.argmax(-1) == 0).all(), {"t": onehot(4, 5)}),
}


@pytest.mark.parametrize(("condition", "domains"), COINCIDENCES.values(), ids=COINCIDENCES)
def test_finds(condition: Callable[..., object], domains: Mapping[str, Domain]) -> None:
    def on(**inputs: Array) -> object:
        names = condition.__code__.co_varnames[: condition.__code__.co_argcount]
        with np.errstate(all="ignore"):
            return condition(**{n: inputs[n] for n in names})

    assert found(on, domains)


def keys(result: Searched) -> list[tuple[object, ...]]:
    return [(f.signature, *(a.tobytes() for a in f.inputs.values())) for f in result.failures]


def test_the_same_seed_gives_the_same_failures_and_another_seed_others() -> None:
    domains = {"x": real(6), "m": mask(6)}

    def once(seed: int) -> Searched:
        return search(failing_where(lambda x, m: (x * m).sum() > 3), domains, seed=seed, evaluations=200, seconds=30)

    assert keys(once(3)) == keys(once(3)) and once(3).evaluations == once(3).evaluations
    seen: list[list[bytes]] = []
    for seed in (3, 4):
        log: list[Inputs] = []
        search(failing_where(lambda x, m: False, log), domains, seed=seed, evaluations=200, seconds=30)
        seen.append([i["x"].tobytes() for i in log])
    assert seen[0] != seen[1]


def test_the_number_of_evaluations_is_the_number_of_runs() -> None:
    for most in (1, 7, 150):
        log: list[Inputs] = []
        result = search(failing_where(lambda x: False, log), {"x": real(5)}, evaluations=most, seconds=30)
        assert result.evaluations == len(log) == most


def test_a_spent_time_stops_it() -> None:
    log: list[Inputs] = []
    result = search(failing_where(lambda x: False, log), {"x": real(5)}, evaluations=10_000, seconds=0.02)
    assert 0 < result.evaluations == len(log) < 10_000 and result.seconds < 2


def test_a_search_that_has_seen_both_kinds_of_failure_stops_early() -> None:
    def execute(inputs: Inputs) -> Run:
        x = inputs["x"].astype(np.float64)
        return run(float("nan") if x.max() > 100 else 0.0, x=np.where(x < 0, np.inf, 0.0))

    result = search(execute, {"x": real(5)}, evaluations=5000, seconds=30)
    assert {f.signature for f in result.failures} >= {("loss",), ("x",)} and result.evaluations < 1000


def test_every_candidate_lies_in_its_domain() -> None:
    domains = {
        "r": real(3, low=-2, high=5),
        "p": prob(3),
        "s": simplex(2, 3),
        "u": unit(2, 3),
        "o": onehot(2, 3),
        "c": classes(4, 3),
        "k": const([1.5, 2.5]),
        "h": real(3, dtype="float16"),
    }
    log: list[Inputs] = []
    search(failing_where(lambda **_: False, log), domains, evaluations=ENOUGH, seconds=30)
    for inputs in log:
        for name, d in domains.items():
            assert inputs[name].dtype == d.format.numpy and sample.contains(d, inputs[name]), name


def test_hints_are_tried_before_chance() -> None:
    """A point that nobody would guess is found through the range the prover left open."""
    target = np.float32(0.7310586)
    hidden = {"x": real(4, low=0, high=1)}
    execute = failing_where(lambda x: (x == target).any())
    assert not search(execute, hidden, evaluations=300, seconds=30).failures
    assert search(execute, hidden, hints=[{"x": (float(target), float(target))}], evaluations=300, seconds=30).failures


def test_proposals_are_given_to_the_real_function() -> None:
    point = np.array([0.123, 0.456], np.float32)
    execute = failing_where(lambda x: (x == point).all())
    result = search(execute, {"x": prob(2)}, proposals=lambda: iter([{"x": point}]), evaluations=ENOUGH, seconds=30)
    assert [f.inputs["x"].tolist() for f in result.failures] == [point.tolist()]


def test_runs_that_raise_are_no_failures() -> None:
    result = search(lambda inputs: Run(np.empty(0), {}, "ValueError: no"), {"x": real(3)}, evaluations=50, seconds=30)
    assert result.failures == () and result.evaluations == 50 and result.steepest is None


def test_a_few_failures_of_each_way_of_failing_are_kept() -> None:
    def execute(inputs: Inputs) -> Run:
        x = inputs["x"].astype(np.float64)
        return run(np.inf if x[0] > 0 else -np.inf if x[0] < 0 else np.nan, x=np.zeros(3))

    result = search(execute, {"x": real(3)}, evaluations=100, seconds=30)
    kinds = [fingerprint(f.run) for f in result.failures]
    assert len(set(kinds)) == 3 and max(map(kinds.count, kinds)) <= 5


def test_the_steepest_finite_run_is_remembered() -> None:
    def execute(inputs: Inputs) -> Run:
        x = inputs["x"]
        return run(float("nan") if (x > 500).any() else 0.0, x=x.astype(np.float32) * 2)

    log = search(execute, {"x": real(3, low=-1000, high=1000)}, evaluations=300, seconds=30)
    assert log.steepest is not None and log.steepest.size == 2000 and log.steepest.inputs["x"].min() == -1000


def test_a_gradient_that_is_missing_on_some_inputs_is_remembered() -> None:
    def execute(inputs: Inputs) -> Run:
        x = inputs["x"]
        return run(0.0) if (x == 0).all() else run(0.0, x=x)

    result = search(execute, {"x": real(3)}, evaluations=300, seconds=30)
    assert result.detached is not None and not result.detached.inputs["x"].any()
    always = search(lambda inputs: run(0.0, x=inputs["x"]), {"x": real(3)}, evaluations=100, seconds=30)
    assert always.detached is None


def test_signatures_name_the_outputs_that_are_not_finite() -> None:
    good, bad = np.zeros(2), np.array([0.0, np.inf])
    assert signature(run(0.0, a=good, b=good)) == ()
    assert signature(run(np.nan, a=good, b=bad)) == ("loss", "b")


def test_fingerprints_tell_nan_from_either_infinity() -> None:
    kinds = {fingerprint(run(x)) for x in (0.0, np.nan, np.inf, -np.inf)}
    assert len(kinds) == 4
