"""What watching costs in PyTorch while the run is healthy: the time of a step with it, divided by the time without, in turns in one run.

    python -m benchmarks.watch.cost [--rounds N]

torchlens is made for a look after the fact. Its row is what a look at each step would cost: `find_nan` on model and loss, then the step.
"""

import argparse
import os

os.environ.setdefault("OMP_NUM_THREADS", "1")

from functools import partial
from typing import Any

import torch
from benchmarks.watch.measure import AGAIN, PLAIN, Around, Step, cost_table, ratios
from benchmarks.watch.models import MODELS, torch_step
from benchmarks.watch.peers import FINDER, PEERS, found_by_torchlens, nothing

SECONDS = 0.1  # of one timing: whynan makes records of up to 64 steps together


def measured(name: str, rounds: int) -> tuple[float, dict[str, float]]:
    """Milliseconds of a step that nobody watches, and for each tool the ratio of its step to that one."""
    steps: dict[str, Step] = {}
    inside: dict[str, Around] = {}
    for tool, around in {PLAIN: nothing, AGAIN: nothing, **PEERS, FINDER: nothing}.items():
        torch.manual_seed(0)
        model, loss, optimizer, step, given = torch_step(MODELS[name]())
        inside[tool], steps[tool] = partial(around, model, loss, optimizer), step
        try:
            with inside[tool]():
                pass
            if tool == FINDER:
                steps[tool] = partial(_found_first, model, loss, given, step)
                steps[tool]()
        except ImportError:
            del steps[tool]
            print(f"{tool} is not installed: left out")
    return ratios(steps, rounds, inside, SECONDS)


def _found_first(model: Any, loss: Any, given: Any, step: Step) -> None:
    found_by_torchlens(model, loss, given)
    step()


def main() -> None:
    """Print a table with a column for each model."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=20)
    rounds = parser.parse_args().rounds
    torch.set_num_threads(1)
    cost_table("PyTorch: time of a training step, ratio to the same step unwatched", {name: measured(name, rounds) for name in MODELS})


if __name__ == "__main__":
    main()
