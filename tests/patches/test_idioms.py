"""The tables of spellings: every one names a function that exists, and what is printed is read back as the same term."""

import inspect
from importlib import import_module

import pytest

from whynan.ir.term import leaf, number, term
from whynan.patches.idioms import FRAMEWORKS, Spelling, idiom, spellings
from whynan.patches.read import contexts
from whynan.patches.source import Source
from whynan.patches.write import rewritten

IMPORTS = {
    "torch": "import torch\nimport torch.nn.functional as F\n",
    "tensorflow": "import tensorflow as tf\n",
    "keras": "import keras\nfrom keras import ops\n",
    "jax": "import jax\nimport jax.numpy as jnp\n",
}
NOT_INSTALLED_HERE = ("keras.backend.",)  # Keras 2's functions, which Keras 3 has only some of


def named(framework: str) -> list[Spelling]:
    return [s for group in idiom(framework).by_op.values() for s in group if s.name and not s.is_method]


@pytest.mark.slow
@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_every_function_exists_with_these_parameters(framework: str) -> None:
    pytest.importorskip(framework)
    for s in named(framework):
        if s.name.startswith(NOT_INSTALLED_HERE):
            continue
        function = found(s.name)
        assert callable(function), s.name
        try:
            known = list(inspect.signature(function).parameters)
        except (TypeError, ValueError):
            continue  # PyTorch's built-in functions do not say
        if "args" not in known and "kwargs" not in known:
            assert {p.keyword for p in s.parameters} <= set(known), (s.name, known)


def found(name: str) -> object:
    parts = name.split(".")
    for k in range(len(parts) - 1, 0, -1):
        try:
            value = import_module(".".join(parts[:k]))
        except ImportError:
            continue
        for part in parts[k:]:
            value = getattr(value, part)
        return value
    raise AssertionError(name)


def arity(s: Spelling) -> int:
    return sum(p.argument >= 0 for p in s.parameters)


@pytest.mark.parametrize("framework", FRAMEWORKS)
def test_what_is_printed_is_read_back(framework: str) -> None:
    """For each operation: its term, printed in place of `x + y`, reads as the same term."""
    text = IMPORTS[framework] + "\ndef f(x, y, z):\n    return x + y\n"
    if framework == "keras":
        text = text.replace("x + y", "ops.add(x, y)")
    source = Source(text)
    base = "tensorflow" if framework == "keras" else framework
    for op, group in idiom(framework).by_op.items():
        s = group[0]
        shared = (
            not s.template and idiom(framework).by_name[s.name][0].op != op
        )  # `tf.maximum` is read as maximum, printed for clamp_min too
        if s.template or shared or op in ("masked_fill", "add", "bce_with_logits"):
            continue
        attrs = dict(s.fixed) | {p.attribute: value_for(p.attribute) for p in s.parameters if p.attribute}
        t = term(op, *[leaf(n) for n in "xyz"[: arity(s)]], **attrs)
        context = contexts(source, base, start(source), end(source))[0]
        again = Source(rewritten(context, t))
        assert contexts(again, base, start(again), end(again))[0].term == t, (op, again.text)


def value_for(attribute: str) -> object:
    return {"axis": 1, "keepdims": True, "correction": 0, "p": 1.0, "eps": 1e-3, "dtype": "float64"}[attribute]


def start(source: Source) -> tuple[int, int]:
    value = source.tree.body[-1].body[-1].value
    return value.lineno, value.col_offset


def end(source: Source) -> tuple[int, int]:
    value = source.tree.body[-1].body[-1].value
    return value.end_lineno, value.end_col_offset


def test_a_malformed_line_is_refused() -> None:
    for line in ("log torch.log(input=a)", "log: torch.log", "sum: torch.sum(input=a, dim=axis?"):
        with pytest.raises((ValueError, SyntaxError)):
            spellings(line)


def test_roles() -> None:
    (s,) = spellings("softmax{x=1}: m.softmax(input=a, dim=axis?-1, dtype=None)")
    assert (s.op, s.name, s.fixed) == ("softmax", "m.softmax", (("x", 1),))
    assert [(p.keyword, p.argument, p.attribute, p.default) for p in s.parameters[1:]] == [("dim", -1, "axis", -1), ("dtype", -1, "", None)]
    assert number(1.0) == number(1)
