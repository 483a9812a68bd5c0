"""What every offered change must hold: the changed file parses, and its check in a fresh process is never unsafe."""

import importlib.util
import sys
from pathlib import Path

import pytest

pytest.importorskip("torch")
pytest.importorskip("egglog")

ROOT = Path(__file__).resolve().parents[1]


@pytest.fixture(scope="module")
def benchmark():
    spec = importlib.util.spec_from_file_location("benchmark_fixes", ROOT / "benchmarks" / "fixes.py")
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module  # a dataclass looks its module up
    spec.loader.exec_module(module)
    return module


@pytest.mark.slow
def test_the_best_fix_of_a_gallery_loss_holds_in_a_fresh_process(benchmark) -> None:
    ((path, module),) = benchmark.losses(["log_sum_exp"])
    found = benchmark.outcome(path, module, most=1)
    assert found.grade == "verified" and found.verdicts == ("safe",)


@pytest.mark.slow
def test_a_change_that_breaks_the_file_or_keeps_the_failure_is_counted(benchmark, tmp_path: Path) -> None:
    ((path, module),) = benchmark.losses(["distance"])

    class Change:
        def __init__(self, new: str) -> None:
            self.path, self.new, self.encoding = path, new, "utf-8"

    class Fix:
        def __init__(self, new: str) -> None:
            self.changes = (Change(new),)

    assert benchmark.checked_again(path, module, Fix("def loss(:")) == "does not parse"
    assert benchmark.checked_again(path, module, Fix(path.read_text())) == "unsafe"
