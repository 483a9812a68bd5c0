"""Check losses and attack every proof: `python -m tests.soundness.adversarial [NAME…] [--audit PLACE] [--corpus DIR] [--jobs 2]`.

Without a place it takes the collection, gallery and suite of each framework, in all dtypes; `--audit` (repeatable) the losses that an
audit calls safe, from its output folder or from benchmarks/audit/results.json; `--corpus` (repeatable) a folder of cases
(`targets.told`), both in their own dtypes. A line is printed as each is done, with how many there are and how long the rest will take,
and kept in `--answers FILE`: a command that was interrupted goes on where it stopped, and attacks again what only a shorter limit kept
from `--runs`. The exit code is 1 if a proof is false, 2 if a process died.
"""

import argparse
import json
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from tests.soundness.adversarial.attack import Result, confirmed, judge
from tests.soundness.adversarial.targets import Target, collected, proven, tabled, told

from whynan.frontends import FRAMEWORKS

ALL = "0/1"
DTYPES = ("float32", "float16", "bfloat16", "float64")


def main(arguments: list[str]) -> int:
    """Check and attack all losses, or those whose names contain one of the words given; 1 if a proof was false, 2 if a process died."""
    options = _options(arguments)
    with tempfile.TemporaryDirectory() as folder:
        answers = options.answers or Path(folder) / "answers.jsonl"
        answers.parent.mkdir(parents=True, exist_ok=True)
        ended = _together(arguments, options.jobs, answers) if options.jobs > 1 else _work(options, answers)
        if options.part != ALL:
            return 0
        found = _known(answers)
    print(summary(found, options.runs))
    if any(row["failures"] for row in found.values() if row["verdict"] == "safe"):
        return 1
    return 2 if ended else 0


def summary(found: dict[str, dict[str, Any]], runs: int) -> str:
    """How many verdicts there are, how many of the proofs had so many runs, which had least, and how many fell."""
    counts = Counter(row["verdict"] for row in found.values())
    safe = {key: row["runs"] for key, row in found.items() if row["verdict"] == "safe"}
    told = ", ".join(f"{n} {verdict}" for verdict, n in sorted(counts.items()))
    if not safe:
        return f"{told or 'nothing found'}: no proof to attack"
    least, fell = min(safe, key=lambda key: safe[key]), [key for key in safe if found[key]["failures"]]
    return (
        f"{told}: {sum(n >= runs for n in safe.values())} of {len(safe)} proofs met {runs} evaluations or more, "
        f"the least {safe[least]} ({least}), {sum(safe.values())} in all; {len(fell)} false proofs{': ' * bool(fell)}{', '.join(fell)}"
    )


def _options(arguments: list[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog=f"python -m {__package__}", description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("words", nargs="*", metavar="NAME")
    parser.add_argument("--framework", action="append", choices=tuple(FRAMEWORKS), help="of the collection; repeatable, else all")
    parser.add_argument("--mode", default="", help="of the collection; the framework's default mode if none is given")
    parser.add_argument("--dtypes", default=",".join(DTYPES), help="of the collection")
    parser.add_argument("--audit", type=Path, action="append", default=[], metavar="PLACE", help="an audit's output folder, or the table")
    parser.add_argument("--corpus", type=Path, action="append", default=[], metavar="DIR", help="a folder of cases")
    parser.add_argument("--runs", type=int, default=10_000)
    parser.add_argument("--seconds", type=float, default=120.0, help="at most so long for each attack")
    parser.add_argument("--jobs", type=int, default=1, help="so many processes at a time")
    parser.add_argument("--answers", type=Path, metavar="FILE", help="keep the answers here, and do not repeat what is there")
    parser.add_argument("--part", default=ALL, help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    for folder in options.audit:
        if folder.suffix != ".json" and not (folder / "losses").is_dir():
            parser.error(f"{folder} is no output folder of an audit: it has no folder losses.")
    return options


def _targets(options: argparse.Namespace) -> Iterator[Target]:
    for folder in options.audit:
        yield from proven(folder) if folder.is_dir() else tabled(folder)
    for folder in options.corpus:
        yield from told(folder)
    if options.framework or not (options.audit or options.corpus):
        for framework in options.framework or FRAMEWORKS:
            yield from collected(framework, options.mode, options.dtypes.split(","))


# ---------------------------------------------------------------- one of several processes


def _together(arguments: list[str], jobs: int, answers: Path) -> int:
    """Share the work between processes; returns how many of them died."""
    parts = [["--jobs", "1", "--part", f"{k}/{jobs}", "--answers", str(answers)] for k in range(jobs)]
    started = [subprocess.Popen([sys.executable, "-m", __package__, *arguments, *part]) for part in parts]
    return sum(process.wait() != 0 for process in started)


def _work(options: argparse.Namespace, answers: Path) -> int:
    """Judge every so manieth target, and write down what came out; returns 0."""
    part, parts = map(int, options.part.split("/"))
    known, begun = _known(answers), time.perf_counter()
    chosen = [t for t in _targets(options) if not options.words or any(word in t.key for word in options.words)]
    mine = [t for t in chosen[part::parts] if not _done(known.get(t.key), options)]
    for done, target in enumerate(mine, 1):
        row, line = _answer(target, options)
        with answers.open("a", encoding="utf-8") as file:
            file.write(json.dumps({"key": target.key, **row}) + "\n")
        left = (time.perf_counter() - begun) / done * (len(mine) - done) / 60
        print(f"[{part + 1}/{parts}: {done} of {len(mine)}, {left:.0f} min left] {line}", flush=True)
    return 0


def _known(answers: Path) -> dict[str, dict[str, Any]]:
    """The last answer to each target."""
    lines = answers.read_text("utf-8").splitlines() if answers.exists() else []
    return {row.pop("key"): row for row in map(json.loads, lines)}


def _done(row: dict[str, Any] | None, options: argparse.Namespace) -> bool:
    if row is None or row["verdict"] == "error":
        return False
    return row["verdict"] == "unsafe" or bool(row["failures"]) or row["runs"] >= options.runs or row["seconds"] >= options.seconds


def _answer(target: Target, options: argparse.Namespace) -> tuple[dict[str, Any], str]:
    """What is kept of a target, and the line that tells it."""
    where = {"framework": target.framework, "mode": target.mode}
    row = {"seconds": options.seconds, "runs": 0, "raised": 0, "failures": 0}
    try:
        result = judge(target.name, target.loss, target.domains, target.dtype, options.runs, options.seconds, **where)
        if (attacked := result.attacked) is not None:
            row |= {"runs": attacked.runs, "raised": attacked.raised, "failures": len(attacked.failures)}
        return {**row, "verdict": result.verdict}, f"{result.verdict:9} {target.key} {_told(result, target)}"
    except Exception as error:  # one broken case must not end the run
        return {**row, "verdict": "error"}, f"ERROR {target.key}: {type(error).__name__} {str(error)[:150]}"


def _told(result: Result, target: Target) -> str:
    if result.attacked is None:
        f = next(f for f in result.report.findings if f.kind == "non-finite")
        where = f"{f.site.line}: {f.site.text}" if f.site else "?"
        true = confirmed(result, target.loss, target.framework, target.mode)
        return f"{f.cause} {f.phase} {f.op} [{where}]{'' if true else ' UNCONFIRMED'}"
    told = f"{result.attacked.runs} runs" + (f", {result.attacked.raised} raised" if result.attacked.raised else "")
    for inputs, bad in result.attacked.failures[:1]:
        word = "FALSE PROOF" if result.verdict == "safe" else "MISSED"
        told += f" {word} {bad} on { ({n: x.tolist() for n, x in inputs.items()}) }"[:1500]
    for o in result.report.undecided[:4]:
        told += f"\n            {o.op} {o.phase} [{o.site.line if o.site else '?'}: {o.site.text if o.site else ''}] {o.reason}"
    return told


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
