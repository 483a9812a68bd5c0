"""Check every loss of the gallery in three number formats and print one table; exit 1 where whynan and the evidence disagree.

python examples/gallery/summary.py               the table, as plain text
python examples/gallery/summary.py --markdown    the same for README.md
python examples/gallery/summary.py --write       put it into README.md
python examples/gallery/summary.py dice iou      only these files
"""

import argparse
import importlib.util
import sys
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType

HERE = Path(__file__).resolve().parent
README = HERE.parents[1] / "README.md"
FORMATS = ("float32", "float16", "bfloat16")
BEGIN, END = "<!-- summary: begin -->", "<!-- summary: end -->"
HEAD = ("loss", "what people write", *FORMATS, "why")


@dataclass(frozen=True)
class Row:
    """One function of the gallery: the answer per format, and what was expected where that is something else."""

    name: str
    title: str
    verdicts: dict[str, str]
    why: str
    mismatches: tuple[str, ...]

    def cells(self) -> tuple[str, ...]:
        """The texts of the row, one per column of the table."""
        return (self.name, self.title, *(self.verdicts[f] for f in FORMATS), self.why)


def load(path: Path) -> ModuleType:
    """Import one gallery file by its path."""
    name = f"gallery_{path.stem}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def files(names: Sequence[str] = ()) -> list[Path]:
    """The gallery's files in the order of their names; only those named, if any are."""
    paths = [p for p in sorted(HERE.glob("*.py")) if p.name != Path(__file__).name]
    unknown = set(names) - {p.stem for p in paths}
    if unknown:
        raise SystemExit(f"the gallery has no {', '.join(sorted(unknown))}. Names are those of the files in {HERE.name}/, without .py.")
    return [p for p in paths if not names or p.stem in names]


def answer(module: ModuleType, function: str, dtype: str) -> tuple[str, str | None]:
    """The verdict of whynan and the cause of its main finding (None when there is no error)."""
    import whynan

    report = whynan.check(getattr(module, function), domains=module.DOMAINS, dtype=dtype)
    causes = [f.cause for f in report.findings if f.severity == "error"]
    return report.verdict, causes[0] if causes else None


def rows(names: Sequence[str] = ()) -> Iterator[Row]:
    """Check each function of the gallery in each format."""
    for path in files(names):
        module = load(path)
        title = (module.__doc__ or "").splitlines()[0].rstrip(".")
        for function, expected in module.EXPECTED.items():
            found = {f: answer(module, function, f) for f in FORMATS}
            yield row(path.stem, title, function, found, expected)


def row(stem: str, title: str, function: str, found: dict[str, tuple[str, str | None]], expected: dict[str, tuple[str, str | None]]) -> Row:
    """Put what was found beside what was expected."""
    causes = dict.fromkeys(cause for _, cause in found.values() if cause)
    wrong = tuple(
        f"{stem}.{function} in {f}: expected {_words(expected[f])}, whynan says {_words(found[f])}"
        for f in FORMATS
        if found[f] != expected[f]
    )
    shown = title if function == "loss" else ""
    return Row(f"{stem}.{function}", shown, {f: verdict for f, (verdict, _) in found.items()}, ", ".join(causes), wrong)


def _words(pair: tuple[str, str | None]) -> str:
    verdict, cause = pair
    return f"{verdict} ({cause})" if cause else verdict


def plain(table: Sequence[Row]) -> str:
    """The table for a terminal: no titles, columns aligned."""
    lines = [(HEAD[0], *HEAD[2:])] + [(r.name, *r.cells()[2:]) for r in table]
    widths = [max(len(line[k]) for line in lines) for k in range(len(lines[0]))]
    return "\n".join("  ".join(cell.ljust(w) for cell, w in zip(line, widths, strict=True)).rstrip() for line in lines)


def markdown(table: Sequence[Row]) -> str:
    """The table for README.md; each loss links to its file."""
    lines = ["| " + " | ".join(HEAD) + " |", "|" + " --- |" * len(HEAD)]
    for r in table:
        name, *rest = r.cells()
        stem, function = name.split(".")
        cells = (f"[{stem}]({HERE.relative_to(README.parent)}/{stem}.py) · `{function}`", *(cell.replace("|", "\\|") for cell in rest))
        lines.append("| " + " | ".join(cells) + " |")
    return "\n".join(lines)


def between_markers(text: str) -> str:
    """The part of README.md that this script writes; ValueError if a marker is missing."""
    start, stop = text.index(BEGIN) + len(BEGIN), text.index(END)
    return text[start:stop].strip()


def write(table: Sequence[Row]) -> None:
    """Put the table between the markers of README.md."""
    text = README.read_text(encoding="utf-8")
    head, tail = text[: text.index(BEGIN) + len(BEGIN)], text[text.index(END) :]
    README.write_text(f"{head}\n{markdown(table)}\n{tail}", encoding="utf-8")


def main(argv: Sequence[str] | None = None) -> int:
    """Print or write the table; 1 if anything differs from what the evidence says."""
    parser = argparse.ArgumentParser(description="Check every loss of the gallery in three number formats.")
    parser.add_argument("files", nargs="*", help="only these files (names without .py)")
    parser.add_argument("--markdown", action="store_true", help="print the table of README.md")
    parser.add_argument("--write", action="store_true", help="write the table into README.md")
    options = parser.parse_args(argv)
    if options.write and options.files:
        parser.error("--write takes the whole gallery; leave the file names out.")
    table = list(rows(options.files))
    print(markdown(table) if options.markdown else plain(table))
    if options.write:
        write(table)
    wrong = [text for r in table for text in r.mismatches]
    print(f"\n{len(wrong)} of {len(table) * len(FORMATS)} answers differ from the evidence.", *wrong, sep="\n  ", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
