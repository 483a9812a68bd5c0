"""The gallery's naive losses with the best fix that whynan finds: a Markdown table of before, after and evidence.

    python examples/fixes_table.py [NAME…]          # print the rows of all, or of those files and folders
"""

import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType

import whynan

GALLERY = Path(__file__).parent.resolve() / "gallery"
BEFORE, AFTER = "checked again on the same inputs: ", ", gradients included"  # what each row would say
MOST = 110  # characters of a line of source in the table


def main(names: Sequence[str]) -> None:
    """Print a row per loss that is expected to fail in float32."""
    print("| loss | before | after | | evidence |\n|---|---|---|---|---|")
    for path, module in losses(names):
        print(row(path, module), flush=True)


def losses(names: Sequence[str] = ()) -> Iterator[tuple[Path, ModuleType]]:
    """The gallery's files whose `loss` is unsafe in float32; only those named, or in the folders named, if any are."""
    sys.path.insert(0, str(GALLERY))
    import summary

    for path in summary.files(names):
        module = summary.load(path)
        if module.EXPECTED.get("loss", {}).get("float32", ("", ""))[0] == "unsafe":
            yield path, module


def framework(path: Path) -> str:
    """The framework of a gallery file, by its folder."""
    return {"tensorflow_losses": "tensorflow", "keras_losses": "tensorflow", "jax_losses": "jax"}.get(path.parent.name, "torch")


def fixes(path: Path, module: ModuleType) -> list[whynan.Fix]:
    """The fixes of a gallery file's `loss`, in the modes that the file is about."""
    return whynan.fix(f"{path}:loss", domains=module.DOMAINS, modes=getattr(module, "MODES", None), framework=framework(path))


def row(path: Path, module: ModuleType) -> str:
    """The table's row of one file."""
    name, found = path.relative_to(GALLERY).with_suffix("").as_posix(), fixes(path, module)
    if not found or not found[0].patch:
        return f"| {name} | | none found | | {found[0].title if found else ''} |"
    best = found[0]
    lines = [line for line in best.patch.splitlines() if not line.startswith(("---", "+++", "@@"))]
    before, after = ("<br>".join(code(line[1:]) for line in lines if line[:1] == sign) for sign in "-+")
    said = [line.removeprefix(BEFORE).removesuffix(AFTER) for line in best.evidence.lines()[:2]]
    return f"| {name} | {before} | {after} | {best.applicability} | {'; '.join(said)} |"


def code(line: str) -> str:
    """A line of source for a table's cell."""
    text = line.strip().replace("|", "\\|")
    return f"`{text if len(text) <= MOST else text[: MOST - 1] + '…'}`"


if __name__ == "__main__":
    main(sys.argv[1:])
