"""Mode jit: a step compiled once by XLA, run as it is, and recorded from the compiler's own text."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import jax

from whynan.frontends.hlo.parse import parse
from whynan.frontends.hlo.record import record
from whynan.frontends.jax.ending import Recorded, add_inputs, anything
from whynan.frontends.jax.inside import hlo_text, showing
from whynan.frontends.jax.jaxpr import traced
from whynan.frontends.jax.places import spot_of
from whynan.frontends.jax.step import Target, caller, step_of
from whynan.frontends.trace import Recording
from whynan.ir.dtype import Array
from whynan.ir.graph import Assumption


@dataclass(frozen=True, slots=True, eq=False)
class Jitted:
    """A compiled step. `names` are its arrays in order; `looked` are the arguments whose value is part of the program."""

    executable: Any
    loss: Callable[..., list[Any]]
    names: tuple[str, ...]
    wrt: tuple[str, ...]
    looked: Mapping[str, Array]

    def __call__(self, arrays: Mapping[str, Array]) -> tuple[list[Any], list[Any]]:
        """The loss's floating results and the gradients by `wrt`."""
        results: tuple[list[Any], list[Any]] = self.executable(*(arrays[n] for n in self.names))
        return results


def jitted(target: Target, name: str, arrays: Mapping[str, Array], static: Mapping[str, Any], wrt: tuple[str, ...]) -> Jitted:
    """The step, compiled for these arrays.

    Where Python must know a number (an axis, a flag, a smoothing), arrays of one number that are not differentiated by are given as
    Python numbers: then they are part of the program. Raises what the loss raises.
    """
    try:
        return _compiled(target, name, arrays, static, wrt, {})
    except Exception:
        numbers = {n: a for n, a in arrays.items() if a.shape == () and n not in wrt}
        if not numbers:
            raise
        try:
            return _compiled(target, name, arrays, static, wrt, numbers)
        except Exception:
            pass
        raise


def _compiled(
    target: Target, name: str, arrays: Mapping[str, Array], static: Mapping[str, Any], wrt: tuple[str, ...], looked: Mapping[str, Array]
) -> Jitted:
    names = tuple(n for n in arrays if n not in looked)
    loss = caller(target, {**static, **{n: a.item() for n, a in looked.items()}}, names)
    with showing(target):
        lowered = jax.jit(step_of(loss, names, wrt, name), keep_unused=True).lower(*(arrays[n] for n in names))
    return Jitted(lowered.compile(), loss, names, wrt, looked)


def recorded(step: Jitted, arrays: Mapping[str, Array], given: Mapping[str, Array]) -> Recorded:
    """The compiled step as nodes. `given` are the arrays before JAX changed their dtypes."""
    recording = Recording()
    inputs, arguments = add_inputs(recording.builder, given, arrays)
    entry = [arguments[n] for n in step.names]
    module = parse(hlo_text(step.executable))
    hoisted = [anything(recording.builder, p.type) for p in module.entry.parameters[: len(module.entry.parameters) - len(entry)]]
    count = len(step.executable.out_tree.children()[0].children())
    loss = traced(step.loss, [arrays[n] for n in step.names])
    nodes = record(recording, module, [*hoisted, *entry], lambda metadata: spot_of(metadata, loss.exact), losses=count)
    for name, value in step.looked.items():
        recording.assumptions.append(Assumption(inputs[name], float(value), float(value), f"tracing with {name} as a Python number"))
    recording.handwritten |= dict.fromkeys(loss.handwritten)
    recording.added |= dict.fromkeys(loss.added)
    return Recorded(recording, inputs, nodes[:count], dict(zip(step.wrt, nodes[count:], strict=True)))
