"""The reproductions in docs/defects.md give what the page says."""

import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

PAGE = Path(__file__).resolve().parents[2] / "docs" / "defects.md"
BLOCKS = re.findall(r"^## (.+?)\n.*?^```python\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)


def test_each_defect_has_lines_that_show_it() -> None:
    titles = re.findall(r"^## (.+)$", PAGE.read_text("utf-8"), re.MULTILINE)
    assert [title for title, _ in BLOCKS] == titles[:-1] and titles[-1] == "What is no defect"


@pytest.mark.slow
@pytest.mark.parametrize(("title", "code"), BLOCKS, ids=[title.split("`")[1] for title, _ in BLOCKS])
def test_the_lines_give_a_nan_or_an_infinity(title: str, code: str) -> None:
    packages = re.findall(r"(?:^from|^import|,) ?(\w+)", "\n".join(line for line in code.splitlines() if "import" in line), re.MULTILINE)
    missing = [name for name in packages if importlib.util.find_spec(name) is None]
    if missing:
        pytest.skip(f"{missing[0]} is not installed")
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False, env={**os.environ, **quiet})
    assert done.returncode == 0, done.stderr
    assert "nan" in done.stdout, done.stdout
