"""A report as JSON data, schema `whynan.report/1` (described by `schema.json` beside this file).

Strict JSON: numbers that JSON has no notation for are the strings "NaN", "Infinity" and "-Infinity". Arrays are nested lists; the
dtypes and shapes that lists cannot say stand beside them.
"""

import json
import math
from collections.abc import Mapping
from dataclasses import fields, is_dataclass
from typing import Any

import numpy as np

from whynan.analysis.finding import Finding, Open, Report, SafeRange, Step, Witness
from whynan.ir.where import Site

SCHEMA = "whynan.report/1"
_SITES = ("total", "proven", "refuted", "undecided")
_FIX = ("title", "applicability", "patch", "evidence")


def to_dict(report: Report) -> dict[str, Any]:
    """The report as dicts, lists, strings, numbers, booleans and None."""
    return {
        "schema": SCHEMA,
        "target": report.target,
        "framework": report.framework,
        "framework_version": report.framework_version,
        "dtype": report.dtype,
        "modes": list(report.modes),
        "verdict": report.verdict,
        "seconds": plain(report.seconds),
        "domain": {name: _domain(d) for name, d in report.domain.items()},
        "sites": {key: int(report.sites.get(key, 0)) for key in _SITES},
        "findings": [finding_dict(f) for f in report.findings],
        "undecided": [_open(o) for o in report.undecided],
        "search": {
            "evaluations": int(report.search.get("evaluations", 0)),
            "screened": int(report.search.get("screened", 0)),
            "seconds": plain(report.search.get("seconds", 0.0)),
            **({"boxes": int(report.search["boxes"])} if "boxes" in report.search else {}),
        },
        "envelope": plain(report.envelope),
        "notes": list(report.notes),
        **({"safe_ranges": [_safe_range(r) for r in report.safe_ranges]} if report.safe_ranges else {}),
    }


def dumps(report: Report) -> str:
    """The report as JSON text."""
    return json.dumps(to_dict(report), indent=2, allow_nan=False) + "\n"


def finding_dict(finding: Finding) -> dict[str, Any]:
    """One finding, as in a report's `findings`."""
    return {
        "id": finding.id,
        "kind": finding.kind,
        "severity": finding.severity,
        "cause": finding.cause,
        "related": list(finding.related),
        "message": finding.message,
        "modes": list(finding.modes),
        "phase": finding.phase,
        "op": finding.op,
        "site": _site(finding.site),
        "chain": [_step(s) for s in finding.chain],
        "witness": _witness(finding.witness) if finding.witness is not None else None,
        "fixes": [_fix(f) for f in finding.fixes],
        **({"details": plain(finding.details)} if finding.details else {}),
        **({"accuracy": plain(finding.accuracy)} if finding.accuracy is not None else {}),
    }


def plain(value: Any) -> Any:
    """Any value of a report as JSON data: arrays as nested lists, non-finite numbers as strings, other objects by their fields."""
    if value is None or isinstance(value, str | bool | int):
        return value
    if isinstance(value, float):
        return _number(value)
    if isinstance(value, np.ndarray | np.generic):
        return _array(np.asarray(value))
    if isinstance(value, Mapping):
        return {str(key): plain(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [plain(item) for item in value]
    if is_dataclass(value):
        return {f.name: plain(getattr(value, f.name)) for f in fields(value)}
    return str(value)


def _number(x: float) -> float | str:
    if math.isfinite(x):
        return x
    return "NaN" if math.isnan(x) else "Infinity" if x > 0 else "-Infinity"


def _array(value: Any) -> Any:
    if value.dtype.kind in "biu":
        return value.tolist()
    wide = value.astype(np.float64)
    return wide.tolist() if np.isfinite(wide).all() else plain(wide.tolist())


def _domain(domain: Any) -> dict[str, Any]:
    return {
        "kind": domain.kind,
        "shape": list(domain.shape),
        "dtype": domain.dtype,
        "low": plain(domain.low),
        "high": plain(domain.high),
        "assumed": domain.assumed,
    }


def _site(site: Site | None) -> dict[str, Any] | None:
    return None if site is None else {f.name: getattr(site, f.name) for f in fields(site)}


def _step(step: Step) -> dict[str, Any]:
    return {"op": step.op, "site": _site(step.site), "phase": step.phase, "inputs": list(step.inputs), "output": step.output}


def _open(site: Open) -> dict[str, Any]:
    return {"op": site.op, "site": _site(site.site), "phase": site.phase, "reason": site.reason}


def _witness(witness: Witness) -> dict[str, Any]:
    return {
        "inputs": plain(witness.inputs),
        "dtypes": {name: str(value.dtype) for name, value in witness.inputs.items()},
        "shapes": {name: list(value.shape) for name, value in witness.inputs.items()},
        "loss": plain(witness.loss),
        "gradients": plain(witness.gradients),
        **({"exact": plain(witness.exact)} if witness.exact else {}),
        "script": witness.script(),
    }


def _safe_range(r: SafeRange) -> dict[str, Any]:
    return {
        "inputs": list(r.inputs),
        "dtype": r.dtype,
        "mode": r.mode,
        "proven": plain(r.proven),
        "failing": plain(r.failing),
        "whole": r.whole,
        "reason": r.reason,
        "witness": _witness(r.witness) if r.witness is not None else None,
    }


def _fix(fix: Any) -> dict[str, Any]:
    return {name: plain(getattr(fix, name, None)) for name in _FIX}
