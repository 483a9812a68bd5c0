"""The JSON report: strict, complete, and as its schema says."""

import copy
import json
from dataclasses import dataclass
from importlib.resources import files

import ml_dtypes
import numpy as np
import pytest

from whynan.analysis.finding import Witness
from whynan.report.json import dumps, plain, to_dict

SCHEMA = json.loads((files("whynan.report") / "schema.json").read_text(encoding="utf-8"))
TYPES = {"object": dict, "array": list, "string": str, "integer": int, "number": (int, float), "boolean": bool, "null": type(None)}
KNOWN = {
    "$schema", "$defs", "$ref", "title", "description", "type", "required", "properties", "additionalProperties", "items", "enum", "const",
    "anyOf",
}  # fmt: skip


def faults(value, schema, path="report"):
    """What in a JSON value breaks a schema, for the keywords that our schema uses; any other keyword is an error."""
    assert set(schema) <= KNOWN
    if "$ref" in schema:
        return faults(value, SCHEMA["$defs"][schema["$ref"].rpartition("/")[2]], path)
    if "anyOf" in schema:
        each = [faults(value, s, path) for s in schema["anyOf"]]
        return [] if [] in each else max(each, key=len)
    found = []
    if "type" in schema and (not isinstance(value, TYPES[schema["type"]]) or (isinstance(value, bool) and schema["type"] != "boolean")):
        return [f"{path} is no {schema['type']}"]
    if "enum" in schema and value not in schema["enum"]:
        found.append(f"{path} is none of {schema['enum']}")
    if "const" in schema and value != schema["const"]:
        found.append(f"{path} is not {schema['const']}")
    if isinstance(value, dict):
        found += [f"{path} has no {key}" for key in schema.get("required", []) if key not in value]
        rest = schema.get("additionalProperties", {})
        found += [f for key, item in value.items() for f in faults(item, schema.get("properties", {}).get(key, rest), f"{path}.{key}")]
    if isinstance(value, list):
        found += [f for i, item in enumerate(value) for f in faults(item, schema.get("items", {}), f"{path}[{i}]")]
    return found


def strict(text):
    """Parse JSON that must not have NaN or Infinity as bare words."""

    def refuse(word):
        raise ValueError(f"not JSON: {word}")

    return json.loads(text, parse_constant=refuse)


def test_golden(name, example, matches_golden):
    if name != "exploding-gradient":  # 6000 numbers
        matches_golden(f"json/{name}.json", dumps(example))


def test_follows_the_schema(name, example):
    assert faults(strict(dumps(example)), SCHEMA) == []


def test_every_field_is_in_the_schema(name, example):
    data = to_dict(example)
    assert set(data) <= set(SCHEMA["properties"])
    for finding in data["findings"]:
        assert set(finding) | {"details", "accuracy"} == set(SCHEMA["$defs"]["finding"]["properties"])  # only where there are any


def test_safe_ranges_and_details_fit_the_schema():
    torch = pytest.importorskip("torch")
    import whynan

    def loss(x, y):
        return (torch.sigmoid(x) ** 2).mean() + torch.log(y + 1e-12).mean() - torch.sigmoid(x).mean()

    data = strict(dumps(whynan.check(loss, envelope="all", x=whynan.logit(3), y=whynan.nonnegative(3))))
    assert {(r["proven"] is None, r["witness"] is None) for r in data["safe_ranges"]} >= {(False, True), (True, False)}
    details = [f["details"] for f in data["findings"] if "details" in f]
    assert {key for d in details for key in d} == {"regions", "share", "largest_found", "largest_proven"}
    assert faults(data, SCHEMA) == []
    details[0]["share"] = details[0]["largest_found"] = "much"
    data["safe_ranges"][0]["proven"] = "much"
    assert len(faults(data, SCHEMA)) >= 2


@pytest.mark.parametrize(
    "break_it",
    [
        lambda r: r.pop("verdict"),
        lambda r: r.update(verdict="fine"),
        lambda r: r.update(schema="whynan.report/2"),
        lambda r: r["sites"].update(total="12"),
        lambda r: r["findings"][0].update(phase="sideways"),
        lambda r: r["findings"][0]["site"].pop("column"),
        lambda r: r["findings"][0]["witness"].update(loss="nan"),
        lambda r: r["findings"][0]["witness"]["inputs"].update(p=[[{}]]),
        lambda r: r["domain"]["p"].update(assumed=1),
    ],
)
def test_the_checker_of_the_schema_finds_faults(examples, break_it):
    data = copy.deepcopy(to_dict(examples["epsilon-rounds-away"]()))
    break_it(data)
    assert faults(data, SCHEMA) != []


def test_non_finite_numbers_are_strings(make_report, make_finding):
    witness = Witness({"x": np.array([[np.nan, np.inf], [-np.inf, -0.0]])}, np.float32("nan"), {"x": np.float16([1, np.inf])})
    data = strict(dumps(make_report(seconds=float("inf"), findings=(make_finding(witness=witness),))))
    shown = data["findings"][0]["witness"]
    assert shown["inputs"]["x"] == [["NaN", "Infinity"], ["-Infinity", 0.0]]
    assert np.signbit(shown["inputs"]["x"][1][1])
    assert (shown["loss"], shown["gradients"]["x"], data["seconds"]) == ("NaN", [1.0, "Infinity"], "Infinity")


@pytest.mark.parametrize("dtype", [np.float64, np.float32, np.float16, ml_dtypes.bfloat16])
def test_arrays_come_back_bit_for_bit(dtype, make_report, make_finding):
    info = ml_dtypes.finfo(dtype)
    x = np.array([info.smallest_subnormal, info.max, 0.1, -0.0], dtype).reshape(2, 1, 2)
    shown = strict(dumps(make_report(findings=(make_finding(witness=Witness({"x": x}, x[0, 0, 0], {})),))))["findings"][0]["witness"]
    back = np.array(shown["inputs"]["x"], np.float64).astype(shown["dtypes"]["x"]).reshape(shown["shapes"]["x"])
    assert back.tobytes() == x.tobytes()


def test_booleans_integers_and_empty_arrays(make_report, make_finding):
    inputs = {"m": np.array([True, False]), "k": np.array(7), "e": np.zeros((0, 3), np.float32)}
    shown = to_dict(make_report(findings=(make_finding(witness=Witness(inputs, np.float32(0), {})),)))["findings"][0]["witness"]
    assert shown["inputs"] == {"m": [True, False], "k": 7, "e": []}
    assert shown["inputs"]["m"][0] is True
    assert shown["shapes"]["e"] == [0, 3]


@dataclass
class Fix:
    title: str
    applicability: str
    patch: str
    evidence: dict


def test_fixes(make_report, make_finding):
    fix = Fix("from logits", "verified", "--- a\n", {"verdict": "safe", "difference": np.float32("inf")})
    data = to_dict(make_report(findings=(make_finding(fixes=(fix,)),)))
    expected = {"title": "from logits", "applicability": "verified", "patch": "--- a\n"}
    assert data["findings"][0]["fixes"] == [{**expected, "evidence": {"verdict": "safe", "difference": "Infinity"}}]
    assert faults(data, SCHEMA) == []


def test_other_objects_are_shown_by_their_fields():
    assert plain(Fix("t", "advice", "", {1: (float("nan"), None)})) == {
        "title": "t", "applicability": "advice", "patch": "", "evidence": {"1": ["NaN", None]},
    }  # fmt: skip
