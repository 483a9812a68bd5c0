"""What watching costs in PyTorch while the run is healthy: the time of a step with it, divided by the time without, in turns in one run.

    python -m benchmarks.watch.cost [--rounds N]

torchlens is made for a look after the fact. Its row is what a look at each step would cost: `find_nan` on model and loss, then the step.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from collections.abc import Callable
from contextlib import ExitStack
from typing import Any

import torch
from benchmarks.watch.measure import AGAIN, PLAIN, Step, cost_table, ratios
from benchmarks.watch.models import MODELS, torch_step
from benchmarks.watch.peers import FINDER, PEERS, Around, anomaly_mode, dispatch_checks, found_by_torchlens, nothing


def measured(name: str, rounds: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of a step that nobody watches, and for each tool the ratio of its step to that one."""
    with ExitStack() as stack:
        steps: dict[str, Step] = {}
        for tool, around in {PLAIN: nothing, AGAIN: nothing, **PEERS, FINDER: nothing}.items():
            torch.manual_seed(0)
            model, loss, optimizer, step, given = torch_step(MODELS[name]())
            try:
                steps[tool] = _within(stack, around, model, loss, optimizer, step)
                if tool == FINDER:
                    found_by_torchlens(model, loss, given)
                    steps[tool] = lambda model=model, loss=loss, given=given, step=step: (found_by_torchlens(model, loss, given), step())
            except ImportError:
                steps.pop(tool, None)
                print(f"{tool} is not installed: left out")
        return ratios(steps, rounds)


def _within(stack: ExitStack, around: Around, model: Any, loss: Any, optimizer: Any, step: Callable[[], None]) -> Step:
    """The step as it runs inside a tool. Tools that are a mode are entered for each step, the others once."""
    if around not in (anomaly_mode, dispatch_checks):
        stack.enter_context(around(model, loss, optimizer))
        return step

    def inside() -> None:
        with around(model, loss, optimizer):
            step()

    return inside


def main() -> None:
    """Print a table with a column for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=40)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    cost_table("PyTorch: time of a training step, ratio to the same step unwatched", {name: measured(name, rounds) for name in MODELS})


if __name__ == "__main__":
    main()
