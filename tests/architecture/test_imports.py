"""`import whynan` loads no framework and little else; every public name can be had."""

import subprocess
import sys
from pathlib import Path

import pytest

SOURCE = Path(__file__).parents[2] / "src"
FRAMEWORKS = ("torch", "tensorflow", "keras", "jax", "jaxlib")
LIGHT = ("whynan", "whynan.domain.parse", "whynan.domain.names", "whynan.domain.sample", "whynan.target", "whynan.samples", "whynan.cli")


def run(code: str) -> str:
    whole = f"import sys; sys.path.insert(0, {str(SOURCE)!r})\n{code}"
    return subprocess.run([sys.executable, "-c", whole], check=True, capture_output=True, text=True).stdout


def frameworks_after(code: str) -> list[str]:
    return run(f"{code}\nprint(*(n for n in {FRAMEWORKS!r} if n in sys.modules))").split()


@pytest.mark.parametrize("module", LIGHT)
def test_no_framework_is_imported(module):
    assert frameworks_after(f"import {module}") == []


def test_the_check_can_fail(tmp_path):
    (tmp_path / "torch.py").write_text("")
    assert frameworks_after(f"sys.path.insert(0, {str(tmp_path)!r}); import torch") == ["torch"]


def seconds(code: str) -> float:
    timed = f"import time; start = time.perf_counter()\n{code}\nprint(time.perf_counter() - start)"
    return min(float(run(timed)) for _ in range(3))


def test_import_costs_less_than_numpys():
    # relative to NumPy, so that a slow machine does not matter
    assert seconds("import whynan") < seconds("import numpy")
    assert run("import whynan; print('numpy' in sys.modules)").strip() == "False"


def test_an_unknown_name_is_an_attribute_error():
    import whynan

    with pytest.raises(AttributeError, match="'nothing'"):
        _ = whynan.nothing


def test_every_public_name_has_a_home_that_defines_it():
    import whynan

    missing = [name for name in whynan.__all__ if getattr(whynan, name, None) is None]
    assert missing == []
    assert set(whynan.__all__) <= set(dir(whynan))
