"""What there is to attack: the collection beside this file, the losses that an audit calls safe, a folder of cases."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.audit.run import name_of
from tests.soundness.adversarial.collection import cases, gallery, suite

import whynan
from whynan.audits import store
from whynan.audits.worker import seeded
from whynan.domain.names import with_grad_by_name
from whynan.domain.parse import parse
from whynan.domain.spec import Domain, integers
from whynan.frontends import FRAMEWORKS
from whynan.target import Target as Loaded
from whynan.target import arguments_of, load_module, load_target


@dataclass(frozen=True)
class Target:
    """A loss to judge, in which framework and mode, on which domains; in a dtype, or, if that is empty, in that of the domains."""

    name: str
    loss: Callable[..., Any]
    domains: Mapping[str, Domain]
    framework: str
    mode: str
    dtype: str = ""

    @property
    def key(self) -> str:
        """What tells it from all others."""
        return " ".join(filter(None, (self.name, self.framework, self.mode, self.dtype)))


def collected(framework: str, mode: str, dtypes: list[str]) -> Iterator[Target]:
    """The collection, the gallery and the suite that is spelt in every framework."""
    for case in [*cases(framework), *suite(framework), *gallery(framework)]:
        for dtype in dtypes:
            yield Target(case.name, case.loss, case.domains, framework, mode or FRAMEWORKS[framework].default[0], dtype)


def proven(folder: Path) -> Iterator[Target]:
    """The losses that an audit calls safe, from its output folder, once for each mode."""
    for record in store.load_all(folder):
        if record.report is None or record.verdict != "safe":
            continue
        stated = {n: text for n, text in {**record.key["domains"], **record.key["own_domains"]}.items() if text}
        texts = {n: stated.get(n, text) for n, text in record.domains.items()}
        loaded, domains = _again(folder.name, record.target, texts, int(record.key["options"]["seed"]))
        for mode in record.report["modes"]:
            yield Target(record.target, loaded.callable, domains, record.report["framework"], mode)


def tabled(file: Path) -> Iterator[Target]:
    """The losses that the table of audits (benchmarks/audit/results.json) calls safe, in their frameworks' default modes."""
    for module in json.loads(file.read_text("utf-8")):
        for row in (row for row in module["losses"] if row["verdict"] == "safe"):
            texts = dict(domain.split(" = ", 1) for domain in row["domains"])
            loaded, domains = _again(module["module"], row["target"], texts, 0)
            framework = loaded.framework or next(name for name in FRAMEWORKS if name in module["versions"])
            for mode in FRAMEWORKS[framework].default:
                yield Target(row["target"], loaded.callable, domains, framework, mode)


def _again(module: str, target: str, texts: Mapping[str, str], seed: int) -> tuple[Loaded, dict[str, Domain]]:
    """A loss made anew with the weights that its audit had, and the domains of its arguments."""
    name_of(module)
    load_module(target.partition(":")[0])
    seeded(seed)
    loaded = load_target(target)
    takes = arguments_of(loaded.callable)
    return loaded, with_grad_by_name({n: parse(text) for n, text in texts.items() if n in takes or not takes})


def told(folder: Path) -> Iterator[Target]:
    """The losses of a folder of cases: of each module that has `INPUTS`, `fixed_loss`, and `loss` unless it has a `CULPRIT`.

    `INPUTS` maps an argument to its shape, dtype, low, high, kind and requires_grad; `MODES` a mode to whether `loss` fails there;
    `JIT_COMPILE` means mode xla. Where eager mode is meant, or none said, the framework's default modes are.
    """
    for file in sorted(folder.glob("*.py")):
        module = load_module(str(file))
        for name in ("fixed_loss", "loss"):
            if not hasattr(module, "INPUTS") or not hasattr(module, name) or (name == "loss" and getattr(module, "CULPRIT", None)):
                continue
            target = load_target(f"{file}:{name}")
            assert target.framework is not None, file
            domains = {n: _domain(**given) for n, given in module.INPUTS.items()}
            for mode in _modes(module, target.framework):
                yield Target(f"{'/'.join(file.with_suffix('').parts[-3:])}.{name}", target.callable, domains, target.framework, mode)


def _modes(module: Any, framework: str) -> Sequence[str]:
    if getattr(module, "JIT_COMPILE", False):
        return ("xla",)
    said = [mode for mode, fails in getattr(module, "MODES", {}).items() if fails]
    return FRAMEWORKS[framework].default if not said or "eager" in said else said


def _domain(shape: tuple[int, ...], dtype: str, low: float, high: float, kind: str, requires_grad: bool) -> Domain:
    if dtype == "bool":
        return whynan.mask(*shape)
    if kind == "binary":
        return whynan.binary(*shape, dtype=dtype)
    if "int" in dtype:
        return integers(int(low), int(high), *shape, dtype=dtype)
    made = whynan.prob if kind == "prob" else whynan.real
    return made(*shape, low=low, high=high, dtype=dtype, grad=requires_grad)
