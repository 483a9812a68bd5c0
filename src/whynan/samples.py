"""Sample files: named arrays from `.npz`, `.safetensors` and `.pt`. Nothing in a file is ever executed (no pickle)."""

import zipfile
from collections.abc import Callable, Mapping
from importlib import import_module
from pathlib import Path
from typing import Any

import numpy as np

from whynan.domain.spec import as_array
from whynan.errors import DomainError, FrameworkMissing, SampleError
from whynan.ir.dtype import FORMATS, Array

_SAFETENSORS = {
    "F64": "float64",
    "F32": "float32",
    "F16": "float16",
    "BF16": "bfloat16",
    "I64": "int64",
    "I32": "int32",
    "I16": "int16",
    "I8": "int8",
    "U8": "uint8",
    "BOOL": "bool",
}


def load_samples(path: Path | str) -> dict[str, Array]:
    """The arrays of a sample file by name. Raises SampleError if the file is missing, broken, or of another kind."""
    path = Path(path)
    reader = _READERS.get(path.suffix.lower())
    if reader is None:
        raise SampleError(f"{path} is not a sample file that whynan reads.", f"Use one of {', '.join(_READERS)}.")
    if not path.is_file():
        raise SampleError(f"there is no sample file {path}.", "Check the path given to --samples.")
    try:
        named = reader(path)
        arrays = {str(name): as_array(value) for name, value in named.items()}
    except (SampleError, FrameworkMissing):
        raise
    except DomainError as error:
        raise SampleError(f"{path}: {error.message}", "Save numeric arrays by the names of the loss's arguments.") from None
    except Exception as error:  # the readers raise whatever a broken file leads them to
        raise SampleError(f"{path} cannot be read: {_first_line(error)}.", "Is it complete, and free of pickled objects?") from error
    if not arrays:
        raise SampleError(f"{path} holds no arrays.", "Save them by the names of the loss's arguments.")
    return arrays


def _npz(path: Path) -> Mapping[str, Any]:
    if not zipfile.is_zipfile(path) and path.read_bytes()[:6] != b"\x93NUMPY":
        raise SampleError(f"{path} cannot be read: it is no .npz archive, or only part of one.", "Save with numpy.savez(path, p=p, t=t).")
    loaded = np.load(path, allow_pickle=False)
    if not isinstance(loaded, np.lib.npyio.NpzFile):
        raise SampleError(f"{path} is a single array, not an .npz archive.", "Save with numpy.savez(path, p=p, t=t).")
    with loaded:
        return dict(loaded)


def _safetensors(path: Path) -> Mapping[str, Any]:
    deserialize = _module("safetensors", "safetensors", path).deserialize
    arrays: dict[str, Any] = {}
    for name, view in deserialize(path.read_bytes()):
        if view["dtype"] not in _SAFETENSORS:
            raise SampleError(f"{path}: {name} is of type {view['dtype']}, which is unknown.", f"Use one of {', '.join(FORMATS)}.")
        dtype = FORMATS[_SAFETENSORS[view["dtype"]]].numpy
        arrays[name] = np.frombuffer(bytes(view["data"]), dtype).reshape(view["shape"])
    return arrays


def _pt(path: Path) -> Mapping[str, Any]:
    loaded = _module("torch", "torch", path).load(path, map_location="cpu", weights_only=True)
    if not isinstance(loaded, Mapping):
        raise SampleError(f"{path} holds a {type(loaded).__name__}, not tensors by name.", "Save with torch.save({'p': p, 't': t}, path).")
    return loaded


def _module(name: str, extra: str, path: Path) -> Any:
    try:
        return import_module(name)
    except ImportError:
        raise FrameworkMissing(f"{path} needs {name} to be read, which is not installed.", f"pip install 'whynan[{extra}]'.") from None


def _first_line(error: Exception) -> str:
    said = (str(error).strip().splitlines() or [""])[0].rstrip(".")
    text = said if " " in said else f"{type(error).__name__} {said}".strip()
    return text if len(text) <= 160 else text[:157] + "..."


_READERS: dict[str, Callable[[Path], Mapping[str, Any]]] = {".npz": _npz, ".safetensors": _safetensors, ".pt": _pt}
