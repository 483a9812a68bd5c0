"""What watching costs while the run is healthy: the time of a step with it, divided by the time without, taken in turns in one run.

    python -m benchmarks.watch.cost [--rounds N]

Times are processor seconds of one thread. Each round times every tool once, so that a change of the machine's speed meets all alike;
the ratio is the median over the rounds.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

import random
import statistics
import time
from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from benchmarks.timing import table
from benchmarks.watch.models import MODELS, torch_step
from benchmarks.watch.peers import PEERS, Around, anomaly_mode, dispatch_checks, nothing

SECONDS = 0.03  # of one timing


def ratios(name: str, rounds: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of a step that nobody watches, and for each tool the ratio of its step to that one."""
    with ExitStack() as stack:
        steps = {}
        for tool, around in {"": nothing, " ": nothing, **PEERS}.items():
            torch.manual_seed(0)
            model, loss, optimizer, step, _ = torch_step(MODELS[name]())
            try:
                steps[tool] = _within(stack, around, model, loss, optimizer, step)
            except ImportError:
                print(f"{tool} is not installed: left out")
        count = max(1, round(SECONDS / _one(steps[""], 5)))
        times: dict[str, list[float]] = {tool: [] for tool in steps}
        order = list(steps)
        for _ in range(rounds):
            random.shuffle(order)  # a tool leaves the caches as the next one finds them
            for tool in order:
                steps[tool]()
                times[tool].append(_one(steps[tool], count))
    plain = times.pop("")
    return statistics.median(plain) * 1e3, {t: statistics.median(b / a for a, b in zip(plain, ts, strict=True)) for t, ts in times.items()}


def _within(stack: ExitStack, around: Around, model: Any, loss: Any, optimizer: Any, step: Callable[[], None]) -> Callable[[], None]:
    """The step as it runs inside a tool. Tools that are a mode are entered for each step, the others once."""
    if around not in (anomaly_mode, dispatch_checks):
        stack.enter_context(around(model, loss, optimizer))
        return step

    def inside() -> None:
        with around(model, loss, optimizer):
            step()

    return inside


def _one(step: Callable[[], None], count: int) -> float:
    start = time.process_time()
    for _ in range(count):
        step()
    return (time.process_time() - start) / count


def main() -> None:
    """Print a table for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=60)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    found = {name: ratios(name, rounds) for name in MODELS}
    tools = ["whynan.watch", *(t for t in PEERS if t != "whynan.watch")]
    rows = [[tool, *(f"{r[tool]:.3f}" if tool in r else "-" for _, r in found.values())] for tool in tools]
    rows.append(["(nothing, again)", *(f"{r[' ']:.3f}" for _, r in found.values())])
    head = ["tool", *(f"{name} ({ms:.2f} ms)" for name, (ms, _) in found.items())]
    table("Time of a training step, ratio to the same step unwatched", head, rows)


if __name__ == "__main__":
    main()
