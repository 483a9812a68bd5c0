"""Fix every naive loss of the gallery, write each offered change into a copy, and check the copy in a fresh process.

    python benchmarks/fixes.py [NAME…] [--best]      # files or folders of the gallery; --best: only the first fix of each

Prints a line per loss and the counts of what must hold: a changed file parses, and its check, by the command line, is never `unsafe`.
Exit code 1 where one of them does not. Times are processor seconds of `whynan.fix`, its first check included.
"""

import ast
import json
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "examples"))
from fixes_table import GALLERY, fixes, framework, losses

LIMIT = 300.0  # seconds for one check in a fresh process


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one loss: the best fix's grade ("none" without one), the verdicts of all changed copies, the seconds."""

    name: str
    grade: str
    verdicts: tuple[str, ...]
    seconds: float


def main(arguments: Sequence[str] = ()) -> None:
    """Print a line per loss and the counts."""
    best = "--best" in arguments
    outcomes = []
    for path, module in losses([a for a in arguments if a != "--best"]):
        outcomes.append(outcome(path, module, 1 if best else None))
        o = outcomes[-1]
        print(f"{o.name:40} {o.grade:14} {o.seconds:6.1f} s   {' '.join(o.verdicts)}", flush=True)
    verdicts = Counter(v for o in outcomes for v in o.verdicts)
    share = sum(o.grade == "verified" for o in outcomes) / max(len(outcomes), 1)
    print(f"losses: {len(outcomes)}; best fix: {_counted(Counter(o.grade for o in outcomes))}; verified: {share:.0%}")
    print(f"changed files checked again in a fresh process: {sum(verdicts.values())}: {_counted(verdicts)}")
    spent = [o.seconds for o in outcomes]
    print(f"seconds for each loss: median {statistics.median(spent):.1f}, most {max(spent):.1f}")
    if verdicts.keys() - {"safe", "undecided"}:
        sys.exit(1)


def outcome(path: Path, module: ModuleType, most: int | None = None) -> Outcome:
    """Fix one loss and check the first `most` changed copies (all without a limit)."""
    start = time.process_time()
    found = fixes(path, module)
    spent = time.process_time() - start
    changes = [f for f in found if f.changes][:most]
    return Outcome(
        path.relative_to(GALLERY).with_suffix("").as_posix(),
        next((f.applicability for f in found), "none"),
        tuple(checked_again(path, module, f) for f in changes),
        spent,
    )


def checked_again(path: Path, module: ModuleType, fix: Any) -> str:
    """The verdict, by the command line, on a copy of the gallery with a fix written into it; "does not parse" or "error" else."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder) / "gallery"
        shutil.copytree(GALLERY, home)
        for change in fix.changes:
            text = change.new.encode(change.encoding)
            try:
                ast.parse(text)
            except SyntaxError:
                return "does not parse"
            (home / change.path.relative_to(GALLERY)).write_bytes(text)
        return verdict(home / path.relative_to(GALLERY), module)


def verdict(path: Path, module: ModuleType) -> str:
    """What `whynan check` says of a file's `loss` in a fresh process."""
    options = [part for name, domain in module.DOMAINS.items() for part in ("-d", f"{name}={domain}")]
    modes = getattr(module, "MODES", ())
    options += [part for mode in modes for part in ("--mode", mode)]
    command = [sys.executable, "-m", "whynan", "check", f"{path}:loss", "--framework", framework(path), "--format", "json", *options]
    ran = subprocess.run(command, capture_output=True, text=True, timeout=LIMIT, check=False)
    try:
        return str(json.loads(ran.stdout)["verdict"])
    except (ValueError, KeyError):
        return f"error: {ran.stderr.strip()[-200:]}"


def _counted(counts: Counter[str]) -> str:
    return ", ".join(f"{n} {what}" for what, n in counts.most_common()) or "none"


if __name__ == "__main__":
    main(sys.argv[1:])
