"""What the benchmarks share: seconds of a call, and a table."""

import time
from collections.abc import Callable, Sequence
from typing import Any


def seconds(call: Callable[[], Any], repeats: int = 3) -> float:
    """The least processor time of several calls: what other programs take on the same machine does not count."""
    times = []
    for _ in range(repeats):
        start = time.process_time()
        call()
        times.append(time.process_time() - start)
    return min(times)


def table(title: str, head: Sequence[str], rows: Sequence[Sequence[str]]) -> None:
    """Print a title and aligned columns, the first to the left."""
    widths = [max(len(row[k]) for row in (head, *rows)) for k in range(len(head))]
    print(f"\n{title}")
    for row in (head, *rows):
        cells = [row[0].ljust(widths[0]), *(cell.rjust(width) for cell, width in zip(row[1:], widths[1:], strict=True))]
        print("  " + "  ".join(cells), flush=True)
