"""The table of docs/fixes.md: it lists every naive loss of the gallery, quotes its source, and is what the code finds."""

import ast
import importlib.util
import re
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
GALLERY = ROOT / "examples" / "gallery"
FOLDERS = ("", "tensorflow_losses", "keras_losses", "jax_losses")
CUT = "…"  # where a line of source is too long for the table


def naive() -> dict[str, str]:
    """The sources of the gallery's files whose `loss` fails in float32, by the name that the table gives them."""
    found = {}
    for path in (p for folder in FOLDERS for p in sorted((GALLERY / folder).glob("*.py"))):
        text = path.read_text()
        expected = [s.value for s in ast.parse(text).body if isinstance(s, ast.Assign) and getattr(s.targets[0], "id", "") == "EXPECTED"]
        if expected and ast.literal_eval(expected[0]).get("loss", {}).get("float32", ("",))[0] == "unsafe":
            found[path.relative_to(GALLERY).with_suffix("").as_posix()] = text
    return found


def rows() -> dict[str, list[str]]:
    """The cells of the table's rows by name: before, after, grade and evidence."""
    text = (ROOT / "docs" / "fixes.md").read_text()
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in text[text.index("| loss | before") :].splitlines()[2:] if line.startswith("|")]
    return {cells[0].strip(): [c.strip() for c in cells[1:]] for cells in lines}


def test_the_table_lists_every_naive_loss_of_the_gallery() -> None:
    assert list(rows()) == list(naive())


def test_what_it_quotes_stands_in_the_source() -> None:
    sources = naive()
    for name, (before, *_) in rows().items():
        for line in filter(None, before.split("<br>")):
            quoted = line.strip("`").replace("\\|", "|").removesuffix(CUT)
            assert quoted in sources[name], (name, line)


def test_every_naive_loss_has_a_change_of_its_source() -> None:
    found = rows()
    assert all(grade in ("verified", "needs-review") for _, _, grade, _ in found.values())
    assert sum(grade == "verified" for _, _, grade, _ in found.values()) >= 0.75 * len(found)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["distance", "log_sum_exp"])
def test_a_row_is_what_the_code_finds(name: str) -> None:
    pytest.importorskip("torch")
    pytest.importorskip("egglog")
    spec = importlib.util.spec_from_file_location("fixes_table", ROOT / "examples" / "fixes_table.py")
    table = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = table
    spec.loader.exec_module(table)
    ((path, module),) = table.losses([name])
    assert [c.strip() for c in re.split(r"(?<!\\)\|", table.row(path, module))[2:5]] == rows()[name][:3]
