"""Incidents as a watched run would make them, built by hand; `python -m tests.watch.incidents` writes the expected texts anew."""

import math
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

from whynan.analysis.finding import Finding, Step
from whynan.ir.where import Site
from whynan.watching.record import BAD_DATA, DIVERGENCE, OPERATION, Element, Incident, Moment, Stored, Suspects
from whynan.watching.words import told

HERE = Path(__file__).parent
GOLDENS = HERE.parents[0] / "golden" / "watch"
LOSSES = HERE / "step_losses.py"


def site_of(text: str, function: str = "", file: Path = LOSSES) -> Site:
    """The site of the first place where a file has this text."""
    source = file.read_text(encoding="utf-8")
    before, upto = source[: source.index(text)], source[: source.index(text) + len(text)]
    columns = [len(part.rpartition("\n")[2].encode()) for part in (before, upto)]
    return Site(str(file), before.count("\n") + 1, upto.count("\n") + 1, *columns, text, function)


def moments(until: int, many: int = 60) -> tuple[Moment, ...]:
    """Healthy steps whose gradient norm grows by a tenth from each to the next, the last of them before `until`."""
    return tuple(
        Moment(
            step=until - k,
            loss=0.7 + 0.01 * (k % 5),
            gradient_norms=(3e-3 * 1.1 ** (many - k), 4e-3 * 1.1 ** (many - k)),
            parameter_norm=12.5,
            update_ratio=1e-3,
            learning_rates=(1e-3, 1e-4),
            scale=65536.0,
        )
        for k in range(many, 0, -1)
    )


def finding() -> Finding:
    log, product = site_of("torch.log(p)", "bce"), site_of("t * torch.log(p)", "bce")
    return Finding(
        id="",
        kind="non-finite",
        severity="error",
        cause="log-of-zero",
        message="log gets 0.0 and gives -inf.",
        op="log",
        phase="forward",
        site=log,
        modes=("eager",),
        chain=(
            Step("log", log, "forward", ("0.0",), "-inf"),
            Step("mul", product, "forward", ("1.0", "-inf"), "-inf"),
            Step("mean", None, "forward", ("1 -inf of 32 elements",), "-inf"),
        ),
        fixes=(
            SimpleNamespace(title="log_softmax instead of log", applicability="verified", patch="--- a\n+++ b\n", evidence={"p": 0.25}),
        ),
    )


def incident(**changes) -> Incident:
    fields = {
        "step": 1204,
        "when": "2026-03-01T08:44:48+00:00",
        "framework": "torch",
        "framework_version": "2.13.0",
        "failed": "loss",
        "loss": math.inf,
        "finding": finding(),
        "kind": OPERATION,
        "parameters": ("head.weight", "head.bias"),
        "suspects": Suspects((3, 7), (3,), (Element("p", (3, 0), 0.0), Element("t", (3, 0), 1.0)), 32),
        "reproduced": True,
        "moments": moments(1204),
        "advice": ("clip the gradient norm at 1.5",),
        "notes": ("the loss was scaled by 65536",),
        "seconds": 0.83,
    }
    return Incident(**{**fields, **changes})


def log_of_zero() -> Incident:
    return incident(folder=Path("whynan-incidents/2026-03-01T08-44-48-step-1204-rank-0"))


def bad_data() -> Incident:
    found = replace(
        finding(),
        cause="nonfinite-input",
        op="input",
        site=None,
        message="x[3, 2] is NaN.",
        chain=(Step("input", None, "forward", (), "NaN"),),
        fixes=(),
    )
    return incident(
        finding=found,
        loss=math.nan,
        kind=BAD_DATA,
        suspects=Suspects((3,), (2, 3), (Element("x", (3, 2), math.nan),), 16, call=1),
        layer="body.0",
        moments=moments(1204, 3),
        rank=1,
        world=4,
        ranks=(1, 2),
        folder=Path("runs/a b"),
    )


def divergence() -> Incident:
    return incident(
        finding=None,
        failed="gradient",
        loss=3.5e12,
        kind=DIVERGENCE,
        unexplained="the gradient norm doubled in each of the last 40 steps.",
        suspects=Suspects(),
        reproduced=False,
        parameters=("head.weight",),
        advice=("clip the gradient norm at 1.5", "lower the learning rate to 1e-4"),
        notes=(),
        action="skip",
    )


def unexplained() -> Incident:
    return incident(
        finding=None,
        kind="unexplained",
        unexplained="run again in eager mode, every piece of this step is finite.",
        moments=(),
        suspects=Suspects(batch=8),
        parameters=(),
        advice=(),
        notes=(),
    )


def without_data() -> Incident:
    elements = (Element("p", (3, 0), None),)
    chain = tuple(replace(s, inputs=(), output="-inf") for s in finding().chain)
    stored = (
        Stored("batch/p", "float32", (32, 1), 0, None, "save_batch=False: the run's data are not saved"),
        Stored("parameters/w", "float32", (100, 100), 40000),
        Stored("rng/0/cpu", "uint8", (5056,), 5056),
    )
    return incident(
        finding=replace(
            finding(), chain=chain, message="log falls to -inf as its input reaches zero, and its derivative 1/x grows to inf."
        ),
        suspects=replace(incident().suspects, elements=elements),
        stored=stored,
        data_saved=False,
    )


INCIDENTS = {f.__name__.replace("_", "-"): f for f in (log_of_zero, bad_data, divergence, unexplained, without_data)}


def shown(name: str, width: int, color: bool = False) -> str:
    """An incident's text with the name of this folder taken out."""
    return told(INCIDENTS[name](), width=width, color=color)


GOLDEN = {f"{name}-{width}.txt": (name, width, False) for name in INCIDENTS for width in (100, 40)} | {
    "log-of-zero-colour.txt": ("log-of-zero", 100, True)
}

if __name__ == "__main__":
    import os

    os.chdir(HERE)
    GOLDENS.mkdir(parents=True, exist_ok=True)
    for file, arguments in GOLDEN.items():
        (GOLDENS / file).write_text(shown(*arguments) + "\n", encoding="utf-8")
