"""A bad step of JAX, run again from what went into it, recorded, and explained."""

import datetime
import re
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import jax
import numpy as np

from whynan.errors import WhynanError
from whynan.frontends.jax import steps
from whynan.frontends.jax.arrays import lying_like
from whynan.frontends.jax.eager import Units
from whynan.frontends.trace import first_line
from whynan.ir.dtype import Array
from whynan.watching.examine import Examined, examined, kind_of
from whynan.watching.jax import health, parts
from whynan.watching.jax.recipe import bundled
from whynan.watching.jax.wiring import Key, Traced, Wiring, arrays_of, is_array, is_floating, named_arrays, traced
from whynan.watching.record import CUSTOM_BACKWARD, UNEXPLAINED, Incident, Suspects
from whynan.watching.smallest import smallest

_UNITS: Units = {}  # what was compiled to run a step operation by operation: the next incident's step has mostly the same operations

LOSS, GRADIENT, UPDATE = "loss", "gradient", "update"


@dataclass(frozen=True, slots=True, eq=False)
class Bad:
    """A bad step as it is kept: the function, what it was called with, what it returned, and how that is wired.

    `fails` says whether the step fails on other arguments; it runs the program that failed.
    """

    step: int
    function: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    out: Any
    wiring: Wiring
    loss: float
    fails: Callable[[tuple[Any, ...], dict[str, Any]], bool]
    seconds: float


def explained(bad: Bad, known: Traced | None) -> Incident:
    """Run the step again under recording and say what went wrong in it. `known` is the step traced, if it was for these shapes."""
    start = time.monotonic()
    batch, data = _batch(bad)
    recipe, tensors = bundled(bad.function, bad.args, bad.kwargs, [key for key, _ in bad.wiring.carried])
    blank = Incident(
        step=bad.step,
        when=datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        framework="jax",
        framework_version=str(jax.__version__),
        failed=LOSS if not np.isfinite(bad.loss) and bad.wiring.loss is not None else UPDATE,
        loss=bad.loss,
        finding=None,
        kind=UNEXPLAINED,
        tensors=tensors,
        recipe=recipe,
    )
    try:
        with jax.debug_nans(False), jax.debug_infs(False):
            step = known if known is not None else traced(bad.function, bad.args, bad.kwargs)
            found = _found(bad, step, data, batch)
    except WhynanError as error:
        return replace(blank, unexplained=str(error), seconds=time.monotonic() - start)
    except Exception as error:  # what the user's code raises when it is run in another way than it was
        return replace(
            blank, unexplained=f"the step could not be traced to be run again: {first_line(error)}", seconds=time.monotonic() - start
        )
    if found is None:
        why = "run again from the same state, eagerly and compiled, the step gave finite numbers."
        return replace(blank, unexplained=why, seconds=time.monotonic() - start)
    alone = _alone(bad, batch, found.seen.samples, bad.seconds - (time.monotonic() - start))
    return replace(
        blank,
        failed=found.failed,
        finding=found.seen.finding,
        kind=found.kind,
        layer=found.layer,
        parameters=found.parameters,
        suspects=Suspects(found.seen.samples, alone, found.seen.elements, batch),
        reproduced=True,
        how=found.mode,
        notes=found.notes,
        seconds=time.monotonic() - start,
    )


# ---------------------------------------------------------------- the recording


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    seen: Examined
    mode: str
    failed: str
    layer: str
    parameters: tuple[str, ...]
    kind: str
    notes: tuple[str, ...] = ()


def _found(bad: Bad, step: Traced, data: Mapping[str, Array], batch: int) -> _Found | None:
    """Loss and gradients first, in both modes; then what the optimizer made of them."""
    if any(e.primitive.name == "shard_map" for e in step.program.eqns):
        raise WhynanError("the step uses shard_map: what each device computes of it by itself is not looked into.")
    arrays = arrays_of(bad.args, bad.kwargs)
    for stage, ends in ((GRADIENT, _differentiated(bad, step)), (UPDATE, _updated(bad, step))):
        for mode in ("eager", "jit"):
            if not ends:
                continue
            part = steps.cut(step.program, [v for v, _, _ in ends])
            made = steps.recorded_step(part, arrays, [(kind, name) for _, kind, name in ends], mode, _UNITS)
            seen = examined(made.trace, "eager" if mode == "eager" else "jit", data, batch)
            if seen is not None:
                return _told(step, made, seen, mode, stage)
    return None


_End = tuple[Any, str, str]  # a variable, its kind of output ("loss", "gradient"), its name


def _differentiated(bad: Bad, step: Traced) -> list[_End]:
    """The loss and the gradients."""
    leaves = jax.tree_util.tree_flatten_with_path(step.shape)[0]
    place = (
        [jax.tree_util.keystr(p) for p, _ in leaves].index(jax.tree_util.keystr(bad.wiring.loss)) if bad.wiring.loss is not None else None
    )
    losses: list[_End] = [(v, "loss", "loss") for v in (steps.results(step.program, [place]) if place is not None else [])]
    gradients = steps.gradients(step.program)
    names = _names_of(step, gradients)
    return losses + [(v, "gradient", n) for v, n in zip(gradients, names, strict=True) if v not in {x for x, _, _ in losses}]


def _names_of(step: Traced, gradients: Sequence[Any]) -> list[str]:
    """The parameters that gradients belong to: the first run of arguments with the same shapes in the same order, else one by one.

    Arguments that what is differentiated reads come first: an optimizer's state has the parameters' shapes, too.
    """
    given = [((v.aval.shape, v.aval.dtype), n) for v, n in zip(step.program.closed.jaxpr.invars, step.program.names, strict=True)]
    wanted = [(v.aval.shape, v.aval.dtype) for v in gradients]
    read = [given[i] for i in steps.read_when_differentiated(step.program)]
    for found in (read, given):
        for start in range(len(found) - len(wanted) + 1):
            run = found[start : start + len(wanted)]
            if [kind for kind, _ in run] == wanted:
                return [name for _, name in run]
    alike = [[n for kind, n in (*read, *given) if kind == w] for w in wanted]
    return [names[0] if names else f"gradient {i}" for i, names in enumerate(alike)]


def _updated(bad: Bad, step: Traced) -> list[_End]:
    """The loss and the new values of what the step replaces, as far as they are not finite."""
    named = dict(_named_results(bad, step))
    leaves = jax.tree.leaves(bad.out)
    wrong = [i for i in named if hasattr(leaves[i], "dtype") and not np.isfinite(health.wide(leaves[i])).all()]
    return [(v, "gradient", named[i]) for i in wrong for v in steps.results(step.program, [i])]


def _named_results(bad: Bad, step: Traced) -> list[tuple[int, str]]:
    """The places of the floating results that replace an argument, with that argument's name."""
    found = []
    results = [bad.out] if bad.wiring.single else list(bad.out)
    start = 0
    place_of: dict[int, Key] = {0 if place is None else place: key for key, place in bad.wiring.carried}
    for i, result in enumerate(results):
        size = len(jax.tree.leaves(result))
        names = [n for n, k in zip(step.program.names, step.keys, strict=True) if i in place_of and k == place_of[i]]
        found += [(start + j, name) for j, name in enumerate(names) if len(names) == size]
        start += size
    leaves = jax.tree.leaves(bad.out)
    return [(i, name) for i, name in found if is_floating(leaves[i])]


def _told(step: Traced, made: steps.RecordedStep, seen: Examined, mode: str, stage: str) -> _Found:
    graph, values = made.trace.graph, seen.trace.values
    node = graph.nodes[seen.why.node]
    wrong = [
        o.name
        for o in graph.outputs
        if o.kind == "gradient" and (v := values[o.node]) is not None and not np.isfinite(v.astype(np.float64)).all()
    ]
    layer = _layer(made.scopes.get(node.source, ""), step.program.names)
    wrong.sort(key=lambda name: not (layer and layer in name))
    failed = LOSS if seen.why.output == "loss" else stage
    # JAX's stacks tell what a rule of the user's has computed: what just has no forward operation at its place is the optimizer's
    plain = kind_of(seen.why, False) if seen.kind == CUSTOM_BACKWARD and mode == "eager" else seen.kind
    kind = CUSTOM_BACKWARD if node.source in made.ruled else plain
    notes = () if mode == "eager" else ("run again operation by operation, the step is finite: this is the compiled program's doing.",)
    how = "eager" if mode == "eager" else "compiled"
    return _Found(seen, how, failed, layer, tuple(dict.fromkeys(wrong)), kind, (*seen.notes, *notes))


def _layer(scopes: str, names: Sequence[str]) -> str:
    """The module path in an operation's name scopes: from the first one that is a key among the parameters on; else all of them."""
    plain = [s for s in re.sub(r"(jvp|transpose|linearize|vmap|checkpoint|rematted_computation)\(|\)", "", scopes).split("/") if s]
    plain = [s for s in plain if s not in ("checkpoint", "rematted_computation")]
    start = next((i for i, s in enumerate(plain) if any(f"'{s}'" in n or f".{s}" in n for n in names)), 0)
    return ".".join(plain[start:])


# ---------------------------------------------------------------- the batch


def _batch(bad: Bad) -> tuple[int, dict[str, Array]]:
    """How many samples the data have (0: cannot be told), and the data's arrays by name."""
    names = named_arrays(bad.function, bad.args, bad.kwargs)
    data = {
        n: np.asarray(a) for n, (k, a) in names.items() if k not in {key for key, _ in bad.wiring.carried} and is_array(a) and _is_data(a)
    }
    sizes = [a.shape[0] for a in data.values() if a.ndim]
    return (max(sizes, key=lambda n: (sizes.count(n), n)) if sizes else 0), data


def _is_data(a: Any) -> bool:
    return isinstance(a.dtype, np.dtype) and a.dtype != np.uint32 and a.dtype.kind not in "cOSU"


def _alone(bad: Bad, batch: int, suspects: Sequence[int], seconds: float) -> tuple[int, ...]:
    """The smallest part of the batch that fails, repeated to fill it. No try is begun after that many seconds."""
    if batch < 2:
        return ()
    end = time.monotonic() + max(seconds, 1.0)

    def fails(part: Sequence[int]) -> bool | None:
        if time.monotonic() > end:
            return None
        args, kwargs = _each(bad, batch, lambda a: parts.filled(a, part, batch))
        try:
            return bad.fails(args, kwargs)
        except Exception:  # a batch that the user's code refuses
            return None

    return smallest(batch, fails, suspects)


def reduced(bad: Bad, incident: Incident) -> tuple[tuple[Any, ...], dict[str, Any]] | None:
    """The step's arguments without the samples that an incident names; None if it names none, or all."""
    dropped = incident.suspects.samples or incident.suspects.alone
    batch = incident.suspects.batch
    if not dropped or len(dropped) >= batch:
        return None
    return _each(bad, batch, lambda a: parts.without(a, dropped))


def _each(bad: Bad, batch: int, change: Callable[[Any], Any]) -> tuple[tuple[Any, ...], dict[str, Any]]:
    """The step's arguments with each array of the data changed whose first axis is the batch's."""
    carried = {key for key, _ in bad.wiring.carried}

    def chosen(a: Any) -> Any:
        return lying_like(change(a), a) if is_array(a) and a.ndim and a.shape[0] == batch and _is_data(a) else a

    args = tuple(a if i in carried else jax.tree.map(chosen, a) for i, a in enumerate(bad.args))
    return args, {k: a if k in carried else jax.tree.map(chosen, a) for k, a in bad.kwargs.items()}
