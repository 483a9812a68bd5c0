"""docs/claims.md: every claim about TensorFlow, Keras and JAX has a test that runs it, and every file that it names exists."""

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "claims.md").read_text(encoding="utf-8")


def claims(heading):
    """The first cells of the tables under a heading."""
    part = PAGE.split(f"\n## {heading}\n")[1].split("\n## ")[0]
    rows = [line for line in part.splitlines() if line.startswith("| ") and not line.startswith(("| claim", "| ---"))]
    return [line.split(" | ")[0].removeprefix("| ") for line in rows]


def run_by(file):
    """The docstrings of a file's tests."""
    tree = ast.parse((Path(__file__).parent / file).read_text(encoding="utf-8"))
    return [ast.get_docstring(f) for f in tree.body if isinstance(f, ast.FunctionDef) and f.name.startswith("test_")]


@pytest.mark.parametrize(
    ("heading", "file"), [("TensorFlow and Keras", "test_claims_tensorflow.py"), ("JAX and optax", "test_claims_jax.py")]
)
def test_every_claim_is_run_and_every_run_is_told(heading, file):
    assert sorted(claims(heading)) == sorted(run_by(file))


def test_the_files_exist():
    links = re.findall(r"\]\(([^)#]+)\)", PAGE)
    assert len(links) > 50
    assert [link for link in links if not (ROOT / "docs" / link).exists()] == []
