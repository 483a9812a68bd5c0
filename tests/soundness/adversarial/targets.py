"""What there is to attack: the collection beside this file, the losses that an audit calls safe, a folder of cases."""

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
    """The losses that an audit calls safe, once for each mode, made anew with the weights and the domains that the audit had."""
    for record in store.load_all(folder):
        if record.report is None or record.verdict != "safe":
            continue
        name_of(folder.name)
        load_module(record.target.partition(":")[0])
        seeded(int(record.key["options"]["seed"]))
        loss = load_target(record.target).callable
        takes = arguments_of(loss)
        stated = {n: text for n, text in {**record.key["domains"], **record.key["own_domains"]}.items() if text and n in takes}
        domains = {n: parse(stated.get(n, text)) for n, text in record.domains.items() if n in takes or not takes}
        for mode in record.report["modes"]:
            yield Target(record.target, loss, with_grad_by_name(domains), record.report["framework"], mode)


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
