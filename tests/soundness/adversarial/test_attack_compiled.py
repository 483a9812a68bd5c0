"""Proofs of compiled programs withstand the attack; where the fact they lean on breaks, there is no proof."""

import pytest

pytest.importorskip("jax")

import jax.numpy as jnp
from tests.soundness.adversarial.attack import attack, judge
from tests.soundness.adversarial.collection import cases

from whynan.domain.spec import real

CASES = {case.name.partition(".")[2]: case for case in cases("jax")}
LEANING = (
    "clip_at_the_smallest_normal",
    "masked_square",
    "sine_of_the_angle",
    "log_of_one_minus_cosine",
    "total_but_one",
    "guarded_log_sum_exp",
)
BREAKING = ("clip_at_a_subnormal", "add_a_subnormal", "root_of_a_norm_is_no_norm", "rest_of_a_simplex", "sorted_gaps_backwards")


@pytest.mark.slow
@pytest.mark.parametrize("name", LEANING)
def test_a_proof_withstands_the_attack(name: str) -> None:
    result = judge(name, CASES[name].loss, CASES[name].domains, "float32", runs=600, seconds=2, framework="jax")
    assert result.verdict == "safe"
    assert result.attacked is not None and not result.attacked.failures


@pytest.mark.slow
@pytest.mark.parametrize("name", BREAKING)
def test_a_fact_is_not_used_where_it_breaks(name: str) -> None:
    assert judge(name, CASES[name].loss, CASES[name].domains, "float32", runs=0, framework="jax").verdict == "unsafe"


def test_the_attack_finds_what_a_false_proof_would_hide() -> None:
    found = attack(lambda x: (1 / (x - 0.3)).mean(), {"x": real(4, 3, low=-10, high=10)}, runs=2000, seconds=10, framework="jax")
    assert found.failures
    assert not attack(lambda x: jnp.log(x).mean(), {"x": real(4, 3, low=0.5, high=1)}, runs=500, seconds=5, framework="jax").failures
