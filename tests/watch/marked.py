"""Lines of a file that scenarios mark as those where their failing expressions stand."""

import functools
from pathlib import Path


@functools.cache
def marked(file: str) -> dict[str, int]:
    """The lines with a comment `# at NAME` (or several names) by name, counted from 1."""
    lines = Path(file).read_text(encoding="utf-8").splitlines()
    return {name: i for i, line in enumerate(lines, 1) if "  # at " in line for name in line.rpartition("  # at ")[2].split(", ")}
