"""Tensor size: the same loss on 16, 65,536 and 16,777,216 elements. Bounds are per group of elements, so their cost must not grow."""

import resource

import torch
from timing import seconds, table

import whynan
from whynan.analysis.propagate import propagate
from whynan.domain import sample
from whynan.domain.abstract import bounds_of
from whynan.domain.spec import binary, logit
from whynan.frontends.torch import load

SIDES = (4, 256, 4096)


def loss(p: torch.Tensor, t: torch.Tensor) -> torch.Tensor:
    """Cross-entropy of logits with soft targets, by rows."""
    return -(torch.log_softmax(p, -1) * t).sum(-1).mean()


def main() -> None:
    """Print a row per size: one recording, the bounds, a whole check, and the largest memory so far."""
    rows = []
    for side in SIDES:
        inputs = {"p": logit(side, side), "t": binary(side, side)}
        arrays = {name: sample.plain(d) for name, d in inputs.items()}
        program = load(loss, "loss")
        recording = seconds(lambda program=program, arrays=arrays: program.capture(arrays, ("p",)), 1)
        graph = program.capture(arrays, ("p",)).graph
        bounds = {name: bounds_of(d) for name, d in inputs.items()}
        proof = seconds(lambda graph=graph, bounds=bounds: propagate(graph, bounds))
        check = seconds(lambda inputs=inputs: whynan.check(loss, domains=inputs), 1)
        memory = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        rows.append((f"{side} x {side}", f"{recording * 1e3:.1f}", f"{proof * 1e3:.1f}", f"{check * 1e3:.1f}", f"{memory:.0f}"))
    table("The same loss on larger tensors", ("shape", "recording ms", "bounds ms", "check ms", "peak MB"), rows)
