"""Check every loss of the gallery in its number formats and modes and print one table; exit 1 where whynan and the evidence disagree.

python examples/gallery/summary.py                  the table: PyTorch in three formats, the others in float32
python examples/gallery/summary.py --full           everything in three formats
python examples/gallery/summary.py --markdown       the same for README.md
python examples/gallery/summary.py --write          put it into README.md
python examples/gallery/summary.py dice jax_losses  only these files and folders
"""

import argparse
import importlib.util
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from importlib.util import find_spec
from itertools import repeat
from multiprocessing import get_context
from pathlib import Path
from types import ModuleType
from typing import Any

HERE = Path(__file__).resolve().parent
README = HERE.parents[1] / "README.md"
FORMATS = ("float32", "float16", "bfloat16")
BEGIN, END = "<!-- summary: begin -->", "<!-- summary: end -->"
HEAD = ("loss", "what people write", *FORMATS, "why")
KERAS_BACKEND = "tensorflow"  # the answers of keras_losses are those of this backend

Answer = tuple[str, str | None, tuple[str, ...]]  # the verdict, the cause of the main error, the modes in which it fails


@dataclass(frozen=True)
class Group:
    """The files of one folder: which framework runs them, in which modes, what must be installed, and the formats of the short table."""

    framework: str
    modes: tuple[str, ...]
    needs: tuple[str, ...]
    formats: tuple[str, ...] = FORMATS[:1]


GROUPS = {
    "": Group("torch", ("eager",), ("torch",), FORMATS),
    "tensorflow_losses": Group("tensorflow", ("eager", "function"), ("tensorflow",)),
    "keras_losses": Group("tensorflow", ("eager", "function"), ("tensorflow", "keras")),
    "jax_losses": Group("jax", ("jit",), ("jax", "optax")),
}


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
        return (self.name, self.title, *(self.verdicts.get(f, "") for f in FORMATS), self.why)


# ---------------------------------------------------------------- the files


def load(path: Path) -> ModuleType:
    """Import one gallery file by its path."""
    os.environ.setdefault("KERAS_BACKEND", KERAS_BACKEND)
    name = f"gallery_{stem(path).replace('/', '_')}"
    if name not in sys.modules:
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise ImportError(f"{path} cannot be imported.")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module
        spec.loader.exec_module(module)
    return sys.modules[name]


def stem(path: Path) -> str:
    """What a gallery file is called: `dice`, `jax_losses/where_trap`."""
    return path.relative_to(HERE).with_suffix("").as_posix()


def folder(name: str) -> str:
    """The folder in a file's name: empty for PyTorch's losses."""
    return name.rpartition("/")[0]


def missing(group: Group) -> list[str]:
    """The packages that a group needs and that are not installed."""
    return [package for package in group.needs if find_spec(package) is None]


def files(names: Sequence[str] = ()) -> list[Path]:
    """The gallery's files whose framework is installed, folder by folder; only those named, or in the folders named, if any are."""
    every = [p for f in GROUPS for p in sorted((HERE / f).glob("*.py")) if p.name != Path(__file__).name]
    unknown = set(names) - {stem(p) for p in every} - set(GROUPS)
    if unknown:
        raise SystemExit(f"the gallery has no {', '.join(sorted(unknown))}. Names are those of the files in {HERE.name}/, without .py.")
    installed = [p for p in every if not missing(GROUPS[folder(stem(p))])]
    return [p for p in installed if not names or stem(p) in names or folder(stem(p)) in names]


def modes_of(name: str, module: ModuleType) -> tuple[str, ...]:
    """The modes in which a file's losses are checked: its own, or its framework's usual ones."""
    return tuple(getattr(module, "MODES", GROUPS[folder(name)].modes))


def expected(name: str, module: ModuleType, function: str, dtype: str) -> Answer:
    """What the evidence says of one function in one format. An error is there in all modes of its file unless FAILS_IN says where."""
    verdict, cause = module.EXPECTED[function][dtype]
    if cause is None:
        return verdict, None, ()
    modes = getattr(module, "FAILS_IN", {}).get(function, modes_of(name, module))
    if isinstance(modes, Mapping):
        modes = modes.get(dtype, modes_of(name, module))
    return verdict, cause, tuple(modes)


# ---------------------------------------------------------------- the answers


def answer(name: str, module: ModuleType, function: str, dtype: str) -> Answer:
    """What whynan says of one function in one format."""
    import whynan

    group = GROUPS[folder(name)]
    loss, modes = getattr(module, function), modes_of(name, module)
    return answered(whynan.check(loss, domains=module.DOMAINS, dtype=dtype, framework=group.framework, modes=modes))


def answered(report: Any) -> Answer:
    """The verdict of a report, the cause of its main error and the modes it fails in (None and nothing when there is no error)."""
    errors = [f for f in report.findings if f.severity == "error"]
    return (report.verdict, errors[0].cause, tuple(errors[0].modes)) if errors else (report.verdict, None, ())


def rows_of(path: Path, full: bool) -> list[Row]:
    """Check each function of one file in all formats, or in those of the short table."""
    name, module = stem(path), load(path)
    formats = FORMATS if full else GROUPS[folder(name)].formats
    return [row(name, module, function, {f: answer(name, module, function, f) for f in formats}) for function in module.EXPECTED]


def rows(names: Sequence[str] = (), jobs: int = 1, full: bool = True) -> Iterator[Row]:
    """Check each function of the gallery, in so many processes."""
    paths = files(names)
    if jobs == 1:
        for path in paths:
            yield from rows_of(path, full)
        return
    with ProcessPoolExecutor(jobs, get_context("spawn")) as pool:
        for part in pool.map(rows_of, paths, repeat(full)):
            yield from part


def row(name: str, module: ModuleType, function: str, found: Mapping[str, Answer]) -> Row:
    """Put what was found beside what was expected."""
    title = (module.__doc__ or "").splitlines()[0].rstrip(".") if function == "loss" else ""
    causes = dict.fromkeys(cause for _, cause, _ in found.values() if cause)
    verdicts = {f: _verdict(said, modes_of(name, module)) for f, said in found.items()}
    wanted = {f: expected(name, module, function, f) for f in found}
    wrong = tuple(
        f"{name}.{function} in {f}: expected {_words(wanted[f])}, whynan says {_words(said)}"
        for f, said in found.items()
        if said != wanted[f]
    )
    return Row(f"{name}.{function}", title, verdicts, ", ".join(causes), wrong)


def _verdict(answer: Answer, modes: Sequence[str]) -> str:
    """The verdict, with the modes if it fails in some of those checked but not in all."""
    verdict, _, fails = answer
    return f"{verdict} ({', '.join(fails)})" if fails and set(fails) != set(modes) else verdict


def _words(answer: Answer) -> str:
    verdict, cause, modes = answer
    return f"{verdict} ({cause}; {', '.join(modes)})" if cause else verdict


# ---------------------------------------------------------------- the table


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
    parser.add_argument("files", nargs="*", help="only these files (names without .py) and folders")
    parser.add_argument("--jobs", type=int, default=min(2, os.cpu_count() or 1), help="processes to run in")
    parser.add_argument("--full", action="store_true", help="all losses in three formats")
    parser.add_argument("--markdown", action="store_true", help="print the table of README.md")
    parser.add_argument("--write", action="store_true", help="write the table into README.md")
    options = parser.parse_args(argv)
    if options.write and options.files:
        parser.error("--write takes the whole gallery; leave the file names out.")
    if options.write and any(missing(group) for group in GROUPS.values()):
        parser.error("--write takes the whole gallery, and not all of its frameworks are installed.")
    table = list(rows(options.files, options.jobs, options.full or options.markdown or options.write))
    print(markdown(table) if options.markdown else plain(table))
    for name, group in GROUPS.items():
        if absent := missing(group):
            print(f"left out: {HERE.name}/{name}, since {' and '.join(absent)} cannot be imported", file=sys.stderr)
    if options.write:
        write(table)
    wrong = [text for r in table for text in r.mismatches]
    print(f"\n{len(wrong)} of {sum(len(r.verdicts) for r in table)} answers differ from the evidence.", *wrong, sep="\n  ", file=sys.stderr)
    return 1 if wrong else 0


if __name__ == "__main__":
    sys.exit(main())
