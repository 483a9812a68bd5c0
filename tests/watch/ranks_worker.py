"""One process of a distributed run: `python -m tests.watch.ranks_worker RANK WORLD STORE SCENARIO`. Prints what it saw as one line of JSON.

It imports no test framework, so that several of them start quickly.
"""

import json
import logging
import sys
from datetime import timedelta
from typing import Any

import torch
import torch.distributed as dist
from tests.watch.torch_steps import BAD_SAMPLE, Net, batch, log_loss, same, state
from torch import nn
from torch.nn.parallel import DistributedDataParallel

import whynan
from whynan.errors import NonFiniteError

BAD_STEP, STEPS = 2, 4


class Forked(nn.Module):
    """Uses its second branch only where it is told to: on the others these parameters are unused."""

    def __init__(self) -> None:
        super().__init__()
        self.always, self.sometimes = nn.Linear(3, 1), nn.Linear(3, 1)

    def forward(self, x: torch.Tensor, both: bool = False) -> torch.Tensor:
        p = self.always(x)
        return p + self.sometimes(x) if both else p


def root_loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    return (p.squeeze(-1) * t).abs().sqrt().mean()


def run(rank: int, world: int, scenario: str) -> dict[str, Any]:
    torch.manual_seed(0)
    bad_rank = world - 1
    inner = Forked() if scenario == "unused" else Net()
    if scenario in ("gradient", "fsdp"):
        inner.norm = nn.Identity()
    if scenario == "fsdp":
        from torch.distributed.fsdp import fully_shard

        inner.norm = nn.Identity()
        model: nn.Module = fully_shard(inner)
    else:
        model = DistributedDataParallel(inner, find_unused_parameters=scenario == "unused")
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.1)
    loss = root_loss if scenario in ("gradient", "unused", "fsdp") else log_loss
    policy = {"retry": "retry", "raise": "raise"}.get(scenario, "skip")
    asked = (lambda incident: "stop") if scenario == "callback" and rank == 0 else None
    seen: dict[str, Any] = {"applied": []}
    watch = whynan.watch(model, loss=loss, optimizer=optimizer, policy=policy, folder=None, on_incident=asked)
    try:
        for step in range(STEPS):
            x, t = batch(10 * step + rank)
            if step == BAD_STEP and rank == bad_rank:
                t[BAD_SAMPLE] = 0.0
            before = state(model, optimizer)
            optimizer.zero_grad()
            p = model(x, both=rank == 0) if scenario == "unused" else model(x)
            loss(p, t).backward()
            optimizer.step()
            seen["applied"].append(not same(state(model, optimizer), before))
    except NonFiniteError:
        seen["raised"] = True
        seen["kept"] = same(state(model, optimizer), before)
    (incident,) = watch.incidents
    finding = incident.finding
    seen |= {
        "step": incident.step,
        "rank": incident.rank,
        "ranks": incident.ranks,
        "world": incident.world,
        "sample": incident.sample,
        "site": finding.site.text if finding and finding.site else None,
        "action": incident.action,
        "why": incident.unexplained,
        "text": str(incident).splitlines()[:3],
        "stopped": watch.stopped,
        "parameters": float(sum(p.detach().double().sum() for p in inner.parameters())) if scenario != "fsdp" else 0.0,
    }
    return seen


def main() -> None:
    rank, world, store, scenario = int(sys.argv[1]), int(sys.argv[2]), sys.argv[3], sys.argv[4]
    logging.disable(logging.CRITICAL)
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{store}", rank=rank, world_size=world, timeout=timedelta(seconds=120))
    for name in scenario.split(","):
        print(json.dumps({name: run(rank, world, name)}), flush=True)
    dist.destroy_process_group()


if __name__ == "__main__":
    main()
