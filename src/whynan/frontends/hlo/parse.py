"""Optimised HLO text as XLA prints it: computations of instructions, and the tables that say where in the source each comes from.

    HloModule jit_loss, ...
    FileNames / FunctionNames / FileLocations / StackFrames   (JAX prints these tables; TensorFlow does not)
    %fused_computation (param_0: f32[4,3]) -> f32[4,3] {
      %param_0 = f32[4,3]{1,0} parameter(0)
      ROOT %exp.0 = f32[4,3]{1,0} exponential(%param_0), metadata={op_name="jit(loss)/exp" stack_frame_id=6}
    }
    ENTRY %main (x: f32[4,3]) -> f32[4,3] { ... }

Comments, tilings and what else says nothing about values is dropped. Attributes stay text: `numbers`, `computation` and
`entries` read them on demand.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field, replace
from math import prod
from types import MappingProxyType
from typing import Any

import ml_dtypes
import numpy as np

from whynan.errors import TargetError
from whynan.ir.dtype import Array

# ---------------------------------------------------------------- what a module is made of


@dataclass(frozen=True, slots=True)
class Type:
    """An array's type: the element type as HLO spells it ("f32", "pred") and its dimensions (a dynamic one at its bound).

    `layout` lists the dimensions from the one whose elements lie closest together to the one whose lie farthest apart.
    """

    element: str
    dims: tuple[int, ...] = ()
    layout: tuple[int, ...] = ()


Types = Type | tuple["Types", ...]


@dataclass(frozen=True, slots=True)
class Frame:
    """One Python frame: lines count from 1, columns from 0 in UTF-8 bytes, as in CPython's code positions; 0 and -1 mean not given."""

    file: str
    function: str
    line: int
    end_line: int = 0
    column: int = -1
    end_column: int = -1


@dataclass(frozen=True, slots=True)
class Metadata:
    """Where an instruction comes from. `frames` are innermost first; `source_file` and `source_line` is the older, coarser form."""

    op_type: str = ""
    op_name: str = ""
    source_file: str = ""
    source_line: int = 0
    frames: tuple[Frame, ...] = ()


@dataclass(frozen=True, slots=True, eq=False)
class Instruction:
    """One instruction. `operands` are names of earlier instructions; `literal` is the text in the parentheses where none are named.

    `value` is that of a constant whose elements the text leaves out, if it is known.
    """

    name: str
    opcode: str
    type: Types
    operands: tuple[str, ...] = ()
    literal: str = ""
    attributes: Mapping[str, str] = field(default_factory=dict)
    metadata: Metadata = Metadata()
    value: Array | None = None


@dataclass(frozen=True, slots=True, eq=False)
class Computation:
    """A function: instructions in order of execution, the last word being that of `root`."""

    name: str
    instructions: tuple[Instruction, ...]
    root: Instruction

    @property
    def parameters(self) -> tuple[Instruction, ...]:
        """The parameters in the order of their numbers."""
        found = [i for i in self.instructions if i.opcode == "parameter"]
        return tuple(sorted(found, key=lambda i: int(i.literal)))


@dataclass(frozen=True, slots=True, eq=False)
class Module:
    """A whole program: the entry computation and all computations by name.

    `typed` says that instructions name the op that they stem from by type, as TensorFlow's do and JAX's do not.
    """

    name: str
    entry: Computation
    computations: Mapping[str, Computation]
    typed: bool = False


# ---------------------------------------------------------------- modules

_ADVICE = "Report this with the version of XLA: it prints its programs in a way that whynan does not know."

_STRING = r'"(?:[^"\\]|\\.)*"'
_COMMENT = re.compile(rf"({_STRING})|/\*.*?\*/", re.S)
_HEADER = re.compile(r"^\s*(ENTRY\s+)?%?([\w.\-]+)\s*(?:\(.*)?\{\s*$")
_TABLES = ("FileNames", "FunctionNames", "FileLocations", "StackFrames")


def parse(text: str, constants: Mapping[str, Array] = MappingProxyType({})) -> Module:
    """The module that the text describes. Raises TargetError where it is no HLO module or cannot be read, naming the line.

    `constants` are values by instruction name, for constants whose elements the text leaves out (see `literals`).
    """
    lines = _COMMENT.sub(lambda m: m.group(1) or "", text).splitlines()
    name, tables = "", dict[str, dict[int, str]]()
    computations: dict[str, Computation] = {}
    entry, table = "", ""
    frames: _Frames | None = None  # the tables stand before the first computation
    rest = iter(lines)
    for line in rest:
        header = _HEADER.match(line)
        if line.startswith("HloModule"):
            name = line.split(None, 1)[1].split(",")[0].strip()
        elif line.strip() in _TABLES:
            table = line.strip()
            tables[table] = {}
        elif table and (row := re.match(r"\s*(\d+)\s+(.*)", line)):
            tables[table][int(row.group(1))] = row.group(2)
        elif header:
            table = ""
            frames = frames or _Frames(tables)
            computation = _computation(header.group(2), _statements(rest), frames, constants)
            computations[computation.name] = computation
            entry = computation.name if header.group(1) else entry
    if not computations:
        raise TargetError("The compiler's text holds no HLO computation.", _ADVICE)
    typed = any(i.metadata.op_type and not i.metadata.frames for c in computations.values() for i in c.instructions)
    return Module(name, computations[entry or computation.name], computations, typed)


def _statements(lines: Iterator[str]) -> Iterator[str]:
    """The instructions up to the closing brace, each on one line: a literal may go over several."""
    collected = ""
    for line in lines:
        if not collected and line.strip().startswith("}"):
            return
        collected += (" " if collected else "") + line.strip()
        if collected and _balanced(collected):
            yield collected
            collected = ""


def _computation(name: str, statements: Iterator[str], frames: "_Frames", constants: Mapping[str, Array]) -> Computation:
    instructions, root = [], None
    for statement in statements:
        instruction = _instruction(statement.removeprefix("ROOT "), frames)
        if "..." in instruction.literal and instruction.name in constants:
            instruction = replace(instruction, value=constants[instruction.name])
        instructions.append(instruction)
        root = instruction if statement.startswith("ROOT ") else root
    if not instructions:
        raise TargetError(f"The HLO computation {name} is empty.", _ADVICE)
    return Computation(name, tuple(instructions), root or instructions[-1])


# ---------------------------------------------------------------- instructions

_NAME = re.compile(r"%?([\w.\-]+)\s*=\s*")
_ARRAY = re.compile(r"([a-z]\w*)\[([^\]]*)\]")
_OPCODE = re.compile(r"\s*([\w\-]+)\s*\(")
_TOKEN = re.compile(rf"{_STRING}|[()\[\]{{}},]")


def _instruction(text: str, frames: "_Frames") -> Instruction:
    name = _NAME.match(text)
    end, kind = _type(text, name.end()) if name else (0, Type(""))
    opcode = _OPCODE.match(text, end)
    if not name or not opcode:
        raise TargetError(f"The HLO instruction {text[:120]!r} cannot be read.", _ADVICE)
    close = _closing(text, opcode.end() - 1)
    inside, op = text[opcode.end() : close], opcode.group(1)
    attributes = dict(_attributes(text[close + 1 :]))
    metadata = _metadata(attributes.pop("metadata", ""), frames)
    if op in ("parameter", "constant", "iota"):
        return Instruction(name.group(1), op, kind, (), inside.strip(), attributes, metadata)
    operands = tuple(part.split()[-1].lstrip("%") for part in pieces(inside))
    return Instruction(name.group(1), op, kind, operands, "", attributes, metadata)


def _type(text: str, start: int) -> tuple[int, Types]:
    """A type and where its text ends; layouts are skipped."""
    if text[start] == "(":
        close = _closing(text, start)
        return close + 1, tuple(_type(part, 0)[1] for part in pieces(text[start + 1 : close]))
    array = _ARRAY.match(text, start)
    if not array:
        return start, Type("")
    end = array.end()
    dims = tuple(int(re.sub(r"\D", "", d)) for d in array.group(2).split(",") if re.search(r"\d", d))
    layout = tuple(reversed(range(len(dims))))
    if text[end : end + 1] == "{":
        close = _closing(text, end)
        layout, end = numbers(text[end:close].split(":")[0]) or layout, close + 1
    return end, Type(array.group(1), dims, layout)


def _attributes(text: str) -> Iterator[tuple[str, str]]:
    for part in pieces(text):
        key, sign, value = part.partition("=")
        if sign:
            yield key.strip(), value.strip()


def pieces(text: str) -> list[str]:
    """The parts between commas that stand in no bracket and no string; empty ones are left out."""
    out, depth, start = [], 0, 0
    for token in _TOKEN.finditer(text):
        c = token.group()
        if c in "([{":
            depth += 1
        elif c in ")]}":
            depth -= 1
        elif c == "," and depth == 0:
            out.append(text[start : token.start()].strip())
            start = token.end()
    out.append(text[start:].strip())
    return [p for p in out if p]


def _closing(text: str, start: int) -> int:
    """Where the bracket that opens at `start` closes; the text's end if it does not."""
    depth = 0
    for token in _TOKEN.finditer(text, start):
        c = token.group()
        depth += (c in "([{") - (c in ")]}")
        if depth == 0:
            return token.start()
    return len(text)


def _balanced(text: str) -> bool:
    depth = sum((c in "([{") - (c in ")]}") for c in (t.group() for t in _TOKEN.finditer(text)) if len(c) == 1)
    return depth <= 0


# ---------------------------------------------------------------- attributes


def numbers(text: str) -> tuple[int, ...]:
    """The integers of an attribute such as "{0,1}"."""
    return tuple(int(n) for n in re.findall(r"-?\d+", text))


def computation(text: str) -> str:
    """The name of a computation that an attribute refers to ("%region_0.1")."""
    return text.strip().lstrip("%")


def entries(text: str) -> list[str]:
    """The parts of an attribute in braces: "{[0:4], [0:3]}" gives "[0:4]" and "[0:3]"."""
    return pieces(text.strip().removeprefix("{").removesuffix("}"))


# ---------------------------------------------------------------- literals

_NUMPY: dict[str, Any] = {
    "pred": np.bool_,
    "f64": np.float64,
    "f32": np.float32,
    "f16": np.float16,
    "bf16": ml_dtypes.bfloat16,
    **{f"{s}{n}": np.dtype(f"{'int' if s == 's' else 'uint'}{n}") for s in "su" for n in (8, 16, 32, 64)},
}


def literal(text: str, kind: Type) -> Array | None:
    """A constant's value; None where the text leaves it out ("{...}") or NumPy has no such element type."""
    if kind.element not in _NUMPY or "..." in text:
        return None
    words = re.findall(r"[^\s{},]+", text)
    if len(words) != prod(kind.dims):
        return None
    dtype = np.dtype(_NUMPY[kind.element])
    if dtype.kind == "b":
        return np.array([w in ("true", "1") for w in words]).reshape(kind.dims)
    if dtype.kind in "iu":
        return np.array([int(w) for w in words], dtype).reshape(kind.dims)
    with np.errstate(all="ignore"):
        return np.array([_float(w, dtype) for w in words], dtype).reshape(kind.dims)


def _float(word: str, dtype: np.dtype[Any]) -> Any:
    """A number as XLA prints it: decimal, hexadecimal, inf, nan, or nan with its payload."""
    if word.lstrip("-").startswith("nan"):
        return dtype.type(np.copysign(np.nan, -1.0 if word.startswith("-") else 1.0))
    return dtype.type(float.fromhex(word) if "0x" in word else float(word))


# ---------------------------------------------------------------- provenance


class _Frames:
    """The stack-frame tables: frames by number, innermost first."""

    def __init__(self, tables: Mapping[str, Mapping[int, str]]) -> None:
        self.files = {k: unquoted(v) for k, v in tables.get("FileNames", {}).items()}
        self.functions = {k: unquoted(v) for k, v in tables.get("FunctionNames", {}).items()}
        self.locations = {k: _fields(v) for k, v in tables.get("FileLocations", {}).items()}
        self.frames = {k: _fields(v) for k, v in tables.get("StackFrames", {}).items()}
        # newer versions count parents from 1, with 1 for none: the first frame then is its own parent
        first = min(self.frames, default=0)
        self.shift = 1 if first and int(self.frames[first].get("parent_frame_id", 0)) == first else 0
        self.known: dict[int, tuple[Frame, ...]] = {}

    def stack(self, number: int) -> tuple[Frame, ...]:
        """The frame of that number and those around it."""
        if number not in self.known:
            self.known[number] = tuple(self._walk(number))
        return self.known[number]

    def _walk(self, number: int) -> Iterator[Frame]:
        seen = set[int]()
        while number in self.frames and number not in seen:
            seen.add(number)
            row = self.frames[number]
            at = self.locations.get(int(row.get("file_location_id", 0)), {})
            yield Frame(
                self.files.get(int(at.get("file_name_id", 0)), ""),
                self.functions.get(int(at.get("function_name_id", 0)), ""),
                int(at.get("line", 0)),
                int(at.get("end_line", 0)),
                int(at.get("column", -1)),
                int(at.get("end_column", -1)),
            )
            number = int(row.get("parent_frame_id", 0)) - self.shift


_FIELD = re.compile(rf"(\w+)=({_STRING}|[^\s}}]+)")


def _fields(text: str) -> dict[str, str]:
    return {m.group(1): unquoted(m.group(2)) for m in _FIELD.finditer(text)}


def unquoted(text: str) -> str:
    """A quoted string as it was before XLA escaped it; other text as it is."""
    text = text.strip()
    if not text.startswith('"'):
        return text
    return re.sub(r"\\(.)", lambda m: {"n": "\n", "t": "\t", "r": "\r"}.get(m.group(1), m.group(1)), text[1:-1])


def _metadata(text: str, frames: _Frames) -> Metadata:
    if not text:
        return Metadata()
    f = _fields(text)
    stack = frames.stack(int(f.get("stack_frame_id", 0)))
    return Metadata(f.get("op_type", ""), f.get("op_name", ""), f.get("source_file", ""), int(f.get("source_line", 0)), stack)
