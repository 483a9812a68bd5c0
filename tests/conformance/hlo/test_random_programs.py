"""The property: what a compiled loss and its gradients give on inputs of the domain lies within the bounds of its graph.

    python -m tests.conformance.hlo.test_random_programs --seconds 600 --seed 7

tries new programs as long as there is time.
"""

import argparse
import time
from collections.abc import Iterator

import numpy as np
import pytest

jax = pytest.importorskip("jax")
from tests.conformance.hlo._compiled import compiled, outside  # noqa: E402
from tests.conformance.hlo._programs import LIMITS, draw_arguments, draw_loss  # noqa: E402

from whynan.domain.interval import make, of_array  # noqa: E402

SHAPE = (3, 4)
SAMPLES = 6


def _held(number: float, dtype: str) -> float:
    """The number as the format holds it."""
    return float(np.asarray(number).astype(dtype))


def violations(seed: int, number: int, dtype: str = "float32") -> Iterator[str]:
    """What is wrong with one random program, in words."""
    draw = np.random.default_rng([seed, number])
    loss = draw_loss(draw, steps=int(draw.integers(2, 7)))
    limits = [LIMITS[int(draw.integers(len(LIMITS)))] for _ in range(2)]
    if dtype != "float32":
        limits = [(_held(max(low, -100.0), dtype), _held(min(high, 100.0), dtype)) for low, high in limits]
    samples = [tuple(draw_arguments(draw, lim, SHAPE, dtype) for lim in limits) for _ in range(SAMPLES)]
    program = compiled(jax.value_and_grad(loss, (0, 1)), *samples[0])
    domains = [make(np.full((1, 1), low), np.full((1, 1), high)) for low, high in limits]
    whole = program.bounds(domains)
    for arguments in samples:
        points = program.bounds([of_array(a) for a in arguments])
        for k, value in enumerate(program.real(arguments)):
            for name, bounds in (("domain", whole[k]), ("point", points[k])):
                out = outside(bounds, value)
                if out.any():
                    at = [[a.tolist() for a in arguments], value[out].tolist(), name, bounds.lo.tolist(), bounds.hi.tolist()]
                    yield f"seed {seed}, program {number}, result {k}: {at}"
                    return


@pytest.mark.parametrize("number", range(12))
def test_results_lie_within_the_bounds(number: int) -> None:
    assert list(violations(1, number)) == []


@pytest.mark.slow
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16"])
def test_more_programs_and_formats(dtype: str) -> None:
    assert [v for number in range(15) for v in violations(2, number, dtype)] == []


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=60.0)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--dtype", default="float32")
    options = parser.parse_args()
    start, count = time.monotonic(), 0
    while time.monotonic() - start < options.seconds:
        for text in violations(options.seed, count, options.dtype):
            print(text[:3000])
        count += 1
    print(f"{count} programs")
