"""The domain notation as text: `prob(8, 1)`, `real(3, low=-1, high=1, dtype='float16')`, `NAME=DOMAIN`.

The text is parsed with Python's own grammar and read node by node; nothing in it is ever evaluated.
"""

import ast
import difflib
import inspect
import math
from collections.abc import Callable, Iterable
from typing import Any

from whynan.domain.spec import CONSTRUCTORS, Domain, const
from whynan.errors import DomainError

_KINDS = ", ".join(CONSTRUCTORS)
_WORDS = {"inf": math.inf, "nan": math.nan, "True": True, "False": False, "None": None}


def parse(text: str) -> Domain:
    """The domain that a text writes: a constructor's call, or a number or list, which stands for `const`. Raises DomainError."""
    try:
        tree = ast.parse(text.strip(), mode="eval").body
    except (SyntaxError, ValueError, RecursionError, MemoryError):
        raise DomainError(f"{_short(text)} is not a domain.", "Write it like prob(8, 1) or real(3, low=-1, high=1).") from None
    if isinstance(tree, ast.Call):
        return _call(tree, text)
    if isinstance(tree, ast.Name) and tree.id in CONSTRUCTORS:
        raise DomainError(f"the domain {tree.id} needs a shape.", f"Write {tree.id}(8, 3), or {tree.id}() for a scalar.")
    return const(_value(tree, text))


def parse_assignment(text: str) -> tuple[str, Domain]:
    """Name and domain of `NAME=DOMAIN`, as the command line's -d takes it. Raises DomainError."""
    name, equals, rest = text.partition("=")
    if not equals or not name.strip().isidentifier():
        raise DomainError(f"{_short(text)} is not NAME=DOMAIN.", 'Write it like -d "p=prob(8, 1)", the name being the argument\'s.')
    try:
        return name.strip(), parse(rest)
    except DomainError as error:
        raise DomainError(f"{name.strip()}: {error.message}", error.hint) from None


def parse_assignments(texts: Iterable[str]) -> dict[str, Domain]:
    """Domains by name from several `NAME=DOMAIN`; the same name twice is an error."""
    domains: dict[str, Domain] = {}
    for text in texts:
        name, domain = parse_assignment(text)
        if name in domains:
            raise DomainError(f"the domain of {name!r} is given twice.", "Leave one of them out.")
        domains[name] = domain
    return domains


def _call(tree: ast.Call, text: str) -> Domain:
    name = tree.func.id if isinstance(tree.func, ast.Name) else ast.unparse(tree.func).rpartition(".")[2]
    maker = CONSTRUCTORS.get(name)
    if maker is None:
        close = difflib.get_close_matches(name, CONSTRUCTORS, 1)
        raise DomainError(f"there is no domain {name!r}.", f"Did you mean {close[0]}?" if close else f"Use one of {_KINDS}.")
    args = [_value(node, text) for node in tree.args]
    keywords = {k.arg or "**": _keyword(k, text) for k in tree.keywords}
    known = _parameters(maker)
    for keyword in keywords:
        if keyword not in known:
            raise DomainError(f"{name} has no keyword {keyword!r}.", f"It takes {', '.join(known)}.")
    try:
        return maker(*args, **keywords)
    except TypeError:
        raise DomainError(f"{_short(text)} does not fit {name}.", f"It takes {', '.join(known)}.") from None


def _parameters(maker: Callable[..., Domain]) -> list[str]:
    return [("*" if p.kind is p.VAR_POSITIONAL else "") + p.name for p in inspect.signature(maker).parameters.values()]


def _keyword(keyword: ast.keyword, text: str) -> Any:
    if keyword.arg == "dtype" and isinstance(keyword.value, ast.Name | ast.Attribute):
        return ast.unparse(keyword.value)  # dtype=float16 and dtype=torch.float16 read as names
    return _value(keyword.value, text)


def _value(node: ast.expr, text: str) -> Any:
    """A literal: a number, word or string, with a sign, in tuples or lists."""
    match node:
        case ast.Constant(value=bool() | int() | float() | str() | None as value):
            return value
        case ast.Name(id=word) if word in _WORDS:
            return _WORDS[word]
        case ast.UnaryOp(op=ast.USub() | ast.UAdd() as sign, operand=operand):
            value = _value(operand, text)
            if isinstance(value, int | float) and not isinstance(value, bool):
                return -value if isinstance(sign, ast.USub) else value
        case ast.Tuple(elts=elements) | ast.List(elts=elements):
            return [_value(element, text) for element in elements]
    raise DomainError(f"{_short(ast.unparse(node))} in {_short(text)} is not a number.", "Write numbers, as in real(3, low=-1, high=1e4).")


def _short(text: str) -> str:
    line = " ".join(text.split())
    return repr(line if len(line) <= 60 else line[:57] + "...")
