"""A model's last activation moved into the loss: the model then returns logits, and the loss can take the stable form that wants them."""

import ast
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

from whynan.patches.idioms import idiom
from whynan.patches.source import Source, Span, plain, stores

_ACTIVATIONS = frozenset({"sigmoid", "softmax"})
_LAYERS = {"torch.nn.Sigmoid": "torch.sigmoid({0})", "torch.nn.Softmax": "torch.softmax({0}, dim={dim})"}
_BY_NAME = {"sigmoid": "keras.ops.sigmoid({0})", "softmax": "keras.ops.softmax({0})"}  # Dense(1, activation="sigmoid")
_SEQUENTIAL = ("torch.nn.Sequential", "keras.Sequential", "keras.models.Sequential")


@dataclass(frozen=True, slots=True)
class Place:
    """A function by its file, its name and the line it begins in, or (line 0) an object made at the file's top level under that name."""

    file: Path
    name: str
    line: int = 0


@dataclass(frozen=True, slots=True)
class Dropped:
    """Where an activation stands in a model, what stands there without it, and how the activation is written, of `{0}`."""

    span: Span
    text: str
    activation: str


def moved(model: Place, loss: Place, prediction: str, framework: str, texts: dict[Path, str]) -> dict[Path, str] | None:
    """The texts of the files with the model's last activation taken at the start of the loss instead; None if it has none that is seen.

    `prediction` is the loss's argument that the model's output becomes. The value of the loss of the model stays what it is.
    """
    source = Source(texts[model.file])
    last = _dropped(source, model, framework)
    if last is None:
        return None
    start, end = last.span
    without = {**texts, model.file: source.text[:start] + last.text + source.text[end:]}
    target = Source(without[loss.file])
    # the model's own edit may stand above the loss in the same file, within a line: lines stay what they are
    activation = _spelled(last.activation, source, target)
    function = _function(target, loss)
    if activation is None or function is None:
        return None
    taken = _taken(target, function, prediction, activation)
    return None if taken is None else {**without, loss.file: taken}


# ---------------------------------------------------------------- the model


def _dropped(source: Source, model: Place, framework: str) -> Dropped | None:
    function = _function(source, model) if model.line else None
    if function is not None:
        returned = [n for n in _own(function) if isinstance(n, ast.Return) and n.value is not None]
        return _of_call(source, returned[0].value, framework) if len(returned) == 1 and returned[0].value is not None else None
    made = [s for s in stores(source.tree, model.name) if isinstance(s, ast.Assign)]
    return _of_layers(source, made[0].value) if len(made) == 1 else None


def _of_call(source: Source, node: ast.expr, framework: str) -> Dropped | None:
    """`torch.sigmoid(z)` or `z.sigmoid()`, written as a call of the framework's own."""
    if not isinstance(node, ast.Call):
        return None
    name = source.dotted(node.func)
    method = isinstance(node.func, ast.Attribute) and not name
    known = name or (f".{node.func.attr}" if isinstance(node.func, ast.Attribute) else "")
    table = idiom("keras" if name.startswith("keras.") else framework)
    if not any(s.op in _ACTIVATIONS for s in table.by_name.get(known, ())):
        return None
    inner = node.func.value if method and isinstance(node.func, ast.Attribute) else next(iter(node.args), None)
    if inner is None or isinstance(inner, ast.Starred):
        return None
    (a, b), (c, d) = source.span(node), source.span(inner)
    text = source.text[c:d]
    if "\n" in text:
        text = f"({text})"
    return Dropped((a, b), text, f"{_escaped(source.text[a:c])}{{0}}{_escaped(source.text[d:b])}")


def _of_layers(source: Source, node: ast.expr) -> Dropped | None:
    """The last layer of a `Sequential`: an activation of its own, or one that a layer is given by name."""
    if not isinstance(node, ast.Call) or source.dotted(node.func) not in _SEQUENTIAL or not node.args:
        return None
    layers = node.args[0].elts if isinstance(node.args[0], ast.List) and len(node.args) == 1 else node.args
    if len(layers) < 2 or not isinstance(layers[-1], ast.Call):
        return None
    last = layers[-1]
    name = source.dotted(last.func)
    if name in _LAYERS:
        dim = next((source.text_of(k.value) for k in last.keywords if k.arg == "dim"), source.text_of(last.args[0]) if last.args else "")
        return Dropped((source.span(layers[-2])[1], source.span(last)[1]), "", _LAYERS[name].replace("{dim}", dim or "-1"))
    given = next((k for k in last.keywords if k.arg == "activation" and isinstance(k.value, ast.Constant)), None)
    if (
        given is None
        or not isinstance(given.value, ast.Constant)
        or str(given.value.value) not in _BY_NAME
        or not name.startswith("keras.")
    ):
        return None
    before = [*last.args, *(k.value for k in last.keywords if k is not given and k.value.lineno <= given.value.lineno)]
    start = max((source.span(n)[1] for n in before), default=-1)
    end = source.span(given.value)[1]
    return Dropped((start, end), "", _BY_NAME[str(given.value.value)]) if 0 <= start < end else None


# ---------------------------------------------------------------- the loss


def _taken(source: Source, function: ast.FunctionDef, prediction: str, activation: str) -> str | None:
    """The loss with a first statement that applies the activation, under a new name that all uses of the prediction become."""
    names = {n.id for n in ast.walk(source.tree) if isinstance(n, ast.Name)} | {
        a.arg for a in ast.walk(source.tree) if isinstance(a, ast.arg)
    }
    body = function.body[1:] if ast.get_docstring(function, clean=False) is not None else function.body
    if prediction not in {a.arg for a in ast.walk(function.args) if isinstance(a, ast.arg)} or stores(function, prediction) or not body:
        return None
    new = next(n for n in ("prob", "probs", *(f"prob_{k}" for k in range(2, 100))) if n not in names)
    uses = [n for n in ast.walk(function) if isinstance(n, ast.Name) and n.id == prediction and isinstance(n.ctx, ast.Load)]
    start = source.span(body[0])[0]
    line = source.text.rfind("\n", 0, start) + 1
    indent = source.text[line:start]
    if indent.strip() or not uses:
        return None
    newline = "\r\n" if "\r\n" in source.text else "\n"
    text = source.text
    for a, b in sorted((source.span(u) for u in uses), reverse=True):
        text = text[:a] + new + text[b:]
    return f"{text[:start]}{new} = {activation.format(prediction)}{newline}{indent}{text[start:]}"


def _spelled(activation: str, model: Source, loss: Source) -> str | None:
    """The activation as the loss's file can write it; None if a name in it means something else there."""
    full = re.match(r"(torch|keras)\.[\w.]+\(\{0\}", activation)
    if full is None:
        names = {n.id for n in ast.walk(ast.parse(activation.format("_"), mode="eval")) if isinstance(n, ast.Name)} - {"_"}
        return activation if all(model.imports.get(n) is not None and model.imports.get(n) == loss.imports.get(n) for n in names) else None
    called = activation.partition("(")[0]
    for name, target in sorted(loss.imports.items()):
        stem = plain(target)
        if stem and called.startswith(f"{stem}."):
            return name + called[len(stem) :] + activation[len(called) :]
    return None


# ---------------------------------------------------------------- shared


def _function(source: Source, place: Place) -> ast.FunctionDef | None:
    found = [n for n in ast.walk(source.tree) if isinstance(n, ast.FunctionDef) and n.name == place.name]
    return min(found, key=lambda f: abs(_first_line(f) - place.line), default=None)


def _first_line(function: ast.FunctionDef) -> int:
    return min([function.lineno, *(d.lineno for d in function.decorator_list)])


def _own(function: ast.FunctionDef) -> Iterator[ast.AST]:
    """The nodes of a function, those of functions inside it left out."""
    stack: list[ast.AST] = list(function.body)
    while stack:
        node = stack.pop()
        yield node
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.Lambda | ast.ClassDef):
            stack += ast.iter_child_nodes(node)


def _escaped(text: str) -> str:
    return text.replace("{", "{{").replace("}", "}}")
