"""Real JAX losses: every result that XLA computes, and in eager mode every value inside, lies within the bounds."""

import pytest

pytest.importorskip("jax")

from tests.soundness.adversarial.collection import Case, cases, gallery, suite
from tests.soundness.real import compare

from whynan.domain.spec import retyped
from whynan.errors import TargetError

CASES = [*cases("jax"), *list(suite("jax"))[::2], *list(gallery("jax"))[::2]]  # `attack` goes through all of them
QUICK = ("tricky_jax.clip_at_a_subnormal", "tricky_jax.sine_of_the_angle", "tricky_jax.total_of_a_simplex")
HALF = ("tricky_jax.difference_of_unequal", "tricky_jax.sine_of_the_angle", "tricky_jax.rest_of_a_simplex", "tricky_jax.squashed")
EAGER = (*QUICK, "tricky_jax.guarded_log_sum_exp", "tricky_jax.difference_of_unequal", "tricky_jax.fused_cancellation")
STATIC = {"suite.smoothness"}  # does not depend on its input: it is not recorded


def check(case: Case, dtype: str, mode: str, draws: int) -> None:
    domains = {n: retyped(d, dtype) for n, d in case.domains.items()}
    try:
        found = compare(case.loss, domains, "jax", mode, draws)
    except TargetError:
        assert case.name in STATIC
        return
    assert not found.wrong, found.wrong
    assert found.compared + found.other_path >= draws / 2


@pytest.mark.parametrize("case", [pytest.param(c, id=c.name, marks=[] if c.name in QUICK else [pytest.mark.slow]) for c in CASES])
def test_results_lie_within_their_bounds(case: Case) -> None:
    check(case, "float32", "jit", 25)


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES if c.name in HALF])
def test_other_formats(case: Case, dtype: str) -> None:
    check(case, dtype, "jit", 20)


@pytest.mark.slow
@pytest.mark.parametrize("case", [pytest.param(c, id=c.name) for c in CASES if c.name in EAGER])
def test_values_inside_lie_within_their_bounds(case: Case) -> None:
    check(case, "float32", "eager", 6)
