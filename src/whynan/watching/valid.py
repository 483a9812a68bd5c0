"""Whether JSON data are as a schema says: the part of JSON Schema that whynan's own schemas use, with a limit on every size."""

import json
from collections.abc import Mapping
from functools import cache
from importlib.resources import files
from typing import Any

_TYPES: Mapping[str, tuple[type, ...]] = {
    "object": (dict,),
    "array": (list,),
    "string": (str,),
    "integer": (int,),
    "number": (int, float),
    "boolean": (bool,),
    "null": (type(None),),
}


@cache
def schema(name: str) -> Mapping[str, Any]:
    """The schema in a file of the package: "watching/schema.json"."""
    package, _, file = name.rpartition("/")
    found: Mapping[str, Any] = json.loads((files("whynan") / package / file).read_text(encoding="utf-8"))
    return found


def fault(value: Any, name: str) -> str:
    """The first thing in which the data break the schema, as "moments[3].loss is no number"; empty if nothing does."""
    return _fault(value, schema(name), name, "")


def _fault(value: Any, rule: Mapping[str, Any], home: str, path: str) -> str:
    if "$ref" in rule:
        file, _, pointer = rule["$ref"].partition("#")
        home = file.removeprefix("../") if file else home
        rule = schema(home)["$defs"][pointer.rpartition("/")[2]]
        return _fault(value, rule, home, path)
    if "anyOf" in rule:
        each = [_fault(value, one, home, path) for one in rule["anyOf"]]
        return "" if "" in each else max(each, key=lambda found: (not found.endswith("is no null"), len(found)))
    return _own(value, rule, path) or _inner(value, rule, home, path)


def _own(value: Any, rule: Mapping[str, Any], path: str) -> str:
    """What is wrong with the value itself."""
    what = path or "it"
    kind = rule.get("type")
    if kind is not None and (not isinstance(value, _TYPES[kind]) or (isinstance(value, bool) and kind != "boolean")):
        return f"{what} is no {kind}"
    if "enum" in rule and value not in rule["enum"]:
        return f"{what} is none of {', '.join(map(str, rule['enum']))}"
    if "const" in rule and value != rule["const"]:
        return f"{what} is not {rule['const']}"
    if isinstance(value, str | list) and len(value) > rule.get("maxItems", rule.get("maxLength", len(value))):
        return f"{what} is too long"
    if isinstance(value, int) and not rule.get("minimum", value) <= value <= rule.get("maximum", value):
        return f"{what} is out of range"
    return ""


def _inner(value: Any, rule: Mapping[str, Any], home: str, path: str) -> str:
    """What is wrong with its items."""
    if isinstance(value, dict):
        missing = next((key for key in rule.get("required", ()) if key not in value), None)
        if missing is not None:
            return f"{path or 'it'} has no {missing}"
        rest, known = rule.get("additionalProperties", {}), rule.get("properties", {})
        inner = (_fault(item, known.get(key, rest), home, f"{path}.{key}".lstrip(".")) for key, item in value.items())
        return next((found for found in inner if found), "")
    if isinstance(value, list) and "items" in rule:
        return next((found for i, item in enumerate(value) if (found := _fault(item, rule["items"], home, f"{path}[{i}]"))), "")
    return ""
