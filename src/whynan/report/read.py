"""A report from its JSON data: the other way round than `json`.

What the data do not say is lost: which inputs were differentiated by, the value of a constant input, how to run the loss again.
"""

from collections.abc import Mapping
from types import SimpleNamespace
from typing import Any

import numpy as np

from whynan.analysis.finding import Accuracy, Finding, Open, Report, SafeRange, Step, Witness
from whynan.domain.spec import Domain
from whynan.errors import SampleError
from whynan.ir.dtype import FORMATS, Array
from whynan.ir.where import Site
from whynan.report.json import SCHEMA


def from_dict(data: Mapping[str, Any]) -> Report:
    """The report that `to_dict` wrote. Raises SampleError if the data are none of schema `whynan.report/1`."""
    if data.get("schema") != SCHEMA:
        raise SampleError(f"this is no report of schema {SCHEMA}.", "Give what `whynan check --format json` wrote.")
    try:
        return _report(data)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise SampleError(f"the report's data are broken: {type(error).__name__} {error}.", "Make the report anew.") from error


def _report(data: Mapping[str, Any]) -> Report:
    return Report(
        target=data["target"],
        framework=data["framework"],
        framework_version=data["framework_version"],
        dtype=data["dtype"],
        modes=tuple(data["modes"]),
        verdict=data["verdict"],
        seconds=float(data["seconds"]),
        domain={name: _domain(d) for name, d in data["domain"].items()},
        sites=data["sites"],
        findings=tuple(finding_of(f) for f in data["findings"]),
        undecided=tuple(Open(o["op"], _site(o["site"]), o["phase"], o["reason"]) for o in data["undecided"]),
        search=data["search"],
        envelope=data.get("envelope", {}),
        notes=tuple(data.get("notes", ())),
        safe_ranges=tuple(_safe_range(r) for r in data.get("safe_ranges", ())),
    )


def _domain(d: Mapping[str, Any]) -> Domain:
    return Domain(d["kind"], tuple(d["shape"]), d["dtype"], float(d["low"]), float(d["high"]), False, d["assumed"])


def finding_of(f: Mapping[str, Any]) -> Finding:
    """One finding, as `finding_dict` wrote it. Raises KeyError, TypeError or ValueError if it is none."""
    return Finding(
        **{key: f[key] for key in ("id", "kind", "severity", "cause", "message", "op", "phase")},
        site=_site(f["site"]),
        modes=tuple(f["modes"]),
        related=tuple(f["related"]),
        chain=tuple(Step(s["op"], _site(s["site"]), s["phase"], tuple(s["inputs"]), s["output"]) for s in f["chain"]),
        witness=_witness(f["witness"]) if f["witness"] is not None else None,
        fixes=tuple(SimpleNamespace(**fix) for fix in f["fixes"]),
        details=f.get("details", {}),
        accuracy=_accuracy(f["accuracy"]) if f.get("accuracy") is not None else None,
    )


def _accuracy(a: Mapping[str, Any]) -> Accuracy:
    numbers = {key: float(a[key]) for key in ("digits", "of", "computed", "exact", "share")}
    where = {name: tuple((float(low), float(high)) for low, high in parts) for name, parts in a["where"].items()}
    return Accuracy(output=a["output"], where=where, **numbers)


def _safe_range(r: Mapping[str, Any]) -> SafeRange:
    proven, failing = (None if r[key] is None else float(r[key]) for key in ("proven", "failing"))
    witness = _witness(r["witness"]) if r["witness"] is not None else None
    return SafeRange(tuple(r["inputs"]), r["dtype"], r["mode"], proven, failing, witness, r["whole"], r["reason"])


def _witness(w: Mapping[str, Any]) -> Witness:
    inputs = {name: _array(value, w["dtypes"][name], tuple(w["shapes"][name])) for name, value in w["inputs"].items()}
    gradients = {name: _array(value, str(inputs[name].dtype) if name in inputs else "float64") for name, value in w["gradients"].items()}
    exact = {name: _array(value, "float64") for name, value in w.get("exact", {}).items()}
    return Witness(inputs, _array(w["loss"], "float64"), gradients, w["script"], exact=exact)


def _array(value: Any, dtype: str, shape: tuple[int, ...] | None = None) -> Array:
    """Nested lists as an array; strings are the numbers that JSON has no notation for."""
    fmt = FORMATS[dtype]
    wide = np.asarray(value, object).astype(np.float64) if fmt.is_float else np.asarray(value)
    array = wide.astype(fmt.numpy)
    return array if shape is None else array.reshape(shape)


def _site(site: Mapping[str, Any] | None) -> Site | None:
    return None if site is None else Site(**site)
