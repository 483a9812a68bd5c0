"""Real PyTorch losses: every value that the framework computes, forward and backward, lies within the bounds."""

import pytest
from tests.soundness.real import compare
from tests.soundness.torch_losses import EXAMPLES, Example

DRAWS = 30

CASES = [
    pytest.param(e, dtype, id=f"{e.name}-{dtype}", marks=[pytest.mark.slow] if dtype != "float32" else [])
    for e in EXAMPLES
    for dtype in e.dtypes
]


@pytest.mark.parametrize(("example", "dtype"), CASES)
def test_real_values_lie_within_their_bounds(example: Example, dtype: str) -> None:
    found = compare(example.loss, dict(example.domains(dtype)), "torch", "eager", DRAWS)
    if found.wrong:
        pytest.fail(found.wrong)
    assert found.other_graph <= DRAWS / 2, f"{found.other_graph} of {DRAWS} have another graph although no assumption was violated"
