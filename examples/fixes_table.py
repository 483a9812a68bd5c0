"""The gallery's naive PyTorch losses with the best fix that whynan finds: a Markdown table of before, after and evidence.

    python examples/fixes_table.py [NAME…]          # print the rows
"""

import importlib.util
import sys
from pathlib import Path
from types import ModuleType

import whynan

GALLERY = Path(__file__).parent / "gallery"
MOST = 110  # characters of a line of source in the table


def main(names: list[str]) -> None:
    """Print a row per loss that is expected to fail in float32."""
    print("| loss | before | after | | evidence |\n|---|---|---|---|---|")
    for path in sorted(GALLERY.glob("*.py")):
        if path.stem == "summary" or (names and path.stem not in names):
            continue
        module = loaded(path)
        if module.EXPECTED.get("loss", {}).get("float32", ("", ""))[0] == "unsafe":
            print(row(path, module), flush=True)


def loaded(path: Path) -> ModuleType:
    """A gallery file as a module."""
    spec = importlib.util.spec_from_file_location(f"gallery_{path.stem}", path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def row(path: Path, module: ModuleType) -> str:
    """The table's row of one file."""
    found = whynan.fix(f"{path}:loss", domains=module.DOMAINS)
    if not found or not found[0].patch:
        return f"| {path.stem} | | none found | | |"
    best = found[0]
    lines = [line for line in best.patch.splitlines() if not line.startswith(("---", "+++", "@@"))]
    before, after = ("<br>".join(code(line[1:]) for line in lines if line[:1] == sign) for sign in "-+")
    said = [*best.evidence.lines()[:2]]
    return f"| {path.stem} | {before} | {after} | {best.applicability} | {'; '.join(said)} |"


def code(line: str) -> str:
    """A line of source for a table's cell."""
    text = line.strip().replace("|", "\\|")
    return f"`{text if len(text) <= MOST else text[: MOST - 1] + '…'}`"


if __name__ == "__main__":
    main(sys.argv[1:])
