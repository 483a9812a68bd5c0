"""Several processes over gloo: all decide alike in the same step, the report says which rank and sample, and nothing hangs."""

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from tests.watch.torch_steps import BAD_SAMPLE

ROOT = Path(__file__).parents[2]
ALL = ("loss", "gradient", "unused", "retry", "callback", "fsdp", "raise")


def processes(world: int, scenarios: tuple[str, ...], store: Path) -> list[dict[str, Any]]:
    """What each rank saw, by scenario. Each process has a time limit: one that hangs is a failure."""
    env = {**os.environ, "OMP_NUM_THREADS": "1", "PYTHONPATH": os.pathsep.join([str(ROOT / "src"), str(ROOT)])}
    command = [sys.executable, "-m", "tests.watch.ranks_worker"]
    started = [
        subprocess.Popen(
            [*command, str(rank), str(world), str(store), ",".join(scenarios)],
            cwd=ROOT,
            env=env,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )
        for rank in range(world)
    ]
    try:
        done = [p.communicate(timeout=240) for p in started]
    finally:
        for p in started:
            p.kill()
    assert all(p.returncode == 0 for p in started), done
    return [{k: v for line in out.splitlines() if line.startswith("{") for k, v in json.loads(line).items()} for out, _ in done]


@pytest.mark.slow
@pytest.mark.parametrize(("world", "scenarios"), [(2, ALL), (4, ("loss", "unused", "raise"))])
def test_all_ranks_decide_alike(world: int, scenarios: tuple[str, ...], tmp_path: Path) -> None:
    seen = processes(world, scenarios, tmp_path / "store")
    for scenario in scenarios:
        ranks = [s[scenario] for s in seen]
        for told in ranks:
            assert (told["step"], told["rank"], told["ranks"], told["world"]) == (2, world - 1, [world - 1], world), (scenario, told)
            assert told["sample"] == BAD_SAMPLE and told["site"] in ("t.log()", "(p.squeeze(-1) * t).abs().sqrt()"), (scenario, told)
            assert told["applied"] == ranks[0]["applied"] and told["parameters"] == ranks[0]["parameters"], (scenario, ranks)
            assert told["stopped"] == (scenario == "callback"), "one rank's callback decides for all"
        if scenario == "raise":
            assert all(told["raised"] and told["kept"] and told["applied"] == [True, True] for told in ranks)
        else:
            assert ranks[0]["applied"] == [True, True, scenario == "retry", True], scenario
