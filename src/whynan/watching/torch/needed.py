"""Which statements of a frame's blocks a value needs, walked backwards, and which of the frame's values these read."""

import ast
import copy
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import FunctionType, ModuleType
from typing import Any

import numpy as np
import torch

from whynan.watching.torch.calls import Refused
from whynan.watching.torch.nested import attributes, tensors_in
from whynan.watching.torch.statements import SCOPES, Level, changes, made_in, name_of, reads, stores

_PLAIN = (int, float, complex, str, bytes, bool, type, type(None), torch.dtype, torch.device, torch.nn.Module, torch.optim.Optimizer)
_PLAIN_TOO = (np.ndarray, np.generic, FunctionType, ModuleType, range, torch.Generator)
_ITERATES_AGAIN = frozenset({"range", "zip", "enumerate", "reversed", "items", "values", "keys"})
ROOT = "differentiated_by_backward"


class Missing:
    """Stands for a value that the frame no longer has. A watched model does not look at it: it gets its arguments of the step."""


@dataclass(frozen=True, slots=True)
class Way:
    """How far back lines are followed. `doubting`: values that are not finite are computed again, too, rather than taken as they are.
    `cutting`: values that were made before these lines, and are differentiated, are taken for data.
    """

    doubting: bool = False
    cutting: bool = False


class Reader:
    """Walks backwards through the blocks of one frame, whose names have the values `known`, and else those of its module."""

    def __init__(self, known: Mapping[str, Any], module: Mapping[str, Any], later: set[str], way: Way) -> None:
        self._known, self._module, self._later = known, module, later  # `later`: assigned to after the statement that is looked at
        self._since = frozenset(later)
        self._way = way
        self._needed: set[str] = set()
        self._taken: dict[str, Any] = {}

    def sliced(self, found: list[Level], expression: ast.expr) -> list[ast.stmt]:
        """The statements that the expression needs, the blocks `with` around them included, and the expression as the last."""
        self._need(expression)
        target = ast.copy_location(ast.Name(ROOT, ast.Store()), expression)
        kept: list[ast.stmt] = [ast.copy_location(ast.Assign([target], expression), expression)]
        for level in reversed(found):
            kept = self._before(level.block[: level.index]) + kept
            if isinstance(level.owner, (ast.For, ast.While, ast.AsyncFor, *SCOPES)):
                break  # what lies before was made in another round, or by the caller
            if isinstance(level.owner, ast.With):
                kept = self._within(level.owner, kept)
        return self._without_attributes(kept)

    def _without_attributes(self, body: list[ast.stmt]) -> list[ast.stmt]:
        """The lines with a name in place of each attribute whose value can be kept: `self_net` for `self.net`.

        Raises Refused if an attribute has changed since, or was made before these lines.
        """
        names: dict[str, str] = {}
        for dotted in sorted(n for n in {*self._needed, *self._taken} if "." in n):
            value = self._value(dotted)
            if dotted in self._later:
                raise Refused("an attribute has changed since")
            if not isinstance(self._value(dotted.partition(".")[0]), (ModuleType, type)) and _can_be_kept(value):
                names[dotted] = self._fresh(dotted)
                self._taken[names[dotted]] = self._checked(dotted, value)
        stored = {n: self._fresh(n) for s in body for n in stores(s) if "." in n}
        whole = _loaded(_renamed(body, {**names, **stored}))  # objects whose methods may look at what is stored in them
        renamed = _renamed(body, {**names, **{n: fresh for n, fresh in stored.items() if n.partition(".")[0] not in whole}})
        self._needed &= _loaded(renamed)
        self._taken = {n: v for n, v in self._taken.items() if "." not in n}
        return renamed

    def _fresh(self, dotted: str) -> str:
        fresh = dotted.replace(".", "_")
        while fresh in self._known or fresh in self._module:
            fresh += "_"
        return fresh

    def _checked(self, name: str, value: Any) -> Any:
        if not self._way.cutting and not plain(value) and has_history(value):
            raise Refused(f"{name} was made before these lines")
        return value

    def _need(self, node: ast.AST) -> None:
        _decent(node)
        self._needed |= reads(node)

    def _before(self, statements: Sequence[ast.stmt]) -> list[ast.stmt]:
        kept: list[ast.stmt] = []
        for statement in reversed(statements):
            kept = self._looked_at(statement) + kept
            self._later |= stores(statement)
        return kept

    def _looked_at(self, statement: ast.stmt) -> list[ast.stmt]:
        """The statement as far as it is needed."""
        wanted = stores(statement) & self._needed
        for name in [n for n in wanted if self._is_there(n, statement)]:
            self._taken[name] = self._value(name)
            self._needed.discard(name)
            wanted.discard(name)
        wanted |= {n for n in changes(statement) & self._needed if self._is_container(n)}
        if not wanted:
            return []
        if isinstance(statement, ast.With):
            return self._within(statement, self._before(statement.body))
        if isinstance(statement, ast.If):
            return [self._branches(statement)]
        if isinstance(statement, (ast.For, ast.AsyncFor)) and not self._again(statement.iter):
            raise Refused("a loop takes from an iterator")
        if isinstance(statement, ast.AugAssign) and not isinstance(statement.target, ast.Name):
            raise Refused("the lines change an object")
        if isinstance(statement, (ast.Assign, ast.AnnAssign, ast.FunctionDef)):
            self._needed -= stores(statement)
        before = set(self._needed)
        self._need(statement)
        if isinstance(statement, ast.For):
            self._needed -= made_in(statement) - before
        return [statement]

    def _within(self, statement: ast.With, body: list[ast.stmt]) -> list[ast.stmt]:
        """The statements under those contexts that say how torch computes; other contexts are not entered a second time."""
        items = [item for item in statement.items if self._is_torchs(item.context_expr)]
        if any(stores(item) & self._needed for item in statement.items if item not in items):
            raise Refused("a context's value is needed")
        for item in items:
            self._need(item)
        return [ast.copy_location(ast.With(items, body), statement)] if items and body else body

    def _is_torchs(self, context: ast.expr) -> bool:
        """Whether a context is one of torch's, or is called autocast."""
        made = context.func if isinstance(context, ast.Call) else context
        if "autocast" in ast.unparse(made):
            return True
        while isinstance(made, ast.Attribute):
            made = made.value
        value = self._value(name_of(made))
        kind = value if isinstance(value, (type, FunctionType, ModuleType)) else type(value)
        return f"{kind.__name__ if isinstance(kind, ModuleType) else kind.__module__}.".startswith("torch.")

    def _branches(self, statement: ast.If) -> ast.If:
        needed = set(self._needed)
        yes = self._before(statement.body)
        after, self._needed = self._needed, set(needed)
        no = self._before(statement.orelse)
        self._needed |= after | needed
        self._need(statement.test)
        return ast.copy_location(ast.If(statement.test, yes or [_nothing(statement)], no), statement)

    def _value(self, name: str) -> Any:
        """The name's present value, `Missing` if it has none."""
        base, _, attribute = name.partition(".")
        value = self._known.get(base, self._module.get(base, Missing))
        return getattr(value, "__dict__", {}).get(attribute, Missing) if attribute else value

    def _is_there(self, name: str, statement: ast.stmt) -> bool:
        """Whether the frame still has the value that the statement gave the name, and it holds no gradient history.

        If values are doubted, one that is not finite counts as missing where the statement has computed it from other tensors.
        """
        value = self._value(name)
        there = name not in self._later and value is not Missing and plain(value)
        if not (there and self._way.doubting) or all(map(finite, tensors_in(value))):
            return there
        return not any(tensors_in(self._value(n)) for n in reads(statement) - {name})

    def _is_container(self, name: str) -> bool:
        """Whether this is a container of what the lines make, so that it has to be filled again, too."""
        value = self._value(name)
        return value is Missing or (isinstance(value, (list, dict, set)) and not plain(value))

    def _again(self, iterated: ast.expr) -> bool:
        """Whether a second loop over this would give the same."""
        if isinstance(iterated, ast.Call):
            f = iterated.func
            return (f.attr if isinstance(f, ast.Attribute) else name_of(f)) in _ITERATES_AGAIN
        if isinstance(iterated, (ast.List, ast.Tuple)):
            return True
        if isinstance(iterated, ast.Subscript):
            return self._again(iterated.value)
        value = self._value(name_of(iterated))
        return isinstance(value, (list, tuple, dict, torch.Tensor, torch.nn.Module)) or (value is Missing and bool(name_of(iterated)))

    def everything(self) -> dict[str, Any]:
        """As `free`, with the values of the module's names too."""
        free = self.free()
        return {n: self._module[n] for n in sorted(self._needed) if n in self._module and n not in self._known} | free

    def free(self) -> dict[str, Any]:
        """The values of the names that are read before they are assigned to, tensors of the module's among them.

        Raises Refused if one has a history of its own.
        """
        data = {n: v for n, v in self._module.items() if n in self._needed and tensors_in(v)}
        for name, value in sorted({**data, **{n: v for n, v in self._known.items() if n in self._needed}}.items()):
            self._taken[name] = Missing() if name in self._later else self._checked(name, value)
        return dict(self._taken)

    def left(self, body: Sequence[ast.stmt]) -> dict[str, torch.Tensor]:
        """The tensors that the frame still has of the names that the statements assign to."""
        kept = {n: self._known.get(n) for s in body for n in stores(s) - self._since - {ROOT}}
        return {n: t for n, t in kept.items() if isinstance(t, torch.Tensor)}


class _Renamed(ast.NodeTransformer):
    """Puts names in the place of attributes."""

    def __init__(self, names: Mapping[str, str]) -> None:
        self._names = names

    def visit_Attribute(self, node: ast.Attribute) -> ast.AST:
        """A name, if there is one for it."""
        name = self._names.get(name_of(node))
        return ast.copy_location(ast.Name(name, node.ctx), node) if name else self.generic_visit(node)


def _renamed(body: Sequence[ast.stmt], names: Mapping[str, str]) -> list[ast.stmt]:
    return [_Renamed(names).visit(copy.deepcopy(s)) for s in body]


def _loaded(body: Sequence[ast.stmt]) -> set[str]:
    """The names that lines read."""
    nodes = [n for s in body for n in ast.walk(s)]
    read = {n.id for n in nodes if isinstance(n, ast.Name) and not isinstance(n.ctx, ast.Store)}
    return read | {n.target.id for n in nodes if isinstance(n, ast.AugAssign) and isinstance(n.target, ast.Name)}


def _can_be_kept(value: Any) -> bool:
    """Whether a value is one of data or a module, rather than something that does."""
    kinds = (torch.Tensor, torch.nn.Module, int, float, str, np.ndarray, tuple, list, dict)
    return value is not Missing and (value is None or isinstance(value, kinds) or bool(attributes(value)))


def _nothing(statement: ast.stmt) -> ast.stmt:
    return ast.copy_location(ast.Pass(), statement)


def _decent(node: ast.AST) -> None:
    """Raises Refused for what may not be done again."""
    for n in ast.walk(node):
        if isinstance(n, (ast.Yield, ast.YieldFrom, ast.Await, ast.Return, ast.Global, ast.Nonlocal)) and not isinstance(node, SCOPES):
            raise Refused("the lines hand something out")
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Name) and n.func.id in ("next", "input"):
            raise Refused("the lines take from an iterator")
        if isinstance(n, ast.Call) and isinstance(n.func, ast.Attribute) and n.func.attr in ("backward", "step"):
            raise Refused("the lines change gradients or parameters")


# ---------------------------------------------------------------- values


def plain(value: Any, depth: int = 4) -> bool:
    """Whether a value is known to hold no gradient history, so that it can be used as it is."""
    if isinstance(value, torch.Tensor):
        return value.grad_fn is None
    if isinstance(value, (*_PLAIN, *_PLAIN_TOO)):
        return True
    if depth and isinstance(value, Mapping):
        return all(plain(v, depth - 1) for v in value.values())
    if depth and isinstance(value, (tuple, list, set, frozenset)):
        return all(plain(v, depth - 1) for v in value)
    return bool(depth and attributes(value)) and plain(attributes(value), depth - 1)


def finite(t: torch.Tensor) -> bool:
    """Whether a tensor holds only finite numbers."""
    return not t.is_floating_point() or bool(torch.isfinite(t.detach()).all())


def has_history(value: Any) -> bool:
    """Whether a tensor in it was made by something that is differentiated."""
    return any(t.grad_fn is not None for t in tensors_in(value))
