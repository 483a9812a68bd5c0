"""Import time of whynan beside that of NumPy, each in fresh interpreters."""

import statistics
import subprocess
import sys

from timing import table

REPEATS = 7


def main() -> None:
    """Print the medians and their ratio."""
    ours, numpy = import_seconds("whynan"), import_seconds("numpy")
    rows = [(name, f"{t * 1e3:.1f}", f"{t / numpy:.2f}") for name, t in (("whynan", ours), ("numpy", numpy))]
    table("Import in a fresh interpreter", ("module", "ms", "of numpy's"), rows)


def import_seconds(module: str) -> float:
    """The median time that a fresh interpreter takes to import a module."""
    code = f"import time; start = time.process_time(); import {module}; print(time.process_time() - start)"
    return statistics.median(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(REPEATS))
