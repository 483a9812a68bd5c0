"""A loss as the checks of its health see it, and what several of them need."""

from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Any

import numpy as np

from whynan.analysis.finding import WARNING, Finding, Witness
from whynan.analysis.search import Inputs
from whynan.config import Settings
from whynan.domain import sample
from whynan.domain.spec import Domain
from whynan.errors import OpError
from whynan.ir.dtype import Array
from whynan.ir.frontend import Run, Trace
from whynan.ir.graph import BACKWARD, Graph, call_of
from whynan.ir.where import Site
from whynan.ops._opdef import known, run


@dataclass(frozen=True, slots=True, eq=False)
class Patient:
    """The loss: how to run and record it, its domains, its options."""

    execute: Callable[[Inputs], Run]
    capture: Callable[[Inputs], Trace]
    witness: Callable[[Inputs, Run], Witness]
    domains: Mapping[str, Domain]
    settings: Settings
    mode: str


def warning(
    patient: Patient,
    *,
    kind: str,
    cause: str,
    op: str,
    site: Site | None,
    message: str,
    witness: Witness,
    details: Mapping[str, Any] | None = None,
    phase: str = BACKWARD,
) -> Finding:
    """A finding of severity warning in the patient's mode."""
    return Finding("", kind, WARNING, cause, message, op, phase, site, (patient.mode,), (), (), witness, details=details or {})


def even(d: Domain, rng: np.random.Generator) -> Array:
    """Evenly drawn within the whole domain."""
    if d.value is not None or d.kind in ("simplex", "unit", "onehot"):
        return sample.draw(d, rng)
    return sample.project(d, 2 * rng.uniform(d.low / 2, d.high / 2, d.shape))


def values_of(graph: Graph, needed: set[int], inputs: Inputs, given: Mapping[int, Array] | None = None) -> dict[int, Array]:
    """Some nodes' values in float64, those in `given` as they are; what has no record is left out."""
    out: dict[int, Array] = dict(given or {})
    named = {i: name for name, i in graph.inputs.items()}
    for i in sorted(needed - out.keys()):
        node = graph.nodes[i]
        if i in named:
            value = np.asarray(inputs[named[i]])
            out[i] = value.astype(np.float64) if node.format.is_float else value
        elif node.op == "const":
            out[i] = np.broadcast_to(node.attrs["value"], node.shape)
        elif known(node.op) and node.op != "random" and all(j in out for j in node.inputs):
            with suppress(OpError):  # a mask that selects another number of elements than in the recorded run
                out[i] = run(call_of(graph, node), [out[j] for j in node.inputs], wide=True)
    return out
