"""Audit the losses of well-known packages and write the table: `python benchmarks/audit/run.py [MODULE…] [--jobs 2] [--timeout 120]`.

Pages and programs land in `whynan-audit/MODULE` (or `--output DIR`), where a second run finds what is done; `results.json` and `README.md`
beside this file are the summary. Packages that are not installed keep their rows.
"""

import argparse
import importlib.util
import json
import subprocess
import sys
from collections.abc import Sequence
from importlib.metadata import version
from importlib.resources import files
from pathlib import Path
from typing import Any

from whynan.audits import command, table
from whynan.errors import WhynanError

HERE = Path(__file__).parent
SEGMENTATION = "segmentation_models_pytorch.losses"
MODULES = (
    "torch.nn.functional",
    "torch.nn",
    "keras.losses",
    "optax.losses",
    "kornia.losses",
    "pytorch_metric_learning.losses",
    "monai.losses",
    SEGMENTATION,
)
GOAL = 0.9
_KEPT = ("name", "aliases", "target", "verdict", "causes", "findings", "reason", "domains", "confirmed", "seconds")


def audited(module: str, folder: Path, only: Sequence[str] = (), **options: Any) -> dict[str, Any]:
    """The table of a module as data, or of those of its losses that are called like a word of `only`: rows without what no reader needs."""
    overrides = Path(str(files("whynan.audits") / "overrides" / f"{module}.toml")) if module == SEGMENTATION else None
    done = table.to_data(command.run(name_of(module), folder / module, overrides, only=tuple(only), **options))
    losses = [{key: row[key] for key in _KEPT} for row in done["losses"]]
    known = {SEGMENTATION.partition(".")[0]: version(SEGMENTATION.partition(".")[0])} if module == SEGMENTATION else {}
    return {"module": module, "versions": {**known, **done["versions"]}, "commit": commit(), "counts": done["counts"], "losses": losses}


def joined(old: dict[str, Any], new: dict[str, Any]) -> dict[str, Any]:
    """A module's table with the rows of a later audit in place of the old ones, and both commits."""
    rows = {row["name"]: row for row in (*old["losses"], *new["losses"])}
    losses = sorted(rows.values(), key=lambda row: row["name"].lower())
    commits = dict.fromkeys([*old["commit"].split(", "), new["commit"]])
    return {**new, "commit": ", ".join(commits), "counts": table.counts([row["verdict"] for row in losses]), "losses": losses}


def name_of(module: str) -> str:
    """What a module is imported as: one by itself, as its package imports torchvision, whose builds on PyPI need CUDA."""
    if module != SEGMENTATION:
        return module
    package, _, name = module.partition(".")
    spec = importlib.util.find_spec(package)
    if spec is None or not spec.submodule_search_locations:
        raise WhynanError(f"{module} is not installed.", "Install requirements/losses.txt.")
    if (place := next(iter(spec.submodule_search_locations))) not in sys.path:
        sys.path.append(place)
    return name


def commit() -> str:
    """The commit of the code that is run; empty outside a repository."""
    try:
        found = subprocess.run(["git", "rev-parse", "--short", "HEAD"], capture_output=True, text=True, cwd=HERE)
    except OSError:
        return ""
    return found.stdout.strip()


def page(results: list[dict[str, Any]]) -> str:
    """The summary in Markdown."""
    total = {key: sum(r["counts"][key] for r in results) for key in ("losses", "safe", "unsafe", "excluded")}
    asked = total["losses"] - total["excluded"]
    decided = total["safe"] + total["unsafe"]
    lines = [_INTRODUCTION.format(asked=asked, decided=decided, share=decided / asked, **total)]
    lines += ["| module | version | commit | losses | safe | unsafe | open | excluded | decided |", "|---|---|---|---|---|---|---|---|---|"]
    for r in results:
        n = r["counts"]
        left = n["losses"] - n["safe"] - n["unsafe"] - n["excluded"]
        versions = ", ".join(f"{name} {v}" for name, v in r["versions"].items() if name != "losses")
        lines.append(
            f"| {r['module']} | {versions} | {r.get('commit', '')} | {n['losses']} | {n['safe']} | {n['unsafe']} | {left} "
            f"| {n['excluded']} | {n['decided']:.0%} |"
        )
    for r in results:
        lines += ["", f"## {r['module']}", "", "| loss | verdict | why | on |", "|---|---|---|---|"]
        lines += [_row(row) for row in r["losses"]]
    return "\n".join(lines) + "\n"


_INTRODUCTION = """# Audit

What `whynan audit MODULE` says of the losses of well-known packages: {decided} of {asked} decided ({share:.0%}), {safe} proven finite,
{unsafe} with an input on which they fail, {excluded} left out with a reason. The failures are described in
[docs/defects.md](../../docs/defects.md).

`python benchmarks/audit/run.py` repeats it: pages, witness programs and tables land in `whynan-audit/`, the summary here. Inputs that
inference cannot know are stated in `src/whynan/audits/overrides/`. A verdict is about the domains in the last column, float32, and the
default modes (PyTorch eager, TensorFlow eager and function, JAX jit); a failure repeated by its program in a fresh process is "confirmed".
The modules were audited at the commits in the table: with several, the later ones checked again what was open (`--only WORD`).
`python -m tests.soundness.adversarial --audit benchmarks/audit/results.json` attacks each proof, in each mode, with 10,000 evaluations.

"""


def _row(row: dict[str, Any]) -> str:
    said = "; ".join(row["findings"]) + (" (confirmed)" if row["confirmed"] else "") if row["findings"] else row["reason"]
    cells = (row["name"], row["verdict"], said, "; ".join(row["domains"]))
    return "| " + " | ".join(" ".join(cell.split()).replace("|", "\\|").replace("<", "&lt;") for cell in cells) + " |"


def main() -> int:
    """Audit the modules given, or all, and write the summary; 1 if less than nine in ten losses are decided, else 0."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("modules", nargs="*", metavar="MODULE", help="all if none is given")
    parser.add_argument("--only", action="append", default=[], metavar="WORD", help="only these losses; the others keep their rows")
    parser.add_argument("--output", type=Path, default=Path("whynan-audit"))
    parser.add_argument("--jobs", type=int, default=0)
    parser.add_argument("--timeout", type=float, default=120.0)
    parser.add_argument("--fresh", action="store_true", help="check again what the output folder has an answer to")
    options = parser.parse_args()
    file = HERE / "results.json"
    results = {r["module"]: r for r in json.loads(file.read_text("utf-8"))} if file.is_file() else {}
    for module in options.modules or MODULES:
        try:
            how = {"jobs": options.jobs, "timeout": options.timeout, "fresh": options.fresh}
            found = audited(module, options.output, options.only, **how)
            results[module] = joined(results[module], found) if options.only and module in results else found
        except WhynanError as error:
            print(error, file=sys.stderr)
    ordered = [results[m] for m in MODULES if m in results]
    file.write_text(json.dumps(ordered, indent=1, allow_nan=False) + "\n", encoding="utf-8")
    (HERE / "README.md").write_text(page(ordered), encoding="utf-8")
    return 0 if all(r["counts"]["decided"] >= GOAL for r in ordered) else 1


if __name__ == "__main__":
    sys.exit(main())
