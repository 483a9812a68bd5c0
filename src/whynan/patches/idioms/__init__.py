"""How each framework spells each canonical operation: one table, read by the reader and by the printer of source.

A line of a table is `op: spelling | spelling | …`, the spelling to print first. In a spelling such as

    sum: torch.sum*(input=a, dim=axis?None, keepdim=keepdims?False)

the parameters stand in the order in which they may be given positionally, each with its role: `a b c …` are the term's arguments in
order, other names are its attributes (`?` gives the value that an attribute has when the parameter is absent), and a literal is the
only value that the parameter may have. `*` says that the function is a method too, of its first argument. `.float()` is a method only,
whose receiver is `a`. A role with `!` must not be a number (`torch.max(x, 1)` is no maximum of two tensors). `op{dtype='float32'}` fixes
an attribute. A spelling in quotes is a template to print only: `"torch.finfo({0}.dtype).eps"`.
"""

import ast
import re
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import import_module

FRAMEWORKS = ("torch", "tensorflow", "keras", "jax")
ARGUMENTS = "abcdefgh"
MISSING = object()


@dataclass(frozen=True, slots=True)
class Parameter:
    """One parameter of a spelling: its keyword and its role.

    `argument` is the position among the term's arguments (-1: none), `attribute` the name of an attribute ("": none); with neither,
    `default` is the only value that it may have. `default` is MISSING where it must be given. `tensor`: no number may stand there.
    """

    keyword: str
    argument: int = -1
    attribute: str = ""
    default: object = MISSING
    tensor: bool = False


@dataclass(frozen=True, slots=True)
class Spelling:
    """One way to write an operation: a function by its full dotted name, a method (`name` begins with a dot) or a template."""

    op: str
    name: str
    parameters: tuple[Parameter, ...] = ()
    fixed: tuple[tuple[str, Hashable], ...] = ()
    template: str = ""

    @property
    def is_method(self) -> bool:
        """Whether the first argument is the receiver."""
        return self.name.startswith(".")


@dataclass(frozen=True, slots=True, eq=False)
class Idiom:
    """All spellings of a framework: by operation for printing, by name for reading; `moves` are calls that only move elements."""

    by_op: Mapping[str, tuple[Spelling, ...]]
    by_name: Mapping[str, tuple[Spelling, ...]]
    moves: frozenset[str]


@cache
def idiom(framework: str) -> Idiom:
    """The table of one of FRAMEWORKS."""
    module = import_module(f"{__name__}.{framework}")
    return _idiom(module.TABLE, module.MOVES)


def _idiom(table: str, moves: str) -> Idiom:
    by_op: dict[str, list[Spelling]] = {}
    by_name: dict[str, list[Spelling]] = {}
    for line in filter(None, (text.split("#")[0].strip() for text in table.splitlines())):
        for spelling in spellings(line):
            by_op.setdefault(spelling.op, []).append(spelling)
            if not spelling.template:
                by_name.setdefault(spelling.name, []).append(spelling)
    frozen = {op: tuple(found) for op, found in by_op.items()}
    return Idiom(frozen, {name: tuple(found) for name, found in by_name.items()}, frozenset(moves.split()))


def spellings(line: str) -> list[Spelling]:
    """The spellings of one line of a table. Raises ValueError if the line is malformed."""
    head, colon, rest = line.partition(": ")
    found = re.fullmatch(r"(\w+)(?:\{(.*)\})?", head.strip())
    if not colon or found is None:
        raise ValueError(f"{line!r} is not `op: spelling`")
    fixed = tuple(_pair(text) for text in (found[2] or "").split(",") if text)
    out: list[Spelling] = []
    for text in rest.split(" | "):
        out += _spelling(found[1], text.strip(), fixed)
    return out


def _pair(text: str) -> tuple[str, Hashable]:
    name, _, value = text.partition("=")
    return name.strip(), ast.literal_eval(value.strip())


def _spelling(op: str, text: str, fixed: tuple[tuple[str, Hashable], ...]) -> list[Spelling]:
    if text.startswith('"'):
        return [Spelling(op, "", (), fixed, text.strip('"'))]
    found = re.fullmatch(r"([\w.]+)(\*?)\((.*)\)", text)
    if found is None:
        raise ValueError(f"{text!r} is not a spelling")
    name, star, inside = found[1], found[2], found[3]
    parameters = tuple(_parameter(p) for p in re.split(r", (?=\w+=)", inside) if p)
    if name.startswith("."):
        parameters = (Parameter("self", 0), *parameters)
    both = [Spelling(op, name, parameters, fixed)]
    return [*both, Spelling(op, "." + name.rpartition(".")[2], parameters, fixed)] if star else both


def _parameter(text: str) -> Parameter:
    keyword, _, role = text.partition("=")
    role, question, default = role.partition("?")
    tensor, role = role.endswith("!"), role.rstrip("!")
    value: object = ast.literal_eval(default) if question else MISSING
    if len(role) == 1 and role in ARGUMENTS:
        return Parameter(keyword, ARGUMENTS.index(role), "", value, tensor)
    if role.isidentifier() and role not in ("None", "True", "False"):
        return Parameter(keyword, -1, role, value)
    return Parameter(keyword, -1, "", ast.literal_eval(role))
