"""Where a framework's right answer differs from that of the table: `golden/frameworks.txt`, a line per loss and program.

`python -m tests.conformance.losses.golden` checks everything and writes the file anew. Review the difference: every line must
be a true difference, and `docs/frameworks.md` says why it is there.
"""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

from tests.conformance.losses.cases import Case
from tests.conformance.losses.programs import PROGRAMS, Program

ROOT = Path(__file__).parents[3]
FILE = ROOT / "tests" / "golden" / "frameworks.txt"
SEPARATOR = " | "

Golden = dict[tuple[str, str], str]


def read() -> Golden:
    """The answers that differ, by loss and program."""
    rows = [line.split(SEPARATOR) for line in FILE.read_text(encoding="utf-8").splitlines()]
    return {(loss.strip(), program.strip()): answer for loss, program, answer in rows}


def text(differences: Golden) -> str:
    """The file's text: aligned columns, in the order of the table."""
    return "".join(f"{loss:<22}{SEPARATOR}{program:<20}{SEPARATOR}{answer}\n" for (loss, program), answer in differences.items())


def expected(program: Program, case: Case, differences: Golden) -> str:
    """The answer that is right for a loss in one program."""
    return differences.get((case.name, program.name), str(case.answer))


def agrees(answer: str, failed: list[bool]) -> bool:
    """Whether what a framework did on a case's inputs is what an answer says."""
    return any(failed) if answer.startswith("unsafe") else not any(failed)


def apart(name: str, *losses: str) -> dict[str, tuple[str, list[bool]]]:
    """What a program's own process says of the losses: whynan's answer, and whether the framework failed."""
    command = [sys.executable, "-m", "tests.conformance.losses.programs", name, *losses]
    path = os.pathsep.join([str(ROOT / "src"), str(ROOT)])
    environment = {**os.environ, "PYTHONPATH": path, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    answers: Any = json.loads(done.stdout.splitlines()[-1])
    return {loss: (said, failed) for loss, (said, failed) in answers.items()}


def main() -> None:
    """Check all losses in all programs and write what differs from the table."""
    differences = {}
    for program in PROGRAMS.values():
        answers = apart(program.name)
        for case in program.cases():
            answer, failed = answers[case.name]
            if not agrees(answer, failed):
                print(f"{case.name} in {program.name}: the framework contradicts {answer!r}", file=sys.stderr)
            if answer != str(case.answer):
                differences[case.name, program.name] = answer
    FILE.write_text(text(dict(sorted(differences.items()))), encoding="utf-8")


if __name__ == "__main__":
    main()
