"""A whole check of each loss of the gallery: median and 95th percentile, and the slowest by name."""

import importlib.util
import statistics
from pathlib import Path
from types import ModuleType

from timing import seconds, table

import whynan

GALLERY = Path(__file__).resolve().parents[1] / "examples" / "gallery"
SLOWEST = 5


def main() -> None:
    """Print the summary and the slowest checks."""
    times: list[tuple[float, str, str]] = []
    for file in sorted(GALLERY.glob("*.py")):
        module = load(file)
        times += [(*_checked(module, name), f"{file.stem}:{name}") for name in getattr(module, "EXPECTED", {})]
    spent = sorted(t for t, _, _ in times)
    rows = [("median", f"{statistics.median(spent) * 1e3:.0f}", ""), ("95th percentile", f"{spent[int(0.95 * len(spent))] * 1e3:.0f}", "")]
    rows += [(name, f"{t * 1e3:.0f}", verdict) for t, verdict, name in sorted(times, reverse=True)[:SLOWEST]]
    table(f"Whole checks of {len(spent)} gallery losses", ("loss", "ms", "verdict"), rows)


def _checked(module: ModuleType, name: str) -> tuple[float, str]:
    verdicts: list[str] = []
    spent = seconds(lambda: verdicts.append(whynan.check(getattr(module, name), domains=module.DOMAINS).verdict), 1)
    return spent, verdicts[0]


def load(file: Path) -> ModuleType:
    """Import a gallery file by its path."""
    spec = importlib.util.spec_from_file_location(f"benchmark_{file.stem}", file)
    if spec is None or spec.loader is None:
        raise ImportError(f"{file} cannot be imported.")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module
