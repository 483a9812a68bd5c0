"""Reading: source to terms, through imports, names, methods and statements; and what must not be looked through."""

import textwrap

import pytest

from whynan.ir.term import Term, at
from whynan.patches.read import Context, contexts
from whynan.patches.source import Source

TORCH = "import torch\nimport torch.nn.functional as F\nfrom torch import log\nimport math\n"


def read(text: str, failing: str, framework: str = "torch") -> list[Context]:
    source = Source(textwrap.dedent(text))
    line = next(k for k, line in enumerate(source.text.splitlines()) if failing in line)
    column = source.text.splitlines()[line].encode().index(failing.encode())
    return contexts(source, framework, (line + 1, column), (line + 1, column + len(failing.encode())))


def first(body: str, failing: str, head: str = TORCH, framework: str = "torch") -> str:
    return str(read(f"{head}\ndef f(x, y, t):\n" + textwrap.indent(textwrap.dedent(body), "    "), failing, framework)[0].term)


@pytest.mark.parametrize(
    ("written", "term"),
    [
        ("torch.log(x)", "log(x)"),
        ("x.log()", "log(x)"),
        ("log(x)", "log(x)"),
        ("torch.log(input=x)", "log(x)"),
        ("x ** 2", "x ** 2"),
        ("torch.sum(x, dim=-1)", "sum(x, axis=-1)"),
        ("x.sum(-1, True)", "sum(x, axis=-1, keepdims=True)"),
        ("x.sum((0, 1))", "sum(x, axis=(0, 1))"),
        ("x.mean()", "mean(x)"),
        ("x.clamp(min=1e-6)", "clamp_min(x, 1e-06)"),
        ("x.clamp(max=1)", "clamp_max(x, 1)"),
        ("torch.clamp(x, 0, 1)", "clamp(x, 0, 1)"),
        ("torch.max(x, y)", "maximum(x, y)"),
        ("x.max(dim=1).values", "amax(x, axis=1)"),
        ("x.max(1, keepdim=True)[0]", "amax(x, axis=1, keepdims=True)"),
        ("x.max()", "amax(x)"),
        ("F.softmax(x, dim=1)", "softmax(x, axis=1)"),
        ("torch.nn.functional.softplus(x)", "softplus(x)"),
        ("x.masked_fill(t > 0, -math.inf)", "where(t > 0, number('-inf'), x)"),
        ("-x + float('inf')", "-x + number('inf')"),
        ("x.float() / 2", "cast(x, dtype='float32') / 2"),
        ("x.to(torch.float16)", "cast(x, dtype='float16')"),
        ("x[:, None] - y.T", "move(x, text='{0}[:, None]') - move(y, text='{0}.T')"),
        ("x[:, {}.get(1)] - y", "move(x, text='{0}[:, {{}}.get(1)]') - y"),
        ("(x > 0) & ~(y == 1)", "logical_and(x > 0, logical_not(y == 1))"),
        ("2 * math.pi * x", "6.283185307179586 * x"),
        ("x.norm(dim=1)", "norm(x, axis=1, p=2.0)"),
        ("x.std()", "std(x, correction=1)"),
        ("my(x, 3) + 1", "opaque(x, text='my({0}, 3)') + 1"),
        ("F.mse_loss(x, y, reduction='sum')", "opaque(x, y, text=\"F.mse_loss({0}, {1}, reduction='sum')\")"),
        ("x.softmax(dim)", "softmax(x, axis='dim')"),
        ("self.eps + x", "leaf('self.eps') + x"),
    ],
)
def test_torch(written: str, term: str) -> None:
    assert first(f"return {written}", written) == term


@pytest.mark.parametrize(
    ("written", "term"),
    [
        ("tf.math.log(x)", "log(x)"),
        ("tf.reduce_sum(x, 1, keepdims=True)", "sum(x, axis=1, keepdims=True)"),
        ("tf.nn.softmax(x)", "softmax(x, axis=-1)"),
        ("tf.clip_by_value(x, 0., 1.)", "clamp(x, 0, 1)"),
        ("tf.keras.ops.sqrt(x)", "sqrt(x)"),
        ("K.log(x + K.epsilon())", "log(x + leaf('K.epsilon()'))"),
        ("tf.cast(x, tf.float32)", "cast(x, dtype='float32')"),
        ("tf.norm(x, axis=[0, 1])", "norm(x, axis=(0, 1), p=2.0)"),
        ("tf.nn.sigmoid_cross_entropy_with_logits(labels=t, logits=x)", "bce_with_logits(x, t)"),
    ],
)
def test_tensorflow(written: str, term: str) -> None:
    head = "import tensorflow as tf\nimport tensorflow.keras.backend as K\n"
    assert first(f"return {written}", written, head, "tensorflow") == term


@pytest.mark.parametrize(
    ("written", "term"),
    [
        ("jnp.log(x)", "log(x)"),
        ("jnp.sum(x, axis=1)", "sum(x, axis=1)"),
        ("x.sum(axis=1)", "sum(x, axis=1)"),
        ("nn.log_softmax(x)", "log_softmax(x, axis=-1)"),
        ("jnp.linalg.norm(x, axis=-1, keepdims=True)", "norm(x, axis=-1, keepdims=True, p=2.0)"),
        ("jnp.take_along_axis(x, t, axis=1)", "gather(x, t, axis=1)"),
        ("x.astype(jnp.float32)", "cast(x, dtype='float32')"),
        ("jnp.clip(x, 0, 1)", "clamp(x, 0, 1)"),
    ],
)
def test_jax(written: str, term: str) -> None:
    assert first(f"return {written}", written, "import jax.numpy as jnp\nfrom jax import nn\n", "jax") == term


# ---------------------------------------------------------------- names


def test_a_name_assigned_once_is_looked_through() -> None:
    assert first("p = torch.sigmoid(x)\nreturn torch.log(p)", "torch.log(p)") == "log(sigmoid(x))"
    assert first("a, b = x + 1, y\nreturn a / b", "a / b") == "(x + 1) / y"
    assert first("p = x\nif t:\n    return torch.log(p)\nreturn p", "torch.log(p)") == "log(x)"


@pytest.mark.parametrize(
    ("body", "failing"),
    [
        ("p = x + 1\np = p * 2\np += 1\nreturn torch.log(p)", "torch.log(p)"),  # changed since
        ("p = x + 1\nx = y\nreturn torch.log(p)", "torch.log(p)"),  # what it is made of has changed
        ("p = x + 1\nx.mul_(2)\nreturn torch.log(p)", "torch.log(p)"),
        ("p = x + 1\nx[0] = 2\nreturn torch.log(p)", "torch.log(p)"),
        ("if t:\n    p = x + 1\nelse:\n    p = y\nreturn torch.log(p)", "torch.log(p)"),
        ("p = x\nfor k in t:\n    p = p + torch.log(p)\nreturn p", "torch.log(p)"),
        ("for k in t:\n    p = y + 1\nreturn torch.log(p)", "torch.log(p)"),
        ("p, q = q, p\nreturn torch.log(p)", "torch.log(p)"),
        ("p = x + 1\nfor k in t:\n    y = torch.log(p)\n    x = y\nreturn y", "torch.log(p)"),
        ("for p in t:\n    y = torch.log(p)\nreturn y", "torch.log(p)"),
        ("with a as p:\n    y = torch.log(p)\nreturn y", "torch.log(p)"),
    ],
)
def test_a_name_that_may_have_changed_is_not(body: str, failing: str) -> None:
    assert first(body, failing) == "log(p)"


def test_a_method_of_an_unknown_object_is_a_call_of_something_else() -> None:
    assert first("return self.log(x)", "self.log(x)") == "opaque(x, text='self.log({0})')"


# ---------------------------------------------------------------- contexts


def test_contexts_grow_from_the_failing_expression_to_the_result() -> None:
    found = read(
        TORCH
        + """
def f(x, t):
    p = torch.sigmoid(x)
    nll = t * torch.log(p)  # here
    return -nll.mean()
""",
        "torch.log(p)",
    )
    assert [str(c.term) for c in found] == [
        "log(sigmoid(x))",
        "t * log(sigmoid(x))",
        "mean(t * log(sigmoid(x)))",
        "-mean(t * log(sigmoid(x)))",
    ]
    assert all(str(at(c.term, c.at)) == "log(sigmoid(x))" for c in found)
    assert all(isinstance(c.term, Term) for c in found)


def test_two_uses_in_one_statement_are_one_context() -> None:
    found = read(TORCH + "\ndef f(x):\n    e = torch.exp(x)\n    return torch.log(e / e.sum())\n", "torch.exp(x)")
    assert "log(exp(x) / sum(exp(x)))" in [str(c.term) for c in found]


def test_nothing_is_found_outside_the_text() -> None:
    assert contexts(Source("x = 1\n"), "torch", (7, 0), (7, 4)) == []


def test_non_ascii_columns_are_bytes() -> None:
    assert str(read("import torch\ndef f(x): return 'äöü', torch.log(x)\n", "torch.log(x)")[0].term) == "log(x)"
