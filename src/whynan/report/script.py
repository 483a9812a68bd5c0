"""A program that repeats a failure without whynan: for a bug report, a colleague, or a debugger.

The inputs are written bit for bit. A float is written with the fewest digits that name it in float64, which every narrower
format's values fit in exactly; large arrays are a plain value with exceptions, or compressed bytes.
"""

import base64
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np

from whynan.ir.dtype import Array
from whynan.report import _text
from whynan.report._dialects import DIALECTS, Dialect

_LIST_ELEMENTS = 64  # up to here an array is written as a list
_EXCEPTIONS = 32


def witness_script(
    target: str,
    inputs: Mapping[str, Array],
    gradients_by: tuple[str, ...],
    *,
    framework: str = "torch",
    mode: str = "eager",
    positional: tuple[str, ...] = (),
    parameters: Mapping[str, Array] | None = None,
    seed: int = 0,
    environment: Mapping[str, str] | None = None,
) -> str:
    """The program as text. It prints loss and gradients and exits with 1 if one is not finite, 0 if all are, 2 if it cannot run.

    `target` is `FILE.py:EXPR` or `package.module:EXPR`; for a loss that no such text reaches (a lambda, a closure) it is empty, and
    the program has a line to fill in. `inputs` are passed by name, those in `positional` by position in that order. `parameters`
    are a module's own, by qualified name; `gradients_by` may name inputs and parameters. `environment` is what must be set before
    the framework is imported, such as `KERAS_BACKEND`. Raises KeyError for a framework or a mode that has no dialect.
    """
    dialect = DIALECTS[framework]
    parameters = parameters or {}
    own = {name: value for name, value in inputs.items() if name not in parameters}
    facts = f"GRADIENTS_BY = {list(gradients_by)!r}\nPOSITIONAL = {list(positional)!r}\nSEED = {seed}\n"
    parts = [
        _OPENING.format(target=_docstring(target), framework=framework, mode=mode, imports=_imports(dialect, environment or {})),
        "\n".join([*_table(dialect, "INPUTS", own), *_table(dialect, "PARAMETERS", parameters), facts]),
        _loader(target),
        f'\n\ndef compiled(loss):\n    """The loss as the mode that fails runs it."""\n    return {dialect.modes[mode]}\n\n',
        dialect.run,
        _MAIN,
    ]
    return "".join(parts)


_OPENING = """\"\"\"Repeats a failure that whynan found, without whynan.

Target: {target} ({framework}, {mode})
Exit code: 1 if the loss or a gradient is not finite, 0 if all are finite, 2 if the loss cannot be run.
\"\"\"

import base64
import dataclasses
import functools
import importlib
import importlib.util
import inspect
import os
import pathlib
import sys
import traceback
import zlib

{imports}

"""

_MAIN = """

def main():
    \"\"\"Run, print, and say whether anything is not finite.\"\"\"
    failed = False
    for name, value in run(load_loss()).items():
        count, first = wrong(value)
        failed = failed or count > 0
        print(f"{name} = {value}")
        if count and first:
            print(f"    {count} not finite, the first at {first}")
    return 1 if failed else 0


if __name__ == "__main__":
    try:
        code = main()
    except Exception:
        traceback.print_exc()
        code = 2
    sys.exit(code)
"""

_LOAD_FILE = """

def load_loss():
    \"\"\"The loss, from its file (imported under its package's name if it lies in one).\"\"\"
    path = pathlib.Path({place!r}).resolve()
    folder, names = path.parent, [path.stem]
    while (folder / "__init__.py").exists():
        folder, names = folder.parent, [folder.name, *names]
    sys.path.insert(0, str(folder))
    spec = importlib.util.spec_from_file_location(".".join(names), path)
    module = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = module
    spec.loader.exec_module(module)
    return eval({expression!r}, vars(module))
"""

_LOAD_MODULE = """

def load_loss():
    \"\"\"The loss, from its module.\"\"\"
    sys.path.insert(0, os.getcwd())
    return eval({expression!r}, vars(importlib.import_module({place!r})))
"""

_LOAD_NOTHING = """

def load_loss():
    \"\"\"The loss was given to whynan as an object that no file and name lead to: return it here.\"\"\"
    raise NotImplementedError("load_loss() must return the loss; write here how to make it.")
"""


def _imports(dialect: Dialect, environment: Mapping[str, str]) -> str:
    return "".join(f"os.environ[{name!r}] = {value!r}\n" for name, value in environment.items()) + dialect.imports


def _loader(target: str) -> str:
    place, expression = _text.split_target(target)
    if not place:
        return _LOAD_NOTHING
    return (_LOAD_FILE if place.endswith(".py") else _LOAD_MODULE).format(place=place, expression=expression)


def _docstring(text: str) -> str:
    """Text that cannot end or escape the docstring that it stands in."""
    return _text.one_line(_text.visible(text)).replace("\\", "/").replace('"', "'") or "an object without a name"


# ---------------------------------------------------------------- arrays


def _table(dialect: Dialect, table: str, arrays: Mapping[str, Array]) -> list[str]:
    return [
        f"{table} = {{}}",
        *(line for name, value in arrays.items() for line in _array(dialect, f"{table}[{name!r}]", np.asarray(value))),
    ]


def _array(dialect: Dialect, name: str, value: Array) -> list[str]:
    """The statements that build one array, bit for bit."""
    fields: dict[str, Any] = {"name": name, "dtype": str(value.dtype), "shape": tuple(int(n) for n in value.shape)}
    if value.size == 0:
        return [dialect.full.format(**fields, value="0")]
    if value.size <= _LIST_ELEMENTS and not _has_nan(value):
        return [dialect.literal.format(**fields, values=_literal(value))]
    plain, others = _text.plain_value(value)
    if len(others) <= _EXCEPTIONS and not _has_nan(value):
        exceptions = [(", ".join(map(str, map(int, i))), _literal(value[tuple(i)])) for i in others]
        assigned = [dialect.assign.format(**fields, index=i, value=v) for i, v in exceptions]
        return [dialect.full.format(**fields, value=_literal(plain)), *assigned]
    return [dialect.data.format(**fields, data=_bytes(value))]


def _has_nan(value: Array) -> bool:
    """Whether bits matter that no literal names: those of a NaN."""
    return value.dtype.kind not in "biu" and bool(np.isnan(value.astype(np.float64)).any())


def _literal(value: Any) -> str:
    """Nested lists of Python literals; a float is exact in float64."""
    value = np.asarray(value)
    if value.ndim:
        return "[" + ", ".join(_literal(part) for part in value) + "]"
    if value.dtype.kind in "biu":
        return repr(value.item())
    x = float(value)
    return repr(x) if np.isfinite(x) else f"float({str(x)!r})"


def _bytes(value: Array) -> str:
    raw = np.ascontiguousarray(value).reshape(-1).view(f"u{value.dtype.itemsize}").astype(f"<u{value.dtype.itemsize}").tobytes()
    text = base64.b64encode(zlib.compress(raw, 6)).decode()
    lines = (text[i : i + 100] for i in range(0, len(text), 100))
    quoted = "".join(f"\n    {line!r}" for line in lines)
    return f"zlib.decompress(base64.b64decode({quoted}\n))"
