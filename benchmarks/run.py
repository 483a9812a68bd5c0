"""Time whole checks of the gallery's losses, and the import of whynan itself.

python benchmarks/run.py [NAME...]     a row per loss: seconds beyond the framework's own import, and microseconds per site
"""

import importlib.util
import statistics
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from types import ModuleType

import whynan

GALLERY = Path(__file__).resolve().parents[1] / "examples" / "gallery"
REPEATS = 3


def load(file: Path) -> ModuleType:
    """Import a gallery file by its path."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def check_seconds(module: ModuleType) -> tuple[float, int]:
    """The median time of a check of the module's `loss`, and how many sites it has."""
    times, sites = [], 0
    for _ in range(REPEATS):
        start = time.perf_counter()
        report = whynan.check(module.loss, domains=module.DOMAINS)
        times.append(time.perf_counter() - start)
        sites = report.sites["total"]
    return statistics.median(times), sites


def import_seconds(module: str) -> float:
    """The time that a fresh interpreter takes to import a module."""
    code = f"import time; start = time.perf_counter(); import {module}; print(time.perf_counter() - start)"
    return min(float(subprocess.check_output([sys.executable, "-c", code])) for _ in range(REPEATS))


def main(names: Sequence[str]) -> None:
    """Print the table."""
    print(f"{'import whynan':28}{import_seconds('whynan') * 1e3:9.1f} ms")
    for file in sorted(GALLERY.glob("*.py")):
        if names and file.stem not in names:
            continue
        module = load(file)
        if hasattr(module, "loss") and hasattr(module, "DOMAINS"):
            seconds, sites = check_seconds(module)
            print(f"{file.stem:28}{seconds * 1e3:9.1f} ms{sites:6d} sites{seconds / max(sites, 1) * 1e6:10.0f} us/site", flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
