"""Real evaluations aimed at what a verified fix promises: the changed loss is finite on its whole domain and has the original's value.

`python -m tests.soundness.adversarial.fixes [NAME…] [--runs 10000]` fixes the naive losses of the gallery (or the files and folders named)
and attacks each verified fix: `--runs` inputs of `attack` must leave the loss and its gradients finite, and on a fifth as many ordinary
inputs the value must be the original's wherever that is finite. Exit code 1 if a promise is broken.
"""

import argparse
import importlib.util
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
from tests.soundness.adversarial.attack import attack, program_of
from tests.soundness.adversarial.inputs import Inputs

from whynan.domain import sample
from whynan.domain.names import with_grad_by_name
from whynan.domain.parse import parse
from whynan.domain.spec import Domain

ROOT = Path(__file__).resolve().parents[3]
SAME = 1e-3  # relative to the loss's usual size: far above rounding, far below a change of the value that anybody would notice


@dataclass(frozen=True)
class Broken:
    """An input on which a promise is broken, and how."""

    how: str
    inputs: Inputs


def changed(fix: Any, name: str, folder: Path) -> Callable[..., Any]:
    """The loss of a fix's changed file, loaded from a copy."""
    change = fix.changes[0]
    copy = folder / f"changed_{abs(hash(change.new))}_{change.path.name}"
    copy.write_bytes(change.new.encode(change.encoding))
    return getattr(module_of(copy), name)


def module_of(path: Path) -> ModuleType:
    """A file run as a module."""
    spec = importlib.util.spec_from_file_location(path.stem, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return module


def broken(
    old: Callable[..., Any], new: Callable[..., Any], domains: Mapping[str, Domain], framework: str, mode: str, runs: int
) -> Iterator[Broken]:
    """Inputs on which the changed loss is not finite, or has another value where the original is finite."""
    found = attack(new, domains, runs, seconds=runs / 100, framework=framework, mode=mode)
    yield from (Broken(f"not finite: {', '.join(bad)}", inputs) for inputs, bad in found.failures[:1])
    rng = np.random.default_rng(1)
    one, other = (program_of(f, framework, mode) for f in (old, new))
    drawn = [{n: sample.ordinary(d, rng) for n, d in domains.items()} for _ in range(runs // 5)]
    pairs = [(float(np.sum(one.run(i, ()).loss.astype(float))), float(np.sum(other.run(i, ()).loss.astype(float))), i) for i in drawn]
    finite = [abs(a) for a, _, _ in pairs if np.isfinite(a)]
    size = float(np.median(finite)) if finite else 0.0
    for a, b, inputs in pairs:
        if np.isfinite(a) and abs(a - b) > SAME * max(abs(a), size):
            yield Broken(f"{b:.6g} instead of {a:.6g}", inputs)
            return


def main() -> int:
    """Fix and attack; a line for each verified fix."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*")
    parser.add_argument("--runs", type=int, default=10_000)
    options = parser.parse_args()
    sys.path.insert(0, str(ROOT / "examples"))
    import fixes_table as gallery

    tried = false = 0
    for path, module in gallery.losses(options.names):
        framework, mode = gallery.framework(path), (getattr(module, "MODES", None) or ("",))[0]
        domains = with_grad_by_name({n: parse(text) for n, text in module.DOMAINS.items()})
        for fix in [f for f in gallery.fixes(path, module) if f.applicability == "verified" and f.changes]:
            with tempfile.TemporaryDirectory() as folder:
                found = list(broken(module.loss, changed(fix, "loss", Path(folder)), domains, framework, mode, options.runs))
            tried, false = tried + 1, false + bool(found)
            print(f"{'BROKEN' if found else 'holds':7} {path.relative_to(gallery.GALLERY).with_suffix('')}: {fix.title}", flush=True)
            for b in found:
                print(f"        {b.how} on { ({n: v.tolist() for n, v in b.inputs.items()}) }"[:800], flush=True)
    print(f"{tried} verified fixes attacked with {options.runs} inputs each: {false} broken")
    return 1 if false else 0


if __name__ == "__main__":
    sys.exit(main())
