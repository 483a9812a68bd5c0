"""The soundness property on as many random graphs as there is time for.

    python -m tests.soundness.fuzz --values 1000000 --seed 1 --jobs 2

Each graph has a number; with the seed it determines everything. Of three, one has what compilers add and one mostly conditions
(`draw_case`). Violations are printed, made small; the exit code is then 1.
"""

import argparse
import multiprocessing
import sys
import time
from collections.abc import Iterator
from dataclasses import dataclass

import numpy as np
from tests.soundness.graphs import draw_case
from tests.soundness.violations import minimised, violations

import whynan.ops  # noqa: F401  (registers the ops)

BATCH = 100
MOST_PRINTED = 20


@dataclass(frozen=True)
class Batch:
    """What a range of graphs gave: how many graphs, values compared with bounds, and violations as text."""

    graphs: int
    values: int
    found: tuple[str, ...]


def run_batch(task: tuple[int, int, int]) -> Batch:
    """Check graphs first to last - 1 of a seed."""
    seed, first, last = task
    found, values = [], 0
    for k in range(first, last):
        case = draw_case(np.random.default_rng([seed, k]), compiled=k % 3 == 1, conditional=k % 3 == 2)
        values += len(case.graph.nodes) * len(next(iter(case.inputs.values())))
        wrong = next(violations(case), None)
        if wrong is not None:
            found.append(f"seed {seed}, graph {k}:\n{minimised(wrong)}")
    return Batch(last - first, values, tuple(found))


def batches(seed: int, graphs: int, jobs: int) -> Iterator[Batch]:
    """All batches as they are done."""
    tasks = [(seed, k, min(k + BATCH, graphs)) for k in range(0, graphs, BATCH)]
    if jobs == 1:
        yield from map(run_batch, tasks)
        return
    with multiprocessing.get_context("spawn").Pool(jobs) as pool:
        yield from pool.imap_unordered(run_batch, tasks)


def main(arguments: list[str] | None = None) -> int:
    """Run until there are enough values, or the graphs or the seconds are used up; 1 if there was a violation."""
    parser = argparse.ArgumentParser(prog="python -m tests.soundness.fuzz", description=__doc__.splitlines()[0])
    parser.add_argument("--values", type=int, default=1_000_000, help="how many values are enough")
    parser.add_argument("--graphs", type=int, default=1_000_000, help="how many graphs at most")
    parser.add_argument("--seconds", type=float, default=3600.0, help="how long at most")
    parser.add_argument("--seed", type=int, default=None, help="another seed, other graphs (default: from the clock)")
    parser.add_argument("--jobs", type=int, default=2, help="how many processes")
    options = parser.parse_args(arguments)
    seed = int(time.time()) if options.seed is None else options.seed
    start, graphs, values, found = time.monotonic(), 0, 0, 0
    for batch in batches(seed, options.graphs, options.jobs):
        graphs, values, found = graphs + batch.graphs, values + batch.values, found + len(batch.found)
        for one in batch.found[: max(0, MOST_PRINTED - found + len(batch.found))]:
            print(f"\n{one}", flush=True)
        seconds = time.monotonic() - start
        print(f"\rseed {seed}: {graphs} graphs, {values} values, {found} violations, {seconds:.0f} s ", end="", file=sys.stderr, flush=True)
        if seconds > options.seconds or values >= options.values:
            break
    print(file=sys.stderr)
    print(f"seed {seed}: {graphs} graphs, {values} values checked, {found} violations")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
