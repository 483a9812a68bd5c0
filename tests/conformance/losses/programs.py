"""The programs that the suite checks: a spelling of the losses, compiled or not; what whynan says of each loss, what the framework does.

A Keras backend is chosen when Keras is imported, so each one needs a process of its own:

    python -m tests.conformance.losses.programs NAME [LOSS ...]

prints what came out for each loss as JSON. `python -m tests.conformance.losses.golden` does so for all programs.
"""

import ast
import json
import os
import sys
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np
from tests.conformance.losses.cases import CASES, Answer, Case

import whynan
from whynan.domain.declare import as_domain
from whynan.domain.names import with_grad_by_name
from whynan.domain.spec import Domain

FOLDER = Path(__file__).parent
ARROW = "# <- "


@dataclass(frozen=True)
class Program:
    """One way to run the losses: the file that spells them, the framework and mode, for Keras the backend."""

    name: str
    spelling: str
    framework: str
    mode: str
    backend: str = ""
    only: frozenset[str] = frozenset()  # the losses that are checked in it; all if empty

    @property
    def alone(self) -> bool:
        """Whether it needs a process of its own."""
        return self.backend not in ("", "tensorflow")

    def cases(self) -> list[Case]:
        """The losses that are checked in it."""
        return [case for case in CASES if not self.only or case.name in self.only]

    def loss(self, case: Case) -> Callable[..., Any]:
        """The loss as its file spells it."""
        if self.backend:
            os.environ["KERAS_BACKEND"] = self.backend
        return getattr(import_module(f"tests.conformance.losses.{self.spelling}"), case.name)


SOME = frozenset(
    {
        *("bce_epsilon_1e8", "bce_clamped_1e8", "cross_entropy_of_softmax", "cross_entropy", "focal_gamma_0_7", "dice"),
        *("entropy_where", "triplet_norm", "masked_softmax", "root_where"),
    }
)
FEW = frozenset({"bce_epsilon_1e8", "cross_entropy", "root_where", "triplet_norm"})  # where modes differ, and compilers are slow
PROGRAMS = {
    p.name: p
    for p in (
        Program("torch", "pytorch", "torch", "eager"),
        Program("torch compile", "pytorch", "torch", "compile", only=FEW),
        Program("tf", "tensorflow_", "tensorflow", "eager"),
        Program("tf function", "tensorflow_", "tensorflow", "function"),
        Program("tf xla", "tensorflow_", "tensorflow", "xla", only=SOME),
        Program("jax", "jax_", "jax", "jit"),
        Program("jax eager", "jax_", "jax", "eager", only=FEW | {"masked_softmax", "bce_clamped_1e8"}),
        Program("keras on tf", "keras_ops", "tensorflow", "eager", "tensorflow"),
        Program("keras on tf function", "keras_ops", "tensorflow", "function", "tensorflow", SOME),
        Program("keras on jax", "keras_ops", "jax", "jit", "jax"),
        Program("keras on torch", "keras_ops", "torch", "eager", "torch"),
    )
}


# ---------------------------------------------------------------- what whynan says


def said(program: Program, case: Case) -> str:
    """The answer of a check in words, with the expression where it is not the one that the file marks."""
    loss = program.loss(case)
    report = whynan.check(loss, domains=case.domains, framework=program.framework, modes=(program.mode,))
    errors = [f for f in report.findings if f.severity == "error"]
    missing = case.warns and case.warns not in {f.cause for f in report.findings}
    if not errors:
        return f"{Answer(report.verdict)}{' without ' + case.warns if missing else ''}"
    first = errors[0]
    mark = marks(program.spelling).get(case.name)
    place = (Path(first.site.file).name, first.site.line, first.site.text) if first.site else None
    answer = str(Answer(report.verdict, first.cause, first.phase, first.op))
    return answer if place == mark else f"{answer} in {_shown(first.site)}"


def _shown(site: Any) -> str:
    return " ".join(site.text.split()) if site else "no place"


@cache
def marks(spelling: str) -> Mapping[str, tuple[str, int, str]]:
    """File, line and text of the marked expression of each loss; its own helpers stand right before a loss."""
    file = FOLDER / f"{spelling}.py"
    source = file.read_text(encoding="utf-8")
    losses = [n for n in ast.parse(source).body if isinstance(n, ast.FunctionDef) and not n.name.startswith("_")]
    found, last = {}, 0
    for loss in losses:
        for number in range(last + 1, (loss.end_lineno or 0) + 1):
            text = source.splitlines()[number - 1].partition(ARROW)[2]
            if text:
                found[loss.name] = (file.name, number, text)
        last = loss.end_lineno or 0
    return found


# ---------------------------------------------------------------- what the framework does


def fails(program: Program, case: Case) -> list[bool]:
    """Whether the loss or a gradient is not finite when the framework itself runs it, for each combination of the case's inputs."""
    domains = with_grad_by_name({n: as_domain(n, text) for n, text in case.domains.items()})
    wrt = [n for n, d in domains.items() if d.grad]
    run = RUNS[program.framework](program.loss(case), program.mode, wrt)
    return [not _finite(run(_arrays(domains, values))) for values in case.combinations()]


def _arrays(domains: Mapping[str, Domain], values: Mapping[str, Any]) -> dict[str, Any]:
    return {n: np.broadcast_to(np.asarray(values[n], d.format.numpy), d.shape).copy() for n, d in domains.items()}


def _finite(results: Iterable[Any]) -> bool:
    """Whether all numbers are finite; there may be no gradient by an input (None)."""
    return all(np.isfinite(np.asarray(v, np.float64)).all() for v in results if v is not None)


Run = Callable[[dict[str, Any]], Iterable[Any]]


def _torch(loss: Callable[..., Any], mode: str, wrt: list[str]) -> Run:
    import torch

    function = torch.compile(loss) if mode == "compile" else loss

    def run(inputs: dict[str, Any]) -> list[Any]:
        tensors = {n: torch.from_numpy(v).requires_grad_(n in wrt) for n, v in inputs.items()}
        value = function(**tensors)
        value.backward()
        return [value.detach(), *(tensors[n].grad for n in wrt)]

    return run


def _tensorflow(loss: Callable[..., Any], mode: str, wrt: list[str]) -> Run:
    import tensorflow as tf

    def both(inputs: dict[str, Any]) -> list[Any]:
        with tf.GradientTape() as tape:
            tape.watch([inputs[n] for n in wrt])
            value = loss(**inputs)
        return [value, *tape.gradient(value, [inputs[n] for n in wrt])]

    function = both if mode == "eager" else tf.function(both, jit_compile=mode == "xla")
    return lambda inputs: function({n: tf.constant(v) for n, v in inputs.items()})


def _jax(loss: Callable[..., Any], mode: str, wrt: list[str]) -> Run:
    import jax

    both = jax.value_and_grad(lambda inner, rest: loss(**inner, **rest))
    function = both if mode == "eager" else jax.jit(both)

    def run(inputs: dict[str, Any]) -> list[Any]:
        arrays = {n: jax.numpy.asarray(v) for n, v in inputs.items()}
        value, gradients = function({n: arrays[n] for n in wrt}, {n: v for n, v in arrays.items() if n not in wrt})
        return [value, *gradients.values()]

    return run


RUNS = {"torch": _torch, "tensorflow": _tensorflow, "jax": _jax}


# ---------------------------------------------------------------- a process of its own


def main(name: str, *only: str) -> None:
    """Print `{loss: [what whynan says, [whether it failed, per combination]]}`."""
    program = PROGRAMS[name]
    chosen = [case for case in program.cases() if not only or case.name in only]
    print(json.dumps({case.name: [_said_or_raised(program, case), fails(program, case)] for case in chosen}))


def _said_or_raised(program: Program, case: Case) -> str:
    """What whynan says; an error is an answer too, so that one loss does not hide the others."""
    try:
        return said(program, case)
    except Exception as error:
        return f"raised {type(error).__name__}: {error}"


if __name__ == "__main__":
    main(*sys.argv[1:])
