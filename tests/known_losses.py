"""What is asked of the check of any loss, here of those that nobody here wrote: an answer that stands up.

Used by `test_known_losses_*.py`, a file for each library.
"""

import os
import subprocess
import sys
from collections.abc import Collection, Mapping
from pathlib import Path

import numpy as np

from whynan import Finding, Report

WIDTH = 100  # of a report's lines


def assert_answered(report: Report, name: str, fail: Collection[str], undecided: Collection[str], assumed: Mapping[str, str]) -> None:
    """The verdict is the one expected (`safe` for `undecided` is welcome), with the reason, evidence and domains that go with it."""
    allowed = {"unsafe"} if name in fail else {"undecided", "safe"} if name in undecided else {"safe"}
    assert report.verdict in allowed, str(report)
    assert (report.verdict == "undecided") <= bool(report.undecided)
    assert all(o.reason and (o.site or o.op == "path") for o in report.undecided), str(report)
    assert {n: str(report.domain[n]) for n in assumed} == dict(assumed)
    assert all(line == line.rstrip() and len(line) <= WIDTH for line in str(report).splitlines())
    assert [f.cause for f in report.findings if not fails_again(f)] == []
    assert (report.verdict == "unsafe") == any(f.kind == "non-finite" for f in report.findings)


def fails_again(finding: Finding) -> bool:
    """Whether the real function, run anew on the finding's witness, is non-finite where the finding says so and finite where not."""
    run = finding.witness.replay()
    outputs = [run.loss, *run.gradients.values()]
    finite = all(np.isfinite(np.asarray(v, np.float64)).all() for v in outputs if v is not None)
    return not run.error and finite == (finding.kind != "non-finite")


def script_agrees(finding: Finding, folder: Path) -> bool:
    """Whether the finding's script, run alone, fails where it must and does not where it must not."""
    file = folder / "again.py"
    file.write_text(finding.witness.script())
    quiet = {"OMP_NUM_THREADS": "1", "TF_CPP_MIN_LOG_LEVEL": "3", "JAX_PLATFORMS": "cpu"}
    done = subprocess.run([sys.executable, file], capture_output=True, text=True, check=False, env={**os.environ, **quiet})
    return done.returncode == (1 if finding.kind == "non-finite" else 0)
