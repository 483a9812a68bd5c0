"""Random graphs: every value of a run lies within the bounds that the analysis proves (see graphs.py and violations.py)."""

import numpy as np
import pytest
from tests.soundness.fuzz import main
from tests.soundness.graphs import Maker, check_generator, draw_case
from tests.soundness.violations import EXACT, HOWS, checked, minimised, violations

SEED = 0
CHUNK = 1000
CHUNKS = 10
COMPILED_CHUNK = 250


def check(first: int, last: int, compiled: bool = False, conditional: bool = False) -> None:
    """Graphs first to last - 1; every sixth in all ways but one, every hundredth in that too."""
    for k in range(first, last):
        case = draw_case(np.random.default_rng([SEED, k]), compiled, conditional)
        wrong = next(violations(case, (HOWS if k % 6 == 0 else ("refined",)) + (EXACT if k % 100 == 0 else ())), None)
        if wrong is not None:
            pytest.fail(f"seed {SEED}, graph {k}:\n{minimised(wrong)}")


@pytest.mark.parametrize("chunk", [pytest.param(c, marks=[pytest.mark.slow] if c else []) for c in range(CHUNKS)])
def test_values_lie_within_their_bounds(chunk: int) -> None:
    check(chunk * CHUNK, (chunk + 1) * CHUNK)


@pytest.mark.parametrize("chunk", [pytest.param(c, marks=[pytest.mark.slow] if c else []) for c in range(4)])
def test_values_of_compiled_graphs_lie_within_their_bounds(chunk: int) -> None:
    check(chunk * COMPILED_CHUNK, (chunk + 1) * COMPILED_CHUNK, compiled=True)


@pytest.mark.parametrize("chunk", [pytest.param(c, marks=[pytest.mark.slow] if c else []) for c in range(4)])
def test_values_of_graphs_with_conditions_lie_within_their_bounds(chunk: int) -> None:
    check(chunk * COMPILED_CHUNK, (chunk + 1) * COMPILED_CHUNK, conditional=True)


def test_the_generator_names_only_known_ops() -> None:
    check_generator()


def test_graphs_are_the_same_for_the_same_seed() -> None:
    one, two = (draw_case(np.random.default_rng([7, 7])) for _ in "ab")
    assert [(n.op, n.inputs, n.shape) for n in one.graph.nodes] == [(n.op, n.inputs, n.shape) for n in two.graph.nodes]
    assert all(np.array_equal(one.inputs[name], two.inputs[name], equal_nan=True) for name in one.inputs)


def test_bounds_say_something() -> None:
    """A test on graphs whose bounds are all "anything" would be empty: most bounds exclude something."""
    cases = [draw_case(np.random.default_rng([SEED, k])) for k in range(100)]
    assert sum(map(checked, cases)) > 0.6 * sum(len(c.graph.nodes) for c in cases)


def test_graphs_vary() -> None:
    """Every operation family and every structure occurs often."""
    cases = [draw_case(np.random.default_rng([SEED, k])) for k in range(400)]
    ops = {n.op for c in cases for n in c.graph.nodes}
    assert len(ops) > 90
    assert {n.format.name for c in cases for n in c.graph.nodes} >= {"float64", "float32", "float16", "bfloat16", "bool"}
    shared = sum(len(n.inputs) == 2 and n.inputs[0] == n.inputs[1] for c in cases for n in c.graph.nodes)
    assert shared > 50


def test_compiled_graphs_vary() -> None:
    """What compilers and other frameworks add occurs often."""
    cases = [draw_case(np.random.default_rng([SEED, k]), compiled=True) for k in range(300)]
    nodes = [n for c in cases for n in c.graph.nodes]
    assert sum(n.format.flush for n in nodes) > len(nodes) / 4
    for op in ("fma", "either", "sort_values"):
        assert sum(n.op == op for n in nodes) > 10, op
    assert sum(bool(n.attrs.get("contracted")) for n in nodes) > 10
    assert sum(bool(c.simplexes) for c in cases) > 10
    assert sum(n.op == "input" and n.format.kind == "int" for n in nodes) > 10


def test_samples_hold_the_edges_of_their_domain() -> None:
    maker = Maker(np.random.default_rng(3))
    drawn = [maker.input((3,)) for _ in range(60)]
    names = list(maker.inputs)
    assert len(drawn) == len(names)
    values = np.concatenate([maker.samples[n].astype(np.float64).reshape(-1) for n in names])
    assert ((values == 0) & np.signbit(values)).any()
    assert ((values == 0) & ~np.signbit(values)).any()
    hit = [(maker.samples[n].astype(np.float64) == maker.domains[n].hi).any() for n in names]
    assert sum(hit) > 50


def test_the_command_counts_what_it_checked(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--graphs", "150", "--seconds", "60", "--seed", "5", "--jobs", "1"]) == 0
    assert capsys.readouterr().out.startswith("seed 5: 150 graphs")
